"""Trained networks that lift 2D keypoints, for use: what `jaxrecon.load` and `fit` return.

lifter = jaxrecon.load("runs/mhrnet")              # or a published model_best.bin
poses = lifter.reconstruct("keypoints.npz")        # or an array (frames, joints, 2), pixels
poses.save("poses.html")                           # also .npz .png .webp .glb .obj .ply
"""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrecon import pose_runs
from jaxrecon.config import config_from_dict, load_config
from jaxrecon.data.lifting import PoseSet, from_orthographic
from jaxrecon.data.pose_files import poses_of_arrays
from jaxrecon.errors import UserError
from jaxrecon.evaluation.lifting import Scores
from jaxrecon.io.atomic import write_text
from jaxrecon.io.pose_files import PoseArrays, check_focal, check_keypoints, read_pose_arrays
from jaxrecon.io.torch_files import read_checkpoint
from jaxrecon.pose_reconstruction import PoseReconstruction
from jaxrecon.report.lifting import skeleton_of
from jaxrecon.systems.mhr_net import Lifting, MHRNet, published
from jaxrecon.systems.mhr_net.cameras import lift
from jaxrecon.training.checkpoints import RunRecord, load_variables, save_variables

PathLike = str | os.PathLike[str]
_BATCH = 1024


@dataclasses.dataclass
class PoseReconstructor:
    """A trained network that lifts 2D keypoints.

    Attributes:
      config: resolved.
      system: its settings, with pure functions.
      variables: params, batch_stats and constants.
      step: training steps done; 0 for imported weights.
    """

    config: Any
    system: MHRNet
    variables: dict[str, Any]
    step: int = 0

    def reconstruct(
        self,
        keypoints: PathLike | np.ndarray,
        focal_length: float | None = None,
        *,
        visible: Any = None,
        hypotheses: int | None = None,
        seed: int | None = None,
    ) -> PoseReconstruction:
        """3D hypotheses for 2D keypoints.

        Args:
          keypoints: a file (layout: `datasets_builders/keypoint_file/README.md`) or an array
            (frames, joints, 2) in pixels, or (frames, joints, 3) with confidence; NaN: missing.
          focal_length: pixels, where the file has none; by default twice the longer side of the
            image or of the keypoints' extent. Not used by orthographic networks.
          visible: (frames, joints) of an array, above 0 where seen.
          hypotheses, seed: how many, of which noise; by default the config's.

        Raises:
          UserError: what cannot be read or used; another number of joints than the network has;
            missing joints where the network was trained without any.
        """
        arrays, where = self._read(keypoints, focal_length, visible)
        poses = self._normalised(arrays, where)
        system = dataclasses.replace(
            self.system,
            test_hypotheses=hypotheses or self.system.test_hypotheses,
            seed=self.system.seed if seed is None else seed,
        )
        found = _predict(system, self.variables, poses)
        return _reconstruction(self.system, arrays, poses, found)

    def evaluate(self, workdir: PathLike | None = None, **overrides: Any) -> Scores:
        """The scores on the test set of the config, with the rigid baseline's.

        Args:
          workdir: also write `evaluation.json` there.
          overrides: fields of the config: `data={"path": "FOLDER"}`.
        """
        run = pose_runs.prepare(load_config(self.config, overrides))
        variables = {**self.variables, "constants": run.variables["constants"]}
        run = dataclasses.replace(run, system=self.system, variables=variables)
        scores = pose_runs.scores_of(run, baseline=True)
        if workdir is not None:
            text = json.dumps(scores.to_dict(), indent=2) + "\n"
            write_text(Path(workdir) / "evaluation.json", text)
        return scores

    def save(self, path: PathLike) -> Path:
        """Writes a checkpoint folder that `jaxrecon.load` reads."""
        record = RunRecord(self.step, self.config.to_dict(), None, [])
        return save_variables(Path(path), self.variables, record)

    def _read(self, keypoints: Any, focal: float | None, visible: Any) -> tuple[PoseArrays, str]:
        if isinstance(keypoints, str | os.PathLike):
            if visible is not None:
                raise UserError("visible belongs to an array; a file has its own")
            arrays, where = read_pose_arrays(keypoints, focal or 0.0), os.fspath(keypoints)
        else:
            where = "keypoints"
            points, seen = check_keypoints(keypoints, visible, where)
            known = points.reshape(-1, 2) if seen is None else points[seen > 0]
            focal = focal or 2.0 * float(max(np.ptp(known, axis=0).max(), 1e-6))
            arrays = PoseArrays(points, seen, None, check_focal(focal, where))
        joints = arrays.keypoints2d.shape[1]
        if joints != self.system.joints:
            raise UserError(
                f"{where} has {joints} joints and the network {self.system.joints}; bring them "
                "into its order, or train a network on them (config.data.source=file)"
            )
        if arrays.visible is not None and not self.system.see_visibility:
            frame = int(np.flatnonzero((arrays.visible == 0).any(1))[0])
            raise UserError(
                f"{where}: frame {frame} lacks joints, and this network was trained with all of "
                "them; train one with --config.data.missing=0.2, or leave such frames out"
            )
        return arrays, where

    def _normalised(self, arrays: PoseArrays, where: str) -> PoseSet:
        """As the network saw its training set; the scale is that of these keypoints' own lengths,
        as published, so that a wrong focal length or another distance does no harm."""
        if self.system.projection == "orthographic":
            return from_orthographic(arrays.keypoints2d, arrays.visible, where=where)
        return poses_of_arrays(arrays, None, where)


def load_lifter(path: PathLike, overrides: Mapping[str, Any] | None = None) -> PoseReconstructor:
    """From a run folder, a checkpoint of ours, or a published `.bin`.

    Raises:
      UserError: no checkpoint there, a damaged one, weights of another network.
    """
    if pose_runs.is_published_file(path):
        tree = read_checkpoint(path)
        settings = {f"system.{k}": v for k, v in published.network_settings(tree).items()}
        config = load_config(load_config("mhrnet:paper", settings), overrides)
        system = MHRNet.from_config(config)
        template = system.init(jax.random.PRNGKey(0), system.example())
        variables, _ = published.import_checkpoint(tree, template, True)
        return PoseReconstructor(config, system, {**variables, "constants": {}})
    variables, record = load_variables(Path(path))
    config = load_config(config_from_dict(record.config), overrides)
    system = MHRNet.from_config(config)
    return PoseReconstructor(config, system, {**variables, "constants": {}}, record.step)


def fit_lifter(config: Any, workdir: PathLike) -> PoseReconstructor:
    """Trains as a resolved config says, scores, writes the page; continues a run there."""
    run = pose_runs.train_run(config, Path(workdir))
    result = run.result
    if result is not None and result.stopped == "SIGINT":
        raise KeyboardInterrupt(f"saved at step {result.step}; the same call continues")
    if result is not None and result.stopped == "SIGTERM":
        raise SystemExit(143)
    if result is not None and result.stopped is None:
        pose_runs.finish(run, Path(workdir))
    return PoseReconstructor(run.config, run.system, run.variables, result.step if result else 0)


def command_reconstruct(
    checkpoint: PathLike,
    source: PathLike,
    output: Path,
    focal_length: float | None,
    overrides: Mapping[str, Any],
) -> str:
    """`--mode=reconstruct`: writes poses.npz, poses.html, turntable.webp and a picture of each of
    the first frames; returns what was written, in words."""
    found = load_lifter(checkpoint, overrides).reconstruct(source, focal_length)
    for name in ("poses.npz", "poses.html", "turntable.webp", "first_frame.png", "first_frame.glb"):
        found.save(output / name)
    error = float(found.errors[:, 0].mean())
    return (
        f"{len(found)} frames, {found.hypotheses.shape[1]} hypotheses each, 2D error of the best "
        f"{error:.2f} pixels; written to {output}, look at {output / 'poses.html'}"
    )


@functools.lru_cache(maxsize=8)
def _predict_function(system: MHRNet) -> Any:
    def call(variables: Any, batch: Any) -> tuple[Lifting, Any]:
        found = system.predict(variables, batch)
        return found, system.complete(found.joints3d, batch, found)

    return jax.jit(call)


def _predict(system: MHRNet, variables: Any, poses: PoseSet) -> tuple[Lifting, np.ndarray]:
    """Prediction and completed 2D for all frames, in batches of one size."""
    arrays = poses.arrays()
    if system.see_visibility and poses.visible is None:
        arrays["visible"] = np.ones(poses.keypoints2d.shape[:2], np.float32)
    size = min(_BATCH, len(poses))
    parts = []
    for first in range(0, len(poses), size):
        rows = np.arange(first, first + size).clip(max=len(poses) - 1)
        batch = {name: array[rows] for name, array in arrays.items()}
        part = jax.device_get(_predict_function(system)(dict(variables), batch))
        kept = min(size, len(poses) - first)
        parts.append(jax.tree.map(lambda a, n=kept: a[:n], part))
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def _reconstruction(
    system: MHRNet, arrays: PoseArrays, poses: PoseSet, found: tuple[Lifting, np.ndarray]
) -> PoseReconstruction:
    lifting, seen = found
    order = np.argsort(lifting.errors, axis=1, kind="stable")
    hypotheses = np.take_along_axis(lifting.hypotheses, order[..., None, None], 1)
    visible = np.ones(seen.shape[:2], np.float32) if arrays.visible is None else arrays.visible
    names, bones = skeleton_of(system.joints)
    focal = 1.0 if system.projection == "orthographic" else float(arrays.focal_length.mean())
    pixels = focal / poses.factor / np.sqrt(visible.sum(1))
    return PoseReconstruction(
        np.asarray(lift(seen, lifting.joints3d[..., 2], system.projection)),
        hypotheses,
        np.sort(lifting.errors, axis=1) * pixels[:, None],
        arrays.keypoints2d,
        visible,
        lifting.rotation,
        names,
        bones,
    )
