"""How well 2D poses are lifted, with the best rigid shape measured beside it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.data.lifting import PoseSet
from jaxrecon.systems.base import Variables
from jaxrecon.systems.mhr_net import Lifting, MHRNet, metrics, rigid

_RIGID_FROM = 20_000  # frames that the rigid shape is made of
RIGID = "rigid shape, posed by the 2D"
ORACLE = "rigid shape, posed by the truth"


@dataclasses.dataclass(frozen=True)
class Scores:
    """Means over a test set.

    Attributes:
      own: metric -> value.
      others: name of a baseline -> its values.
      groups: action or sequence -> values.
      frames: how many were measured.
      protocol: how, in words.
      headline: the metric that stands for the others.
    """

    own: dict[str, float]
    others: dict[str, dict[str, float]]
    groups: dict[str, dict[str, float]]
    frames: int
    protocol: dict[str, Any]
    headline: str = "mpjpe"

    def to_dict(self) -> dict[str, Any]:
        """JSON values, in the layout of `Evaluation.to_dict` with more beside."""
        return {
            "protocol": self.protocol,
            "examples": self.frames,
            "mean_pose": self.others.get(RIGID, {}),
            "before": self.own,
            "after": self.own,
            "curve": [{"step": 0, **self.own}],
            "baselines": self.others,
            "groups": self.groups,
        }

    def table(self) -> str:
        """A line for each baseline, the groups and the network, and how far it is below."""
        names = list(self.own)
        rows = [*self.others.items(), *self.groups.items(), ("MHR-Net", self.own)]
        wide = max(len(label) for label, _ in rows) + 2
        lines = [" " * wide + "".join(f"{name:>18}" for name in names)]
        for label, row in rows:
            cells = (f"{row[n]:>18.4g}" if n in row else f"{'':>18}" for n in names)
            lines.append(f"{label:<{wide}}" + "".join(cells))
        plain, own = self.others.get(RIGID, {}).get(self.headline), self.own.get(self.headline)
        if plain and own is not None:
            lines.append(
                f"{self.headline} is {100 * (1 - own / plain):.1f} % below that of the rigid shape"
            )
        return "\n".join(lines)


def rigid_shape(train_set: PoseSet, test_set: PoseSet) -> np.ndarray | None:
    """The mean shape of the ground truth of the training set, or else of the test set."""
    for poses in (train_set, test_set):
        if poses.joints3d is not None:
            every = max(len(poses) // _RIGID_FROM, 1)
            shape = np.asarray(rigid.mean_shape(poses.joints3d[::every][:_RIGID_FROM]))
            # In the units of the normalised image, which start the fit near its answer.
            return (shape * poses.factor).astype(np.float32)
    return None


def measure(
    system: MHRNet, variables: Variables, poses: PoseSet, batch_size: int, baseline: bool
) -> Scores:
    """The published protocol over a set (spec mhr_net 6.1); only 2D errors without 3D."""
    arrays = poses.arrays(ground_truth=True)
    with_truth = poses.joints3d is not None
    calls = {"MHR-Net": _measure_network(system)}
    if baseline and with_truth:
        calls |= {RIGID: _measure_rigid(system), ORACLE: _measure_oracle(system)}
    rows: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in calls}
    for first in range(0, len(poses), batch_size):
        index = np.arange(first, first + batch_size).clip(max=len(poses) - 1)
        batch = {name: array[index] for name, array in arrays.items()}
        kept = min(batch_size, len(poses) - first)
        for name, call in calls.items():
            found = jax.device_get(call(dict(variables), batch))
            rows[name].append({metric: value[:kept] for metric, value in found.items()})
    frames = {
        name: {m: np.concatenate([part[m] for part in parts]) for m in parts[0]}
        for name, parts in rows.items()
    }
    means = {name: _means(values) for name, values in frames.items()}
    own = frames["MHR-Net"]
    groups = {
        group: _means({m: np.concatenate([v[a:b] for a, b in ranges]) for m, v in own.items()})
        for group, ranges in poses.groups.items()
    }
    others = {name: values for name, values in means.items() if name != "MHR-Net"}
    protocol = {**system.protocol(), "frames": len(poses)}
    return Scores(means["MHR-Net"], others, groups, len(poses), protocol)


def measure_sequence(
    system: MHRNet, variables: Variables, poses: PoseSet, baseline: bool
) -> Scores:
    """The normalised 3D errors of one sequence: observed 2D with the predicted depth."""
    batch = {name: jnp.asarray(array) for name, array in poses.arrays().items()}
    target = jnp.asarray(poses.joints3d)
    prediction = jax.jit(lambda v, b: system.predict(v, b))(dict(variables), batch)
    others = {}
    if baseline:
        posed = jax.jit(lambda v, b: system.rigid(v, b))(dict(variables), batch)
        others[RIGID] = _sequence_scores(system, posed, batch, poses, target)
        shape = _middle(jnp.asarray(variables["constants"]["rigid_shape"]))
        turned = metrics.match_shape(jnp.broadcast_to(shape, target.shape), _middle(target))
        others[ORACLE] = _errors(turned, target)
    if poses.depth is not None:
        points = jnp.concatenate([poses.keypoints2d, poses.depth[..., None]], axis=-1)
        others[f"classical fit ({poses.depth_method})"] = _errors(points / poses.factor, target)
    protocol = {
        "shapes": "centred frame by frame; observed 2D with the predicted depth",
        "normalised_3d_error": "mean of |S_est - S| / |S| after one depth reflection of all frames",
        "after_rotation": "the same after the best rotation or reflection of each frame",
        "frames": len(poses),
    }
    own = _sequence_scores(system, prediction, batch, poses, target)
    return Scores(own, others, {}, len(poses), protocol, "normalised_3d_error")


def _sequence_scores(
    system: MHRNet, prediction: Lifting, batch: Any, poses: PoseSet, target: Any
) -> dict[str, float]:
    seen = system.complete(prediction.joints3d, batch, prediction)
    points = jnp.concatenate([seen, prediction.joints3d[..., 2:]], axis=-1) / poses.factor
    return _errors(points, target)


def _errors(points: Any, target: Any) -> dict[str, float]:
    errors = metrics.sequence_errors(points, target)
    return {
        "normalised_3d_error": float(errors.reflected),
        "after_rotation": float(errors.aligned),
    }


def _middle(points: Any) -> Any:
    return points - points.mean(-2, keepdims=True)


def _means(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.mean(array, dtype=np.float64)) for name, array in values.items()}


@functools.lru_cache(maxsize=4)
def _measure_network(system: MHRNet) -> Any:
    return jax.jit(lambda v, b: system.evaluate(v, system.predict(v, b), b))


@functools.lru_cache(maxsize=4)
def _measure_rigid(system: MHRNet) -> Any:
    return jax.jit(lambda v, b: system.evaluate(v, system.rigid(v, b), b))


@functools.lru_cache(maxsize=4)
def _measure_oracle(system: MHRNet) -> Any:
    def call(variables: Variables, batch: Any) -> Any:
        posed = system.rigid(variables, batch)
        points = rigid.oracle(
            variables["constants"]["rigid_shape"],
            posed.keypoints2d,
            batch["joints3d"],
            batch.get("visible", jnp.ones(posed.keypoints2d.shape[:2])),
            system.projection,
        )
        # Only its depth counts: the 2D is the observed one.
        turned = dataclasses.replace(posed, joints3d=points, hypotheses=points[:, None])
        found = system.evaluate(variables, turned, batch)
        return {name: value for name, value in found.items() if name != "reprojection"}

    return jax.jit(call)
