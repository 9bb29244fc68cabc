"""MHR-Net (arXiv 2207.09086): non-rigid 3D shape from the 2D keypoints of one view.

Trained with 2D keypoints alone. A learned basis gives a coarse shape, a small stochastic network
several deformations of it; the hypothesis that reprojects best is kept. Section numbers are
those of spec mhr_net.

A batch holds `keypoints2d` (B, J, 2), normalised (see `jaxrecon.data.lifting`), and may hold

    visible   (B, J), 1 where a keypoint was seen; all without it
    joints3d  (B, J, 3) metres, camera frame, root-relative: for `evaluate` alone
    align     (), whether the canonicalisation centres shapes at the root
    procrust  (), whether the Procrustean loss is on; both follow the epoch
    depth     (B, J) of an orthographic sequence, found by other means
    noise     `Noise`, instead of fresh draws
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxrecon.errors import UserError
from jaxrecon.systems.base import Aux, Batch, System, Variables
from jaxrecon.systems.mhr_net import metrics, optimiser, rigid
from jaxrecon.systems.mhr_net.cameras import PROJECTIONS, see, turn
from jaxrecon.systems.mhr_net.evidence import (
    Forward,
    Lifting,
    Noise,
    centre_keypoints,
    turn_about_axis,
    visibility,
)
from jaxrecon.systems.mhr_net.likelihood import surprise
from jaxrecon.systems.mhr_net.losses import (
    depth_distance,
    mean_point_distance,
    procrustean_residual,
    safe_norm,
)
from jaxrecon.systems.mhr_net.network import NOISE, MHRNetwork
from jaxrecon.systems.mhr_net.rotations import FULL_TURN_HALF, exponential, rotation_vectors
from jaxrecon.typing import Array

OPTIMIZERS = ("sgd", "adam")
MILLIMETRES = 1000.0


@dataclasses.dataclass(frozen=True)
class MHRNet(System):
    """Settings of MHR-Net; the defaults are those of the published script.

    Attributes:
        projection: "perspective" or "orthographic".
        joints, width, blocks, bases, init_std: See `MHRNetwork`.
        see_visibility: Tell the network which joints are missing.
        hypotheses, test_hypotheses: How many are drawn when training, and when predicting.
        rotations: Random rotations of each sample in the canonicalisation.
        z_augmentation: Largest random turn of the 2D input about the optical axis, radians.
        w_final, w_mean: Weights of the reprojection of the chosen hypothesis and of S^B.
        w_reprojection, w_cycle, w_procrust: Weights of the three terms of the objective.
        w_view: Weight of the second view: S* is turned, projected and lifted again, and must
            come out as it was turned. 0 (published): off; needed where few steps and varied
            poses would end in flat shapes (its ancestor, ITES, canonicalises this way).
        w_likely: Weight of how unlikely second views are as 2D poses (`likelihood`; not
            published), where `constants["views"]` says what poses look like. 0: off.
        view_tilt: Deviation in radians of how far second views leave the level (they come from
            all sides); negative: any rotation at all.
        w_depth: Weight of the distance in depth, centred, of S* and of S^B from the `depth` of a
            batch that has one (not published).
        pairs, margin: Of the Procrustean loss.
        procrust_from, align_until: Epochs (from 1) of the two stages.
        optimizer: "sgd" (published) or "adam".
        rate, decay, decay_every: Learning rate, times `decay` after every so many epochs.
        cosine_epochs: Above 0: the rate falls along a half cosine over so many epochs instead.
        steps_per_epoch: What an epoch is, for the rate; 0: the rate is constant.
        seed: Of the noise in `predict`.
        published_lift: Lift with the perspective factor also for orthographic cameras.
    """

    projection: str = "perspective"
    joints: int = 17
    width: int = 1024
    blocks: int = 6
    bases: int = 10
    init_std: float = 0.01
    see_visibility: bool = False
    hypotheses: int = 3
    test_hypotheses: int = 3
    rotations: int = 4
    z_augmentation: float = 0.0
    w_final: float = 0.2
    w_mean: float = 0.8
    w_reprojection: float = 5.0
    w_cycle: float = 1.0
    w_procrust: float = 1.0
    w_view: float = 0.0
    w_likely: float = 0.0
    view_tilt: float = 0.15
    w_depth: float = 5.0
    pairs: int = 64
    margin: float = 0.075
    procrust_from: int = 10
    align_until: int = 15
    optimizer_name: str = "sgd"
    rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay: float = 0.5
    decay_every: int = 15
    cosine_epochs: int = 0
    steps_per_epoch: int = 0
    seed: int = 0
    published_lift: bool = True

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("projection", self.projection, PROJECTIONS),
            ("optimizer_name", self.optimizer_name, OPTIMIZERS),
        ):
            if value not in valid:
                raise UserError(f"system.{name}={value!r} is not one of {', '.join(valid)}")
        for name in ("joints", "blocks", "bases", "hypotheses", "test_hypotheses", "pairs"):
            if getattr(self, name) < 1:
                raise UserError(f"system.{name}={getattr(self, name)}; it must be 1 or more")
        if self.width % 4 or self.width < 4:
            raise UserError(f"system.width={self.width} must be a multiple of 4")

    @classmethod
    def from_config(cls, config: Any) -> "MHRNet":
        """The system that `config.system` describes.

        Raises:
            UserError: a field that there is not, or a value it cannot have.
        """
        fields = {name: value for name, value in dict(config["system"]).items() if name != "name"}
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise UserError(f"config field system.{unknown[0]} means nothing to MHRNet")
        return cls(**fields)

    # ------------------------------------------------------------------ variables

    @property
    def network(self) -> MHRNetwork:
        return MHRNetwork(
            self.joints,
            self.width,
            self.blocks,
            self.bases,
            self.init_std,
            self.see_visibility,
            self.axis_name,
        )

    def constants(self) -> dict[str, Any]:
        """None of its own; a run adds `rigid_shape` (J, 3), the baseline."""
        return {}

    def init(self, rng: Array, batch: Batch) -> dict[str, Any]:
        shape = (2, self.joints, 2)
        network = dataclasses.replace(self.network, axis_name=None)
        made = network.init(rng, jnp.zeros(shape), method="everything")
        return {"params": made["params"], "batch_stats": made["batch_stats"], "constants": {}}

    def example(self) -> dict[str, Array]:
        """A batch of the right shapes, for `init`."""
        return {"keypoints2d": jnp.zeros((2, self.joints, 2))}

    def draw(self, rng: Array, count: int, hypotheses: int | None = None) -> Noise:
        """Fresh noise for a batch of `count` (training draws all of it)."""
        keys = jax.random.split(rng, 6)
        size = self.rotations * count
        z_angle = None
        if self.z_augmentation > 0:
            limit = self.z_augmentation
            z_angle = jax.random.uniform(keys[4], (count,), minval=-limit, maxval=limit)
        return Noise(
            z=jax.random.normal(keys[0], ((hypotheses or self.hypotheses) * count, NOISE)),
            axis=jax.random.normal(keys[1], (size, 3)),
            angle=jax.random.uniform(keys[2], (size,), maxval=FULL_TURN_HALF),
            permutation=jax.random.permutation(keys[3], count),
            z_angle=z_angle,
            view=self._draw_view(keys[5], count) if max(self.w_view, self.w_likely) > 0 else None,
        )

    def _draw_view(self, key: Array, count: int) -> Array:
        """Rotation vectors about the image's vertical, tilted a little; or of any rotation."""
        axis_key, angle_key = jax.random.split(key)
        axis = jax.random.normal(axis_key, (count, 3))
        if self.view_tilt >= 0:
            axis = axis * jnp.array([self.view_tilt, 0.0, self.view_tilt])
            axis = axis + jnp.array([0.0, 1.0, 0.0])
        angle = jax.random.uniform(angle_key, (count,), minval=-jnp.pi, maxval=jnp.pi)
        return rotation_vectors(axis, angle)

    # ------------------------------------------------------------------ forward (section 3)

    def forward(
        self,
        variables: Variables,
        batch: Batch,
        noise: Noise,
        train: bool,
        losses: bool = True,
    ) -> Forward:
        """The forward pass of section 3, with the losses of section 4.

        Args:
            train: normalise with the batch's statistics.
            losses: also compute the canonicalisation and, if it is on, the Procrustean loss.
        """
        network, stats = self.network, {"value": variables["batch_stats"]}

        def call(method: Callable[..., Array], *inputs: Any) -> Array:
            given = {"params": variables["params"], "batch_stats": stats["value"]}
            if not train:
                return network.apply(given, *inputs, method=method)  # type: ignore[return-value]
            out, changed = network.apply(given, *inputs, method=method, mutable=["batch_stats"])
            stats["value"] = changed["batch_stats"]
            return out

        seen, centre, visible = centre_keypoints(batch["keypoints2d"], batch.get("visible"))
        if noise.z_angle is not None:
            seen = turn_about_axis(seen, noise.z_angle)
        told = jnp.ones(seen.shape[:2]) if visible is None else visible
        feature = call(MHRNetwork.features, seen, told, train)
        coefficients = call(MHRNetwork.coefficients, feature)
        basis_shape = call(MHRNetwork.shape, coefficients)
        added = call(MHRNetwork.deformation, feature, coefficients, noise.z)
        hypotheses = basis_shape[None] + added
        vector = call(MHRNetwork.rotation_vector, feature)
        rotation = exponential(vector)

        in_camera = turn(hypotheses, rotation[None])
        residual = self._residual(in_camera, seen[None], batch, visible)
        errors = safe_norm(residual, (-2, -1))
        # Only the chosen hypothesis receives gradients; the choice has none.
        chosen = jnp.argmin(lax.stop_gradient(errors), axis=0)
        pick = chosen[None, :, None, None]
        shape = jnp.take_along_axis(hypotheses, pick, 0)[0]
        joints3d = jnp.take_along_axis(in_camera, pick, 0)[0]
        residual = jnp.take_along_axis(residual, pick, 0)[0]

        basis_in_camera = turn(basis_shape, rotation)
        basis_residual = self._residual(basis_in_camera, seen, batch, visible)
        final, mean = (
            mean_point_distance(r, jnp.zeros_like(r), visible) for r in (residual, basis_residual)
        )
        lifting = Lifting(
            joints3d,
            shape,
            basis_shape,
            coefficients,
            rotation,
            jnp.moveaxis(in_camera, 0, 1),
            errors.T,
            chosen.astype(jnp.int32),
            seen,
            centre,
        )
        cycle = view = likely = procrust = jnp.zeros(())
        pairs = None
        if losses:
            cycle = self._cycle(call, basis_shape, noise, batch.get("align", True), train)
            if noise.view is not None:
                target = turn(joints3d - joints3d[:, :1], exponential(noise.view))
                image = see(target, self.projection)
                if self.w_view > 0:
                    view = self._view(call, target, image, train)
                if self.w_likely > 0 and "views" in variables["constants"]:
                    likely = jnp.mean(surprise(variables["constants"]["views"], image))
            if noise.permutation is not None:
                procrust, pairs = procrustean_residual(
                    shape, noise.permutation, self.pairs, self.margin
                )
        return Forward(
            lifting,
            feature,
            vector,
            hypotheses,
            self.w_final * final + self.w_mean * mean,
            cycle,
            view,
            likely,
            self.w_procrust * procrust,
            pairs,
            stats["value"],
        )

    def _residual(self, points: Array, seen: Array, batch: Batch, visible: Any) -> Array:
        """Observed minus projected 2D; 0 at missing joints.

        Keypoints without their root are known up to a shift: theirs is taken out.
        """
        residual = seen - see(points, self.projection)
        if visible is None:
            return residual
        weights = visible[..., None]
        count = jnp.sum(weights, -2, keepdims=True)
        shift = jnp.sum(residual * weights, -2, keepdims=True) / jnp.maximum(count, 1.0)
        rootless = visible[..., :1, None] == 0
        return (residual - jnp.where(rootless, shift, 0.0)) * weights

    def _cycle(
        self, call: Callable[..., Array], shape: Array, noise: Noise, align: Any, train: bool
    ) -> Array:
        """The second trunk must recover S^B from randomly turned copies (4.2)."""
        rooted = shape - jnp.where(jnp.asarray(align, bool), shape[:, :1], 0.0)
        copies = len(noise.angle) // len(shape)
        target = jnp.tile(rooted, (copies, 1, 1))
        random = exponential(rotation_vectors(noise.axis, noise.angle))
        found = call(MHRNetwork.recover, turn(target, random), train)
        return mean_point_distance(found, target)

    def _view(self, call: Callable[..., Array], target: Array, image: Array, train: bool) -> Array:
        """S* seen from another side must have, as its S^B, what it is there."""
        feature = call(MHRNetwork.features, image, jnp.ones(image.shape[:2]), train)
        shape = call(MHRNetwork.shape, call(MHRNetwork.coefficients, feature))
        found = turn(shape, exponential(call(MHRNetwork.rotation_vector, feature)))
        return mean_point_distance(found - found[:, :1], target)

    # ------------------------------------------------------------------ System

    def loss(
        self, variables: Variables, batch: Batch, rng: Array, train: bool
    ) -> tuple[Array, Aux]:
        """5 L_reprojection + L_cycle + L_procrust (4.4); metrics are without these weights."""
        noise = batch.get("noise")
        if noise is None:
            noise = self.draw(rng, len(batch["keypoints2d"]))
        done = self.forward(variables, batch, noise, train)
        procrust = done.procrust * jnp.asarray(batch.get("procrust", True), jnp.float32)
        total = self.w_reprojection * done.reprojection + self.w_cycle * done.cycle + procrust
        total = total + self.w_view * done.view + self.w_likely * done.likely
        terms = {
            "loss_reprojection": done.reprojection,
            "loss_cycle": done.cycle,
            "loss_procrust": procrust,
        }
        if self.w_view > 0:
            terms["loss_view"] = done.view
        if self.w_likely > 0:
            terms["loss_likely"] = done.likely
        if "depth" in batch:
            found = (done.lifting.joints3d, turn(done.lifting.basis_shape, done.lifting.rotation))
            terms["loss_depth"] = sum(
                0.5 * depth_distance(points[..., 2], batch["depth"]) for points in found
            )
            total = total + self.w_depth * terms["loss_depth"]
        if self.axis_name is not None:
            total, terms = lax.pmean((total, terms), self.axis_name)
        return total, Aux(terms, done.batch_stats)

    def predict(self, variables: Variables, batch: Batch, noise: Noise | None = None) -> Lifting:
        """All hypotheses and the best by reprojection; the noise is that of `seed` by default."""
        if noise is None:
            count = len(batch["keypoints2d"])
            key = jax.random.PRNGKey(self.seed)
            noise = Noise(jax.random.normal(key, (self.test_hypotheses * count, NOISE)))
        return self.forward(variables, batch, noise, train=False, losses=False).lifting

    def evaluate(self, variables: Variables, prediction: Lifting, batch: Batch) -> dict[str, Array]:
        """Errors of the published protocol (6.1), mm; normalised errors are ratios.

        `mpjpe` and `pa_mpjpe` take the better sign of depth, `mpjpe_unflipped` the predicted
        one; `oracle_mpjpe` takes the best hypothesis by the ground truth and is no fair score.
        `reprojection` is the mean 2D distance, in units of the normalised image; the only one
        without ground truth.
        """
        left = safe_norm(
            self._residual(prediction.joints3d, prediction.keypoints2d, batch, visibility(batch))
        )
        seen = jnp.ones_like(left) if visibility(batch) is None else visibility(batch)
        error = jnp.sum(left * seen, -1) / jnp.sum(seen, -1)
        target = batch.get("joints3d")
        if target is None:
            return {"reprojection": error}
        lift_as = "perspective" if self.published_lift else self.projection

        def protocol(points: Array) -> metrics.Lifted:
            seen = self.complete(points, batch, prediction)
            return metrics.lifting_protocol(points[..., 2], seen, target, lift_as)

        chosen = protocol(prediction.joints3d)
        every = jax.vmap(protocol, 1, 1)(prediction.hypotheses)
        flip = jnp.argmin(jnp.stack([chosen.mpjpe, chosen.mpjpe_flipped]), axis=0)
        best = jnp.where((flip == 0)[:, None, None], chosen.points, chosen.flipped)
        return {
            "mpjpe": MILLIMETRES * chosen.best_mpjpe,
            "pa_mpjpe": MILLIMETRES * chosen.best_pa_mpjpe,
            "mpjpe_unflipped": MILLIMETRES * chosen.mpjpe,
            "normalised_error": metrics.normalised_error(best, metrics.rooted(target)),
            "oracle_mpjpe": MILLIMETRES * jnp.min(every.best_mpjpe, axis=1),
            "reprojection": error,
        }

    def complete(self, points: Array, batch: Batch, prediction: Lifting) -> Array:
        """The observed 2D, root at 0, with the prediction's own where a joint is missing."""
        visible = batch.get("visible")
        if visible is None:
            return prediction.keypoints2d
        image = see(points, self.projection)
        weights = jnp.asarray(visible)[..., None]
        count = jnp.maximum(jnp.sum(weights, -2, keepdims=True), 1.0)
        shift = jnp.sum((image - prediction.keypoints2d) * weights, -2, keepdims=True) / count
        rootless = weights[..., :1, :] == 0
        seen = prediction.keypoints2d + jnp.where(rootless, shift, 0.0)
        return metrics.rooted(jnp.where(weights > 0, seen, image))

    def baseline(self, variables: Variables, batch: Batch) -> Lifting | None:
        """The best rigid shape (`constants["rigid_shape"]`) in the pose that fits the 2D best."""
        if "rigid_shape" not in variables["constants"]:
            return None
        return self.rigid(variables, batch)

    def rigid(self, variables: Variables, batch: Batch) -> Lifting:
        """`baseline`, where there is one."""
        shape = variables["constants"]["rigid_shape"]
        seen, centre, visible = centre_keypoints(batch["keypoints2d"], batch.get("visible"))
        weights = jnp.ones(seen.shape[:2]) if visible is None else visible
        points, rotation, errors = rigid.fit(shape, seen, weights, self.projection)
        count = len(seen)
        return Lifting(
            points,
            jnp.broadcast_to(shape, points.shape),
            jnp.broadcast_to(shape, points.shape),
            jnp.zeros((count, self.bases)),
            rotation,
            points[:, None],
            errors[:, None],
            jnp.zeros(count, jnp.int32),
            seen,
            centre,
        )

    def protocol(self) -> dict[str, Any]:
        return {
            "joints": f"{self.joints}, relative to joint 0",
            "lifting": "observed 2D at the predicted depth",
            "scale": "of the best similarity alignment to the ground truth, reflections allowed",
            "depth sign": "the better one for each frame (mpjpe_unflipped: as predicted)",
            "hypothesis": f"best reprojection of {self.test_hypotheses}, noise seed {self.seed}",
            "unit": "mm",
        }

    def optimizer(self) -> optax.GradientTransformation:
        return optimiser.optimizer(self)

    def rate_at(self, step: Any) -> Array:
        """The learning rate in force at an optimiser step (from 0)."""
        return optimiser.rate_at(self, step)
