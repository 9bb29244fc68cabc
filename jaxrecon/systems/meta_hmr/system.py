"""Meta-HMR (arXiv 2401.14121): a regressor whose training contains its test-time optimisation.

Two networks look at a crop. The main one is adapted: one gradient step of the *test-time*
objective on its five linear layers, against the pseudo body of the auxiliary network and the 2D
keypoints (inner step). The training objective is evaluated with the adapted layers, and its
gradient goes to the weights before adaptation (outer step). Section numbers are those of
spec meta_hmr.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxrecon.bodies import (
    BodyModel,
    body_forward,
    body_subset,
    joints49,
    joints49_model,
    load_body,
)
from jaxrecon.bodies.model import regressor_support
from jaxrecon.bodies.poses import mean_pose6d
from jaxrecon.errors import UserError
from jaxrecon.geometry.cameras import (
    HMR_FOCAL,
    apply_affine,
    crop_to_full_camera,
    project,
    weak_to_perspective,
)
from jaxrecon.geometry.rotations import (
    axis_angle_to_matrix,
    axis_angle_to_quaternion,
    quaternion_to_matrix,
    rot6d_to_matrix,
)
from jaxrecon.networks.backbones import BACKBONES
from jaxrecon.networks.hmr import HMRNetwork, Regression
from jaxrecon.optimization.meta import Order, sgd_step
from jaxrecon.systems.base import Adaptation, Aux, Batch, Prediction, System, Variables
from jaxrecon.systems.meta_hmr import losses
from jaxrecon.systems.meta_hmr.adaptation import AdaptSettings, adapt
from jaxrecon.systems.meta_hmr.lifting import learn_from_bodies, lifting_terms, pose_bank
from jaxrecon.systems.meta_hmr.losses import LossWeights
from jaxrecon.typing import AnyArray, Array

# The logged and differentiated objective carries this factor (5.1 of the spec, quirk 17).
OUTER_FACTOR = 60.0
MODELS = ("cliff", "hmr")
ORDERS = ("first", "second")


@flax.struct.dataclass
class Body3D:
    """A regression with the mesh and the 49 joints it stands for."""

    regression: Any
    vertices: Any
    joints: Any


@dataclasses.dataclass(frozen=True)
class MetaHMR(System):
    """Settings of Meta-HMR; the defaults are those of the published README command.

    Attributes:
        model: "cliff" (sees where the crop lies in the photograph) or "hmr" (crop only).
        backbone, aux_backbone: Names in `networks.backbones.BACKBONES`.
        image_size: (height, width) of the crop in pixels.
        inner_steps: Steps of the inner loop; 0 is ordinary training without an aux network.
        order: "first" drops second derivatives, "second" is the exact meta-gradient.
        outer_lr, aux_lr: Adam's rates for the two networks; aux 0 leaves it alone.
        schedule_steps: Steps over which the rates fall to 0 along a half cosine; 0: constant.
        warmup_steps: Steps over which the rates rise from 0 first; only with a schedule. From
            fresh weights Adam's first steps would throw the iterated regressor out of range.
        clip_norm: Largest global norm of a gradient; 0 (published): no limit.
        aux_supervision: Train aux on the ground truth as well, as the paper writes and its code
            does not (quirk 1): needed wherever aux does not start from published weights.
        vertex_stride: L_V uses every n-th vertex; 1 is published.
        min_depth: See `geometry.cameras.project`; 0 is published.
        body: A SMPL file or folder of such; None is the open body.
        mean_pose: Start the regressor from the mean pose of the embedded pose sampler.
        unknown_gender: Body of the ground truth where a label names none: "male" (published,
            quirk 13) or "neutral".
        lifting_steps: Steps on bodies without a photograph before the first batch; see `lifting`.
    """

    model: str = "cliff"
    backbone: str = "resnet50"
    aux_backbone: str = "resnet50"
    hidden: int = 1024
    image_size: tuple[int, int] = (256, 192)
    main_iterations: int = 10
    aux_iterations: int = 3
    dropout: float = 0.5
    inner_lr: float = 1e-5
    inner_steps: int = 1
    order: str = "first"
    outer_lr: float = 1e-4
    aux_lr: float = 1e-6
    beta1: float = 0.9
    beta2: float = 0.999
    eps_adam: float = 1e-8
    schedule_steps: int = 0
    warmup_steps: int = 0
    clip_norm: float = 0.0
    aux_supervision: bool = False
    weights: LossWeights = LossWeights()
    openpose_weight: float = 0.0
    gt_weight: float = 1.0
    vertex_stride: int = 1
    min_depth: float = 0.0
    test_time: AdaptSettings = AdaptSettings()
    body: str | None = None
    mean_pose: bool = True
    unknown_gender: str = "male"
    lifting_steps: int = 0

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("model", self.model, MODELS),
            ("backbone", self.backbone, tuple(BACKBONES)),
            ("aux_backbone", self.aux_backbone, tuple(BACKBONES)),
            ("order", self.order, ORDERS),
            ("test_time.optimizer", self.test_time.optimizer, ("adam", "sgd")),
            ("unknown_gender", self.unknown_gender, ("male", "neutral")),
        ):
            if value not in valid:
                raise UserError(f"{name}={value!r} is not one of {', '.join(valid)}")

    @classmethod
    def from_config(cls, config: Any) -> "MetaHMR":
        """The system that `config.system` (and `config.tto`, `config.body`) describe."""
        from jaxrecon.systems.meta_hmr.settings import system_settings

        return cls(**system_settings(config))

    # ------------------------------------------------------------------ networks and bodies

    @property
    def main(self) -> HMRNetwork:
        """The network that is adapted."""
        return self._network(self.backbone, self.main_iterations)

    @property
    def aux(self) -> HMRNetwork:
        """The network that makes pseudo labels."""
        return self._network(self.aux_backbone, self.aux_iterations)

    def _network(self, backbone: str, iterations: int) -> HMRNetwork:
        return HMRNetwork(
            backbone, iterations, self.model == "cliff", self.hidden, self.dropout, self.axis_name
        )

    def constants(self) -> dict[str, Any]:
        """The bodies: whole ones by gender, `loss` for the training losses (perhaps with fewer
        vertices), `joints` for losses that need no mesh."""
        return self.constants_of(
            {gender: load_body(self.body, gender) for gender in ("neutral", "male", "female")}
        )

    def constants_of(self, bodies: dict[str, BodyModel]) -> dict[str, Any]:
        """The `constants` collection made of given bodies."""
        neutral = bodies["neutral"]
        loss = neutral
        if self.vertex_stride > 1:
            every = np.arange(0, neutral.v_template.shape[0], self.vertex_stride)
            loss = body_subset(neutral, np.union1d(every, regressor_support(neutral)))
        constants: dict[str, Any] = {"loss": loss, "joints": joints49_model(neutral), **bodies}
        if self.lifts:
            constants["poses"] = jnp.asarray(pose_bank())
        return constants

    @property
    def lifts(self) -> bool:
        """Whether bodies without a photograph teach the main network as well."""
        return self.weights.lifting > 0 and getattr(BACKBONES[self.backbone], "points", 0) > 0

    def init(self, rng: Array, batch: Batch) -> dict[str, Any]:
        image = jnp.zeros((1, *self.image_size, 3), jnp.float32)
        box = jnp.zeros((1, 3), jnp.float32)
        params, stats = {}, {}
        for name, network, key in zip(
            ("main", "aux"), (self.main, self.aux), jax.random.split(rng), strict=True
        ):
            made = network.init(key, image, box)
            params[name], stats[name] = made["params"], dict(made["batch_stats"])
            if self.mean_pose:
                pose = jnp.asarray(mean_pose6d(), jnp.float32)[None]
                stats[name]["head"] = {**stats[name]["head"], "init_pose": pose}
        return {"params": params, "batch_stats": stats, "constants": self.constants()}

    def prepare(
        self, variables: Variables, rng: Array, report: Callable[[int, int, float], None]
    ) -> Variables:
        """Learns from bodies without a photograph, if `lifting_steps` says so."""
        if not (self.lifts and self.lifting_steps):
            return variables
        params = learn_from_bodies(
            self,
            variables,
            rng,
            self.lifting_steps,
            lambda done, loss: report(done, self.lifting_steps, loss),
        )
        return {**variables, "params": params}

    def optimizer(self) -> optax.GradientTransformation:
        def adam(rate: float, **options: float) -> optax.GradientTransformation:
            if not self.schedule_steps:
                return optax.adam(rate, **options)
            warmup = min(self.warmup_steps, self.schedule_steps // 2)
            schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warmup, self.schedule_steps)
            return optax.adam(schedule, **options)

        published = {"b1": self.beta1, "b2": self.beta2, "eps": self.eps_adam}
        groups = {
            "main": adam(self.outer_lr, **published),
            "aux": adam(self.aux_lr) if self.aux_lr else optax.set_to_zero(),
        }
        both = optax.multi_transform(groups, lambda params: {k: k for k in params})
        if self.clip_norm:
            return optax.chain(optax.clip_by_global_norm(self.clip_norm), both)
        return both

    # ------------------------------------------------------------------ forward pieces

    def encode(
        self, name: str, variables: Variables, image: AnyArray, train: bool, updates: int
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Activations of network `name` (`features` for its head), batch statistics after this."""
        network: HMRNetwork = getattr(self, name)
        out, updated = network.apply(
            {c: variables[c][name] for c in ("params", "batch_stats")},
            image,
            train,
            updates,
            method="encode",
            mutable=["batch_stats"],
        )
        return out, updated["batch_stats"]

    def features(self, name: str, variables: Variables, image: AnyArray) -> Array:
        """Features of network `name` outside of training."""
        return self.encode(name, variables, image, False, 1)[0]["features"]

    def regress(
        self,
        name: str,
        head: Any,
        buffers: Any,
        features: AnyArray,
        batch: Batch,
        dropout_rng: Array | None = None,
    ) -> Regression:
        """Head of network `name` with the given weights; drops units where given a key."""
        network: HMRNetwork = getattr(self, name)
        apply: Any = network.apply
        return apply(
            {"params": {"head": head}, "batch_stats": {"head": buffers}},
            features,
            batch["bbox_info"],
            dropout_rng is not None,
            dropout_rng,
            method="regress",
        )

    def embody(self, body: BodyModel, regression: Regression) -> Body3D:
        """Mesh and joints of a regression."""
        output = body_forward(body, regression.betas, regression.rotmats)
        return Body3D(regression, output.vertices, joints49(body, output))

    def crop_points(self, joints: Array, cam: Array, batch: Batch) -> Array:
        """Joints projected into the crop, in units of [-1, 1] (spec 3.7 to 3.9)."""
        height, width = self.image_size
        half = jnp.asarray([width / 2.0, height / 2.0])
        if self.model == "hmr":
            count = joints.shape[0]
            points = project(
                joints,
                jnp.full(count, HMR_FOCAL),
                jnp.zeros((count, 2)),
                translation=weak_to_perspective(cam, float(max(height, width))),
            )
            return points / half
        points = self.full_points(joints, cam, batch)
        return apply_affine(batch["crop_trans"], points) / half - 1.0

    def full_translation(self, cam: Array, batch: Batch) -> Array:
        """Translation (B, 3) in the frame of the photograph's camera, metres."""
        return crop_to_full_camera(
            cam, batch["center"], batch["scale"], batch["image_size"], batch["focal_length"]
        )

    def full_points(self, joints: Array, cam: Array, batch: Batch) -> Array:
        """Joints projected into the photograph, pixels."""
        center = jnp.asarray(batch["image_size"])[:, ::-1] / 2.0
        return project(
            joints,
            batch["focal_length"],
            center,
            translation=self.full_translation(cam, batch),
            min_depth=self.min_depth,
        )

    def keypoint_loss(self, joints: Array, cam: Array, batch: Batch, test_time: bool) -> Array:
        """L_2D on the annotated joints, or on what the settings ask for."""
        labels = self.crop_labels(batch)
        weights = (self.openpose_weight, self.gt_weight)
        if test_time:
            weights = (1.0, 0.0) if self.test_time.openpose else (0.0, 1.0)
        return losses.keypoint_loss(
            self.crop_points(joints, cam, batch), labels, *weights, self.axis_name
        )

    def crop_labels(self, batch: Batch) -> Array:
        """Annotated keypoints (B, 49, 3) in units of [-1, 1] of the crop, and confidence."""
        height, width = self.image_size
        keypoints = jnp.asarray(batch["keypoints2d"])
        half = jnp.asarray([width / 2.0, height / 2.0])
        return jnp.concatenate([keypoints[..., :2] / half - 1.0, keypoints[..., 2:]], axis=-1)

    def point_terms(self, activations: dict[str, Array], batch: Batch) -> dict[str, Array]:
        """The term that teaches points, where the backbone has them and the weights ask for it."""
        if not self.weights.points or "point_logits" not in activations:
            return {}
        labels = self.crop_labels(batch)[:, 25:]
        return {"points": losses.point_loss(activations["point_logits"], labels, self.axis_name)}

    def weighted(self, terms: dict[str, Array]) -> Array:
        """The sum of the terms with the weights of the settings."""
        w = dataclasses.asdict(self.weights)
        return jnp.sum(jnp.stack([w[name] * value for name, value in self.used(terms).items()]))

    def used(self, terms: dict[str, Array]) -> dict[str, Array]:
        """Those with a weight: 0 times a term that overflowed would be NaN."""
        return {name: value for name, value in terms.items() if getattr(self.weights, name)}

    # ------------------------------------------------------------------ objectives

    def pseudo_terms(
        self, body: Body3D, pseudo: Body3D, batch: Batch, test_time: bool = False
    ) -> dict[str, Array]:
        """Terms of the inner (dual) loss: pseudo labels and annotated 2D. Nothing is detached."""
        has_smpl, has_joints = batch["has_smpl"], batch["has_joints3d"]
        if test_time and self.test_time.always_pseudo:
            has_smpl, has_joints = losses.all_of(has_smpl), losses.all_of(has_joints)
        pred, aux, axis = body.regression, pseudo.regression, self.axis_name
        return {
            "keypoints2d": self.keypoint_loss(body.joints, pred.cam, batch, test_time),
            "joints3d": losses.joint_loss(body.joints, pseudo.joints[:, 25:], has_joints, axis),
            "vertices": losses.vertex_loss(body.vertices, pseudo.vertices, has_smpl, axis),
            "pose": losses.pose_loss(pred.rotmats, aux.rotmats, has_smpl, axis),
            "betas": losses.betas_loss(pred.betas, aux.betas, has_smpl, axis),
            "camera": losses.camera_loss(pred.cam[:, 0], axis),
        }

    def true_terms(self, body: Body3D, truth: dict[str, Array], batch: Batch) -> dict[str, Array]:
        """Terms of the outer loss: ground truth where a sample has it."""
        pred, axis = body.regression, self.axis_name
        has_smpl, has_joints = batch["has_smpl"], batch["has_joints3d"]
        return {
            "keypoints2d": self.keypoint_loss(body.joints, pred.cam, batch, False),
            "joints3d": losses.joint_loss(body.joints, batch["joints3d"], has_joints, axis),
            "vertices": losses.vertex_loss(body.vertices, truth["vertices"], has_smpl, axis),
            "pose": losses.pose_loss(pred.rotmats, truth["rotmats"], has_smpl, axis),
            "betas": losses.betas_loss(pred.betas, jnp.asarray(batch["betas"]), has_smpl, axis),
            "camera": losses.camera_loss(pred.cam[:, 0], axis),
        }

    def truth(self, body: BodyModel, batch: Batch) -> dict[str, Array]:
        """Ground-truth mesh (neutral body, as published) and rotations of the labels."""
        pose = jnp.asarray(batch["pose"]).reshape(-1, 24, 3)
        mesh = body_forward(body, batch["betas"], axis_angle_to_matrix(pose))
        # The published code makes these rotations through quaternions, in the mesh it does not.
        rotmats = quaternion_to_matrix(axis_angle_to_quaternion(pose))
        return {"vertices": mesh.vertices, "rotmats": rotmats}

    def inner_loss(
        self,
        head: Any,
        features: Array,
        pseudo: Body3D,
        buffers: Any,
        body: BodyModel,
        batch: Batch,
        key: Array | None,
    ) -> tuple[Array, tuple[dict[str, Array], Body3D]]:
        """Dual loss of the main network with the given head: what the inner step descends."""
        if self.axis_name is not None:
            # Makes the gradient that of the global batch, the same on every device.
            head = lax.pmean(head, self.axis_name)
        found = self.embody(body, self.regress("main", head, buffers, features, batch, key))
        terms = self.pseudo_terms(found, pseudo, batch)
        return self.weighted(terms), (terms, found)

    def loss(
        self, variables: Variables, batch: Batch, rng: Array, train: bool
    ) -> tuple[Array, Aux]:
        """60 times the outer loss after the inner steps (spec 5.1).

        The features of the inner and the outer pass are the same, so the backbone runs once and
        its running statistics take the batch several times. Not in training: the plain loss.
        """
        params, stats = variables["params"], variables["batch_stats"]
        body = variables["constants"]["loss"]
        inner_steps = self.inner_steps if train else 0
        drop = train and self.dropout > 0
        if self.axis_name is not None:
            rng = jax.random.fold_in(rng, lax.axis_index(self.axis_name))
        keys = jax.random.split(rng, 2 * inner_steps + 4)

        def key(i: int) -> Array | None:
            return keys[i] if drop else None

        seen, main_stats = self.encode("main", variables, batch["image"], train, 1 + inner_steps)
        features = seen["features"]
        aux_used = inner_steps > 0 or (train and self.aux_supervision)
        aux_stats = stats["aux"]
        if aux_used:
            aux_seen, aux_stats = self.encode(
                "aux", variables, batch["image"], train, max(inner_steps, 1)
            )
        head, buffers = params["main"]["head"], stats["main"]["head"]

        def pseudo_body(k: Array | None) -> Body3D:
            aux_head, aux_buffers = params["aux"]["head"], stats["aux"]["head"]
            return self.embody(
                body, self.regress("aux", aux_head, aux_buffers, aux_seen["features"], batch, k)
            )

        measured: dict[str, Array] = {}
        order: Order = "second_fast" if self.order == "second" else "first"
        for step in range(inner_steps):
            pseudo = pseudo_body(key(2 * step))
            head, (value, (terms, _)) = sgd_step(
                self.inner_loss,
                head,
                features,
                pseudo,
                buffers,
                body,
                batch,
                key(2 * step + 1),
                lr=self.inner_lr,
                order=order,
                has_aux=True,
            )
            measured |= {f"inner{step}/{name}": term for name, term in terms.items()}
            measured[f"inner{step}/loss"] = value

        truth = self.truth(body, batch)
        adapted = self.embody(body, self.regress("main", head, buffers, features, batch, key(-1)))
        terms = {**self.true_terms(adapted, truth, batch), **self.point_terms(seen, batch)}
        total = self.weighted(terms)
        measured |= {f"loss_{name}": term for name, term in self.used(terms).items()}
        if train and self.aux_supervision:
            aux_terms = self.true_terms(pseudo_body(key(-2)), truth, batch)
            aux_terms |= self.point_terms(aux_seen, batch)
            aux_total = self.weighted(aux_terms)
            measured["loss_aux"] = aux_total
            total = total + aux_total
        if train and self.lifts:
            lifting = self.weighted(lifting_terms(self, variables, keys[-3], key(-4)))
            measured["loss_lifting"] = lifting
            total = total + self.weights.lifting * lifting
        measured["loss"] = OUTER_FACTOR * self.weighted(terms)
        state = {
            "main": {**main_stats, "head": buffers},
            "aux": {**aux_stats, "head": stats["aux"]["head"]},
        }
        return OUTER_FACTOR * total, Aux(metrics=measured, state=state)

    # ------------------------------------------------------------------ results

    def predict(self, variables: Variables, batch: Batch) -> Prediction:
        """One forward pass; where `adapt` gave every image its own weights, with these."""
        if variables["params"]["main"]["head"]["fc1"]["kernel"].ndim == 3:
            shared = {k: v for k, v in variables.items() if k != "params"}

            def single(params: Any, example: Batch) -> Prediction:
                alone = jax.tree.map(lambda x: jnp.asarray(x)[None], dict(example))
                found = self.predict({**shared, "params": {"main": params}}, alone)
                return jax.tree.map(lambda x: x[0], found)

            return jax.vmap(single)(variables["params"]["main"], dict(batch))
        regression = self.regress(
            "main",
            variables["params"]["main"]["head"],
            variables["batch_stats"]["main"]["head"],
            self.features("main", variables, batch["image"]),
            batch,
        )
        return self.prediction(variables, regression, batch)

    def prediction(self, variables: Variables, regression: Regression, batch: Batch) -> Prediction:
        """A regression as mesh, joints and camera of the photograph."""
        found = self.embody(variables["constants"]["neutral"], regression)
        cam = regression.cam
        return Prediction(
            vertices=found.vertices,
            joints3d=found.joints,
            keypoints2d=self.full_points(found.joints, cam, batch),
            rotmats=regression.rotmats,
            betas=regression.betas,
            cam=cam,
            transl=self.full_translation(cam, batch),
            focal_length=jnp.asarray(batch["focal_length"]),
        )

    def baseline(self, variables: Variables, batch: Batch) -> Prediction:
        """The mean pose and shape for every image: what a network must beat."""
        buffers = variables["batch_stats"]["main"]["head"]
        count = batch["image"].shape[0]

        def repeated(x: Array) -> Array:
            return jnp.broadcast_to(x, (count, x.shape[-1]))

        pose = repeated(buffers["init_pose"])
        regression = Regression(
            pose6d=pose,
            rotmats=rot6d_to_matrix(pose.reshape(count, 24, 6)),
            betas=repeated(buffers["init_shape"]),
            cam=repeated(buffers["init_cam"]),
        )
        return self.prediction(variables, regression, batch)

    def adapt(self, variables: Variables, batch: Batch, steps: int) -> Adaptation:
        return adapt(self, variables, batch, steps)

    def evaluate(
        self, variables: Variables, prediction: Prediction, batch: Batch
    ) -> dict[str, Array]:
        """mpjpe, pa_mpjpe, pve in mm and keypoint_error in pixels, (B,) each (spec 6.2)."""
        from jaxrecon.systems.meta_hmr import scores

        return scores.evaluate(self, variables, prediction, batch)

    def protocol(self) -> dict[str, Any]:
        from jaxrecon.systems.meta_hmr import scores

        return scores.protocol(self)
