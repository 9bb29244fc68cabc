"""What a run needs that cannot be shipped: told at once, all of it, and before it starts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrecon.data.sources import missing_files
from jaxrecon.errors import Missing, MissingFiles
from jaxrecon.io.places import manual_folder
from jaxrecon.training.pretrained import pretrained_file

_SMPL = (
    "SMPL: register at https://smpl.is.tue.mpg.de (neutral: https://smplify.is.tue.mpg.de; "
    "non-commercial), rename the models to SMPL_NEUTRAL.pkl, SMPL_MALE.pkl and SMPL_FEMALE.pkl; "
    "the regressors are in the data archive of SPIN, https://github.com/nkolot/SPIN"
)
_BODY_MODELS = ("SMPL_NEUTRAL", "SMPL_MALE", "SMPL_FEMALE")
_REGRESSORS = ("J_regressor_extra.npy", "J_regressor_h36m.npy")
_WEIGHTS = (
    "main: pose_resnet.pth (COCO pose; HRNet: pose_hrnet_w48_256x192.pth); auxiliary: CLIFF's "
    "res50-PA45.7_MJE72.0_MVE85.3_3dpw.pt (HRNet: hr48-PA43.0_MJE69.0_MVE81.2_3dpw.pt; HMR: "
    "hmr.pt) from https://github.com/huawei-noah/noah-research/tree/master/CLIFF; convert them: "
    "--mode=convert --input=main=pose_resnet.pth,aux=CLIFF.pt --output=HERE, or start from nothing "
    "with --config.init_from="
)
_OCCLUDERS = (
    "pascal_occluders.npy, made from the segmentations of Pascal VOC 2012; or leave "
    "config.data.occluders empty for procedural ones"
)


def check_files(config: Any, continues: bool = False) -> None:
    """Raises `MissingFiles` with everything that a training by this config lacks.

    Data sets for training and evaluation, body model, initial weights, occluders. Nothing is
    built, written or loaded.

    Args:
      config: resolved (see `config.load_config`).
      continues: whether the run has a checkpoint of its own, so needs no initial weights.

    Raises:
      MissingFiles: one message that lists all.
      UserError: an unknown data set, builder config or split.
    """
    missing = [*_data_sets(config), *_body(config)]
    start = config.training.init_from
    # Of a path that the user has named the loader says what is wrong with it.
    if not continues and manual_folder() in Path(start).parents:
        missing += _file("config.training.init_from", start, _WEIGHTS)
    missing += _file("config.data.occluders", config.data.occluders, _OCCLUDERS)
    if missing:
        raise MissingFiles(missing)


def _data_sets(config: Any) -> Iterator[Missing]:
    wanted = [(name, config.data.split) for name in config.data.datasets]
    evaluated = [config.evaluation.dataset]
    if config.training.eval_every > 0 or config.training.get("eval_epochs", 0) > 0:
        evaluated += config.evaluation.get("others", ())
    wanted += [(name, config.evaluation.split) for name in evaluated]
    for name, split in dict.fromkeys(wanted):
        name, _, builder_config = name.partition("/")
        extra = {"config": builder_config} if builder_config else {}
        missing = missing_files(name, split, config.data.data_dir or None, **extra)
        if missing is not None:
            yield missing


def _body(config: Any) -> Iterator[Missing]:
    """SMPL's files, where a folder of them is asked for that lacks some, or a file is not there."""
    path = Path(config.body.path)
    if not config.body.path or path.is_file():
        return
    if path.suffix:
        yield Missing("config.body.path", path.name, _SMPL, str(path.parent))
        return
    lacking = [f"{name}.pkl" for name in _BODY_MODELS if not any(path.glob(f"{name}.*"))]
    lacking += [name for name in _REGRESSORS if not (path / name).is_file()]
    if lacking:
        yield Missing("config.body.path", ", ".join(lacking), _SMPL, str(path))


def _file(what: str, path: str, fetch: str) -> list[Missing]:
    if not path or Path(path).exists() or pretrained_file(path) is not None:
        return []
    return [Missing(what, Path(path).name, fetch, str(Path(path).parent))]
