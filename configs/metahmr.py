"""Meta-HMR: a body from one photograph, meta-trained for its own test-time optimisation.

    python -m jaxrecon.main --config=configs/metahmr.py --workdir=runs/metahmr
    python -m jaxrecon.main --config=configs/metahmr.py:paper --workdir=runs/paper

or `jaxrecon.fit("metahmr")` from Python. Source: arXiv 2401.14121.

| preset | what it is | data |
| --- | --- | --- |
| (none) | a small ResNet, small crops, shipped weights, for a laptop | embedded photographs |
| `tiny` | everything once, in seconds: for tests, it learns nothing | embedded, a few |
| `pretrain` | the small network from nothing: made the shipped weights | embedded photographs |
| `resnet50` | the published network at its published crop, from scratch | embedded photographs |
| `paper` | the published training: data sets, initial weights, schedule | licensed, see below |

Any field is set as `--config.group.field=value`; a name that is the only one of its kind needs
no group (`--config.batch_size=8`; the fields of `training` go first).

`paper` needs Human3.6M, COCO 2014, MPII and MPI-INF-3DHP (and 3DPW to evaluate), the SMPL files
(`body.path`) and converted initial weights (`training.init_from`). What is not there yet is listed
when it starts: what to fetch, where from, and where to put it. With 3DPW in the training as well:
`--config.mixture=published_3dpw --config.data.datasets=h36m,coco,mpii,mpi_inf_3dhp,3dpw`.

The paper's ablations and the flags of the published scripts, over any preset:

| what | fields |
| --- | --- |
| no meta-learning; a fixed auxiliary network | `system.inner_steps=0`; `system.aux_lr=0` |
| more inner steps; rates | `system.inner_steps=2`; `system.inner_lr`, `system.outer_lr` |
| first order (published); exact second order | `system.order=first`; `system.order=second` |
| HMR; HRNet-W48 (its auxiliary network is the classification one) | `system.model=hmr`; \
`system.backbone=hrnet_w48 system.aux_backbone=hrnet_w48_classification` |
| square crops | `system.image_size=224,224` |
| trained on COCO alone | `data.datasets=coco data.mixture=lengths` |
| without 3D labels | `data.ignore_3d=true` |
| the auxiliary network learns from labels (paper, not its code) | `system.aux_supervision=true` |
| synthetic occlusion (`--syn_occ`), with the cut-outs of Pascal VOC | \
`data.occlusion=h36m,mpi_inf_3dhp`; `data.occluders=pascal_occluders.npy` |
| strengths of the augmentation (`--rot_factor`, ...) | `data.rotation=30`; `data.noise=0.4`; \
`data.scale=0.25` |
| also blurred, compressed, rained on, recoloured photographs (`--ALB`) | \
`data.photometric=true` |
| weights of the losses | `system.weights.vertices=0.5`, ...; `system.openpose_weight=0`; \
`system.gt_weight=1` |
| Adam of the main network (`--beta1`, ...) | `system.beta1`; `system.beta2`; `system.eps_adam` |
| go on (`--resume`); from a file (`--from_json`) | the same command; \
`--config=runs/a/config.json`, which every run writes |
| stop and save after so long (`--time_to_run`) | `training.time_limit_minutes=600` |
| TensorBoard: scalars, and overlays at each evaluation (`--summary_steps`) | \
`training.tensorboard=true training.log_every=1000` |
| fine-tune with the optimiser of a run (`--pretrained_checkpoint`) | \
`training.init_from=runs/a training.init_optimizer=true` |
| evaluated, saved every so many epochs (`--test_epochs`, `--save_epochs`) | \
`training.eval_epochs=5`; `training.checkpoint_epochs=5` |
| the data in their own order (`--no_shuffle_train`) | `data.shuffle=false` |
| test time: EFT, the 2D loss alone | `tto.dual_step=false` |
| test time: the paper's algorithm | `tto.per_image=true tto.dual_every_step=true \
tto.optimizer=sgd` |
| test time: early stop by the change of the loss (published); never | `tto.stop_change=2e-5`; `0` |
| test time: plain steps (`--no_use_adam`); rates | `tto.optimizer=sgd`; `tto.inner_lr`; \
`tto.after_lr` |
| test time: detected keypoints; noise | `tto.openpose=true`; `evaluation.keypoint_noise=0.03` |
| labels of unknown gender on the neutral body; a detector's boxes | \
`system.unknown_gender=neutral`; `data.box=file` |
| saved predictions (`--result_file`) | `evaluation.predictions=predictions.npz` |
| overlays (`--viz`); meshes (`--save_obj`) of the measured examples | \
`evaluation.overlay_every=20`; `evaluation.mesh_every=20` |
| measured on | `evaluation.dataset=3dpw`, `h36m-p1`, `h36m-p2`, `mpi-inf-3dhp`, `coco` |
"""

from ml_collections import ConfigDict

from jaxrecon.config import preset_of
from jaxrecon.io.places import manual_folder


def get_config(preset: str = "") -> ConfigDict:
    """The config of one preset: "", "tiny", "pretrain", "resnet50" or "paper"."""
    change = preset_of(
        {"": None, "tiny": _tiny, "pretrain": _pretrain, "resnet50": _resnet50, "paper": _paper},
        preset,
    )
    config = _default()
    if change is not None:
        change(config)
    return config


def _default() -> ConfigDict:
    config = ConfigDict()

    # The method: fields of `jaxrecon.systems.meta_hmr.MetaHMR`, where each is explained.
    config.system = ConfigDict()
    config.system.name = "meta_hmr"
    config.system.model = "cliff"  # or "hmr", which does not see where the crop lies
    config.system.backbone = "resnet_small"
    config.system.aux_backbone = "resnet_small"
    config.system.hidden = 512
    config.system.image_size = (80, 80)  # height, width of the crop; 256x192 is "rect"
    config.system.main_iterations = 3  # published: 10
    config.system.aux_iterations = 3
    config.system.dropout = 0.0
    config.system.inner_steps = 1  # 0: ordinary training ("no inner")
    config.system.inner_lr = 1e-3
    config.system.order = "second"  # or "first": first-order meta-gradient
    config.system.outer_lr = 1e-4
    config.system.aux_lr = 1e-6  # 0: aux stays as it is
    config.system.beta1 = 0.9
    config.system.beta2 = 0.999
    config.system.eps_adam = 1e-8
    config.system.schedule_steps = -1  # -1: the length of the training; 0: constant rates
    config.system.warmup_steps = 20
    config.system.clip_norm = 100.0
    config.system.min_depth = 0.2  # metres; published: 0
    config.system.aux_supervision = False  # needed where aux starts from nothing
    config.system.openpose_weight = 0.0
    config.system.gt_weight = 1.0
    config.system.vertex_stride = 8
    config.system.mean_pose = True
    config.system.lifting_steps = 0  # on bodies alone, before the first batch
    config.system.unknown_gender = "male"  # or "neutral": of the ground truth
    config.system.weights = ConfigDict()
    config.system.weights.keypoints2d = 5.0
    config.system.weights.joints3d = 5.0
    config.system.weights.vertices = 0.5
    config.system.weights.pose = 1.0
    config.system.weights.betas = 0.001
    config.system.weights.camera = 1.0
    config.system.weights.points = 0.2  # of networks that read their maps at points
    config.system.weights.lifting = 0.0  # of bodies without a photograph, see `lifting.py`

    # Test-time optimisation (fields of `AdaptSettings`, and how many steps).
    config.tto = ConfigDict()
    config.tto.steps = 14
    config.tto.inner_lr = 1e-3  # the first, dual, step
    config.tto.after_lr = 1e-4  # the later steps
    config.tto.optimizer = "adam"  # or "sgd"
    config.tto.dual_step = True
    config.tto.stop_change = 0.0  # published early stop: 2e-5
    config.tto.per_image = False
    config.tto.openpose = False  # fit detected joints instead of annotated ones
    config.tto.always_pseudo = False
    config.tto.dual_every_step = False  # the paper's algorithm: the dual loss in all steps
    # What is handed out: the "last" state, or each image's most "probable" one, if keypoints are
    # off by a share of the crop and the first prediction by so many metres. Tables show both.
    config.tto.keep = "probable"
    config.tto.keypoint_noise = 0.02
    config.tto.prior_deviation = 0.1

    config.body = ConfigDict()
    config.body.path = ""  # SMPL file or folder; empty: the open body

    # What to read and how to crop it: fields of `jaxrecon.data.pipeline.DataConfig`.
    config.data = ConfigDict()
    config.data.datasets = ("open_body",)  # names, or "name/builder_config"
    config.data.split = "train"
    config.data.mixture = "lengths"  # "weights", "published" or "published_3dpw"
    config.data.weights = ()  # one for each data set, where mixture is "weights"
    config.data.data_dir = ""  # empty: $JAXRECON_DATA or ~/.cache/jaxrecon/datasets
    config.data.box = "keypoints"  # or "file": the box of the record (a detector's)
    config.data.ignore_3d = False  # train without SMPL and 3D labels
    config.data.shuffle = True
    config.data.augment = True
    config.data.flip_probability = 0.5
    config.data.noise = 0.3  # channel gains; published: 0.4
    config.data.rotation = 15.0  # degrees, one standard deviation; published: 30
    config.data.scale = 0.25
    config.data.upright_probability = 0.6
    config.data.photometric = False  # also blur, compress, colour, ...; published as `--ALB`
    config.data.occlusion = ()  # data sets with occluders pasted over, or ("all",)
    config.data.occluders = ""  # file of RGBA cut-outs; empty: procedural ones
    config.data.workers = 0  # processes; 0: threads of this one
    config.data.threads = 0  # 0: as many as the machine suggests
    config.data.cache_mb = 1024  # decoded crops kept in memory

    config.training = ConfigDict()
    config.training.steps = 100
    config.training.epochs = 0  # above 0: replaces `steps`
    config.training.batch_size = 32
    config.training.seed = 2023
    config.training.log_every = 10
    config.training.eval_every = 0
    config.training.checkpoint_every = 50
    config.training.eval_epochs = 0  # above 0: replaces `eval_every`
    config.training.checkpoint_epochs = 0  # above 0: replaces `checkpoint_every`
    config.training.keep_checkpoints = 2
    config.training.best_metric = "pa_mpjpe"
    config.training.time_limit_minutes = 0.0  # 0: none
    config.training.tensorboard = False
    config.training.init_from = "metahmr-small"  # a shipped model, run folder or checkpoint
    config.training.init_optimizer = False  # its optimiser too, if a training wrote it

    config.evaluation = ConfigDict()
    config.evaluation.dataset = "open_body"
    config.evaluation.others = ()  # more data sets to measure while training
    config.evaluation.split = "test"
    config.evaluation.examples = 100  # 0: all
    config.evaluation.batch_size = 20  # also the unit of adaptation, unless tto.per_image
    config.evaluation.keypoint_noise = 0.0  # on the evidence, as a share of the crop's height
    config.evaluation.predictions = ""  # an .npz in the run folder, one row for each example
    config.evaluation.overlay_every = 0  # every so many examples one is drawn; 0: none
    config.evaluation.mesh_every = 0  # the same for meshes (.obj), with those of the labels
    config.evaluation.examples_in_training = 100
    config.evaluation.tto_steps_in_training = 0
    return config


def _tiny(config: ConfigDict) -> None:
    config.system.backbone = config.system.aux_backbone = "resnet_tiny"
    config.system.hidden = 32
    config.system.image_size = (64, 64)
    config.system.main_iterations = 3
    config.system.order = "first"
    config.tto.steps = 2
    config.system.aux_supervision = True
    config.training.init_from = ""
    config.data.datasets = ("open_body/tiny",)
    config.evaluation.dataset = "open_body/tiny"
    config.training.steps = 4
    config.training.batch_size = 4
    config.training.log_every = 1
    config.training.eval_every = 2
    config.training.checkpoint_every = 2
    config.evaluation.batch_size = 4
    config.evaluation.examples = 8
    config.evaluation.examples_in_training = 4


def _pretrain(config: ConfigDict) -> None:
    """One network alone, by ordinary training: made `jaxrecon/pretrained/metahmr-small.npz`."""
    config.training.init_from = ""
    config.system.inner_steps = 0
    config.system.aux_lr = 0.0
    config.system.outer_lr = 6e-4
    config.system.warmup_steps = 500
    config.system.weights.points = 0.3
    config.system.lifting_steps = 12000
    config.system.weights.lifting = 1.0
    config.data.datasets = ("open_body/medium", "open_body/others", "open_body")
    config.data.cache_mb = 4096
    config.evaluation.examples = config.evaluation.examples_in_training = 0
    config.evaluation.batch_size = 50
    config.training.steps = 14000
    config.training.batch_size = 64
    config.training.log_every = 100
    config.training.eval_every = 1000
    config.training.checkpoint_every = 500


def _resnet50(config: ConfigDict) -> None:
    config.system.backbone = config.system.aux_backbone = "resnet50"
    config.system.hidden = 1024
    config.system.image_size = (256, 192)
    config.system.main_iterations = 10
    config.system.dropout = 0.5
    config.system.aux_supervision = True
    config.system.warmup_steps = 500
    config.system.clip_norm = 0.0
    config.training.init_from = ""
    config.data.noise = 0.4
    config.data.rotation = 30.0
    config.data.occlusion = ("all",)
    config.system.inner_lr = config.tto.inner_lr = config.tto.after_lr = 1e-5
    config.system.outer_lr = config.system.aux_lr = 1e-4
    config.system.vertex_stride = 1
    config.system.weights.points = 0.0
    config.training.steps = 20000
    config.training.log_every = 100
    config.training.eval_every = 2000
    config.training.checkpoint_every = 1000


def _paper(config: ConfigDict) -> None:
    _resnet50(config)
    config.system.order = "first"
    config.system.min_depth = 0.0
    config.system.schedule_steps = config.system.warmup_steps = 0
    config.system.mean_pose = False
    config.system.aux_lr = 1e-6
    config.system.aux_supervision = False
    config.tto.stop_change = 2e-5
    config.tto.keep = "last"
    config.data.datasets = ("h36m", "coco", "mpii", "mpi_inf_3dhp")
    config.body.path = str(manual_folder() / "smpl")
    config.training.init_from = str(manual_folder() / "weights" / "metahmr-start")
    config.data.mixture = "published"
    config.data.occlusion = ("h36m", "mpi_inf_3dhp")
    config.evaluation.dataset = "3dpw"
    config.evaluation.others = ("h36m-p2",)
    config.training.epochs = 30
    config.training.batch_size = 30
    config.training.log_every = 1000
    config.training.eval_epochs = 5
    config.training.checkpoint_every = 10000
    config.evaluation.examples = 0
    config.evaluation.examples_in_training = 0
