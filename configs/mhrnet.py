"""MHR-Net: several hypotheses of a non-rigid 3D shape from the 2D keypoints of one view.

    python -m jaxrecon.main --config=configs/mhrnet.py --workdir=runs/mhrnet
    python -m jaxrecon.main --config=configs/mhrnet.py:sequence --config.data.path=drink.mat
    python -m jaxrecon.main --config=configs/mhrnet.py:paper --config.data.path=FOLDER

Source: arXiv 2207.09086. No 3D is ever trained with.

| preset | what it is | data |
| --- | --- | --- |
| (none) | a smaller network with a second view, for a laptop without a GPU | made on the spot |
| `tiny` | everything once, in seconds: for tests, it learns nothing | made, a few |
| `sequence` | one short sequence, orthographic, any number of points | a .mat, `data.path` |
| `paper` | the published network and schedule | Human3.6M archives in `data.path` |

Any field is set as `--config.group.field=value`. One's own keypoints: `--config.data.source=file
--config.data.path=keypoints.npz` (layout: `datasets_builders/keypoint_file/README.md`).
Missing keypoints: NaN, or a `visible` array; `--config.data.missing=0.2` hides some at random.
`training.init_from` takes a run folder or a published `.bin`, optimiser included.
"""

from ml_collections import ConfigDict

from jaxrecon.config import preset_of


def get_config(preset: str = "") -> ConfigDict:
    """The config of one preset: "", "tiny", "sequence" or "paper"."""
    change = preset_of({"": None, "tiny": _tiny, "sequence": _sequence, "paper": _paper}, preset)
    config = _default()
    if change is not None:
        change(config)
    return config


def _default() -> ConfigDict:
    config = ConfigDict()

    # The method: fields of `jaxrecon.systems.mhr_net.MHRNet`, where each is explained.
    config.system = ConfigDict()
    config.system.name = "mhr_net"
    config.system.projection = "perspective"  # or "orthographic"
    config.system.joints = 17  # 0: as many as the data have
    config.system.width = 256  # published: 1024
    config.system.blocks = 2  # published: 6
    config.system.bases = 10
    config.system.init_std = 0.01
    config.system.see_visibility = False  # set by itself where joints are missing
    config.system.hypotheses = 3
    config.system.test_hypotheses = 3
    config.system.rotations = 4
    config.system.z_augmentation = 0.0
    config.system.w_final = 0.2
    config.system.w_mean = 0.8
    config.system.w_reprojection = 20.0  # published: 5
    config.system.w_cycle = 1.0
    config.system.w_procrust = 1.0
    config.system.w_view = 1.0  # published: 0
    config.system.w_likely = 0.1  # published: 0
    config.system.view_tilt = 0.3
    config.system.w_depth = 5.0  # where there is a classical fit (data.fit)
    config.system.pairs = 64
    config.system.margin = 0.075
    config.system.procrust_from = 4
    config.system.align_until = 6
    config.system.optimizer_name = "adam"  # published: "sgd"
    config.system.rate = 2e-3
    config.system.momentum = 0.9
    config.system.weight_decay = 1e-4
    config.system.decay = 0.5
    config.system.decay_every = 15
    config.system.cosine_epochs = 12  # the rate falls to 0 until then; 0: by `decay`
    config.system.seed = 0
    config.system.published_lift = True

    config.data = ConfigDict()
    config.data.source = "open_body"  # or "h36m", "vw300", "surreal", "file", "sequence"
    config.data.path = ""
    config.data.test_path = ""  # file: another one to measure with
    config.data.poses = 200_000  # open_body
    config.data.test_poses = 5000
    config.data.focal_length = 0.0  # file: pixels, where the file has none
    config.data.missing = 0.0  # share of keypoints to hide
    config.data.fit = False  # lean on a classical fit of the set as one orthographic sequence
    config.data.factor = 0.0  # of root-relative coordinates; 0: from the training set, kept then
    config.data.train_factor = False  # scale the test set as the training set (published: no)
    config.data.data_dir = ""  # where prepared sets are kept; $JAXRECON_DATA by default
    config.data.keypoints = "gt"  # h36m: the 2D archive
    config.data.train_subjects = ("S1", "S5", "S6", "S7", "S8")
    config.data.test_subjects = ("S9", "S11")
    config.data.actions = ()
    config.data.downsample = 1
    config.data.subset = 1.0

    config.training = ConfigDict()
    config.training.epochs = 12
    config.training.batch_size = 128
    config.training.seed = 555
    config.training.keep_partial = False  # train on the last, smaller batch too (published)
    config.training.log_every = 1  # epochs, as all of these
    config.training.eval_every = 2
    config.training.checkpoint_every = 2
    config.training.keep_checkpoints = 2
    config.training.best_metric = "pa_mpjpe"
    config.training.time_limit_minutes = 0.0
    config.training.tensorboard = False
    config.training.init_from = ""

    config.evaluation = ConfigDict()
    config.evaluation.batch_size = 1000
    return config


def _tiny(config: ConfigDict) -> None:
    config.system.width = 32
    config.system.blocks = 1
    config.system.pairs = 4
    config.system.procrust_from = 2
    config.system.cosine_epochs = 2
    config.data.poses = 64
    config.data.test_poses = 16
    config.training.epochs = 2
    config.training.batch_size = 16
    config.training.eval_every = 1
    config.training.checkpoint_every = 1
    config.evaluation.batch_size = 16


def _sequence(config: ConfigDict) -> None:
    config.system.projection = "orthographic"
    config.system.published_lift = False
    config.system.joints = 0
    config.system.w_view = 0.0  # the fit's depth does what second views are for
    config.system.w_likely = 0.0
    config.system.w_depth = 20.0
    config.system.pairs = 16
    config.system.procrust_from = 200
    config.system.align_until = 1000
    config.system.cosine_epochs = 1000
    config.data.source = "sequence"
    config.data.fit = True
    config.training.epochs = 1000
    config.training.batch_size = 64
    config.training.keep_partial = True
    config.training.log_every = 100
    config.training.eval_every = 200
    config.training.checkpoint_every = 200
    config.training.best_metric = "normalised_3d_error"


def _paper(config: ConfigDict) -> None:
    config.system.width = 1024
    config.system.blocks = 6
    config.system.w_reprojection = 5.0
    config.system.w_view = 0.0
    config.system.w_likely = 0.0
    config.system.procrust_from = 10
    config.system.align_until = 15
    config.system.optimizer_name = "sgd"
    config.system.rate = 1e-3
    config.system.weight_decay = 5e-4
    config.system.cosine_epochs = 0
    config.data.source = "h36m"
    config.training.epochs = 50
    config.training.keep_partial = True
    config.training.eval_every = 1
    config.training.checkpoint_every = 3
    config.evaluation.batch_size = 1024
