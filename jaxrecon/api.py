"""jaxrecon from Python: `fit`, `load`, and the Reconstructor that both return.

    reconstructor = jaxrecon.fit("metahmr")                       # trains in runs/metahmr
    reconstructor = jaxrecon.load("runs/metahmr")
    body = reconstructor.reconstruct("photo.jpg", "photo_openpose.json")
    body.save("photo.glb")

The command line (`jaxrecon.main`) calls the same functions.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optax

from jaxrecon import pose_api, pose_runs, results, runs, sequence_results
from jaxrecon.config import config_from_dict, load_config, with_new_fields
from jaxrecon.data.sequences import Footage, read_footage
from jaxrecon.errors import UserError
from jaxrecon.evaluation.noise import with_noise
from jaxrecon.evaluation.outputs import outputs_of
from jaxrecon.evaluation.protocol import Evaluation, Evaluator
from jaxrecon.io.frames import is_sequence
from jaxrecon.io.torch_files import read_checkpoint, write_checkpoint
from jaxrecon.reconstruction import Reconstruction
from jaxrecon.report.run import write_run_report
from jaxrecon.sequence import SequenceReconstruction
from jaxrecon.systems import create_system, published_format
from jaxrecon.systems.base import Adaptation, Batch, System
from jaxrecon.training.checkpoints import RunRecord, load_variables, save_variables
from jaxrecon.training.logging import read_metrics
from jaxrecon.training.parallel import Placement, main_process
from jaxrecon.training.state import create_state, variables_of

PathLike = str | os.PathLike[str]


@dataclasses.dataclass
class Reconstructor:
    """A trained system, ready for use.

    Attributes:
      config: resolved.
      system: its settings, with pure functions.
      variables: params, batch_stats and constants.
      step: training steps done; 0 for imported weights.
    """

    config: Any
    system: System
    variables: dict[str, Any]
    step: int = 0

    def reconstruct(
        self,
        image: Any,
        keypoints: Any = None,
        bbox: Any = None,
        adapt_steps: int | None = None,
        *,
        joint_set: str | None = None,
        focal_length: float | None = None,
        smooth: bool | float | int = False,
        fps: float | int | None = None,
        progress: bool = True,
    ) -> Reconstruction | SequenceReconstruction:
        """The body in a photograph, or in every frame of a video or a folder.

        Args:
          image: file, or RGB pixels (H, W, 3) uint8. Or frames: a video, a folder of images, a
            list of either kind, an array (T, H, W, 3).
          keypoints: 2D keypoints: a file (OpenPose, COCO, ...), or an array (joints, 3) of
            `joint_set`, pixels and confidence. Without them nothing can be adapted. For frames: a
            folder with a file for each, or an array with a leading frame axis (see
            `io.keypoint_sequences.read_keypoint_frames`).
          bbox: (x, y, width, height) in pixels, or a file; without it the box is drawn around
            the keypoints.
          adapt_steps: steps of test-time optimisation; by default the config's `tto.steps`
            with keypoints, 0 without.
          joint_set: the set of an array, such as "coco17".
          focal_length: pixels; estimated as the image's diagonal if unknown.
          smooth: of frames: take out jitter, fill gaps and share one shape; a number is the
            seconds that the filter spans, True a usual span.
          fps: of frames: how many a second; a video's own, or 30, by default.
          progress: of frames: show how many a second are done, and the time left.

        Returns:
          for frames a `SequenceReconstruction`: each frame adapts by itself, in batches.

        Raises:
          UserError: a file or value that cannot be used; neither keypoints nor a box; steps
            without keypoints; frames and keypoints that do not fit each other. A single frame that
            cannot be used is skipped, and noted in the result.
        """
        if is_sequence(image):
            footage = _footage(image, keypoints, bbox, joint_set, focal_length, smooth, fps)
            found = sequence_results.reconstruct_footage(
                self.config,
                self.variables,
                footage,
                self._steps(adapt_steps, keypoints is not None),
                progress,
            )
            return _smoothed(found, smooth)
        photo = results.read(image, keypoints, bbox, joint_set, focal_length)
        steps = self._steps(adapt_steps, keypoints is not None)
        return results.reconstruct_photo(self.config, self.variables, photo, steps)

    def adapt(self, batch: Batch, steps: int | None = None) -> Adaptation:
        """Test-time optimisation on a batch of crops (see `System.adapt`); 0 steps predict."""
        return results.adapt(self.system, self.variables, batch, self._steps(steps, True))

    def evaluate(
        self,
        steps: int | None = None,
        *,
        dataset: str | None = None,
        split: str | None = None,
        examples: int | None = None,
        workdir: PathLike | None = None,
        keep_first: bool = False,
    ) -> Evaluation:
        """Metrics before, during and after test-time optimisation.

        Args:
          steps: steps of test-time optimisation; by default the config's `tto.steps`.
          dataset, split, examples: what to measure on; by default the config's `evaluation`.
          workdir: also write `evaluation.json` there, and what `config.evaluation` asks for:
            predictions, overlays, meshes (see `evaluation.outputs`).
          keep_first: also give the predictions of the first batch (`Evaluation.first`).

        Raises:
          UserError: unknown data set or split, missing data.
        """
        data = runs.evaluation_data(self.config, dataset or "", split or "")
        source = runs.evaluation_source(
            data, self.config.evaluation.examples if examples is None else examples
        )
        keeps = results.keeps_probable(self.config)
        evaluator = Evaluator(self.system, self._steps(steps, True), Placement(), keeps=keeps)
        outputs = None
        if workdir is not None:
            outputs = outputs_of(self.config, source, data.box, Path(workdir))
        protocol = runs.data_protocol(self.config, data) | {"training_steps": self.step}
        batches = runs.evaluation_batches(self.config, data, source)
        noise = self.config.evaluation.get("keypoint_noise", 0.0)
        try:
            evidence = with_noise(batches, noise)
            evaluation = evaluator(
                self.variables, evidence, protocol, keep_first=keep_first, each=outputs
            )
        finally:
            batches.close()
        if outputs is not None:
            evaluation = dataclasses.replace(evaluation, files=outputs.finish())
        if workdir is not None and main_process():
            evaluation.save(Path(workdir))
        return evaluation

    def save(self, path: PathLike) -> Path:
        """Writes a checkpoint folder that `load` reads; never the body model's own arrays."""
        record = RunRecord(self.step, self.config.to_dict(), None, [])
        return save_variables(Path(path), self.variables, record)

    def _steps(self, steps: int | None, can_adapt: bool) -> int:
        if steps is None:
            return self.config.tto.steps if can_adapt else 0
        if steps < 0:
            raise UserError(f"steps of test-time optimisation: {steps}; it must be 0 or more")
        if steps and not can_adapt:
            raise UserError(
                f"{steps} steps of test-time optimisation need 2D keypoints; give them, or 0 steps"
            )
        return steps


def fit(
    config: Any = "metahmr", workdir: PathLike | None = None, **overrides: Any
) -> Reconstructor | pose_api.PoseReconstructor:
    """Trains, evaluates and writes the page of the run; continues a run that is already there.

    A time limit (`training.time_limit_minutes`) that is reached ends the call early, without
    evaluation; Ctrl-C saves before it interrupts. The same call then continues.

    Args:
      config: "metahmr", "metahmr:preset", the path of a config, or a ConfigDict.
      workdir: the run folder; `runs/<config>` by default.
      overrides: fields of the config: `batch_size=8`, or `tto={"steps": 3}`.

    Raises:
      UserError: wrong config, missing data, a run of other settings in `workdir`, a loss that
        is not finite.
    """
    folder = Path(default_workdir(config) if workdir is None else workdir)
    asked = load_config(config, overrides)
    if pose_runs.is_pose_run(asked):
        return pose_api.fit_lifter(asked, folder)
    resolved, system, result = runs.train_run(asked, folder)
    reconstructor = Reconstructor(resolved, system, result.variables, result.step)
    if result.stopped == "SIGINT":
        raise KeyboardInterrupt(f"saved at step {result.step}; the same call continues")
    if result.stopped == "SIGTERM":
        raise SystemExit(143)
    if result.stopped is None:
        finish(reconstructor, folder)
    return reconstructor


def finish(reconstructor: Reconstructor, workdir: PathLike) -> Evaluation:
    """The end of a training: evaluation, its table, pictures of examples, the page of the run."""
    evaluation = reconstructor.evaluate(workdir=workdir, keep_first=True)
    if main_process():
        print(evaluation.table(), flush=True)
        config, folder = reconstructor.config, Path(workdir)
        page = write_run_report(
            folder,
            config.system.name,
            results.example_samples(config, evaluation.first),
            evaluation.to_dict(),
            read_metrics(folder),
            config,
            f"python -m jaxrecon.main --config={folder}/config.json --workdir={folder}",
        )
        print(f"look at {page}", file=sys.stderr, flush=True)
    return evaluation


def load(path: PathLike, **overrides: Any) -> Reconstructor | pose_api.PoseReconstructor:
    """What a run folder (its newest checkpoint) or one checkpoint holds, ready for use.

    A PoseReconstructor where the system lifts 2D keypoints, also from a published `.bin`.

    Args:
      path: the folder.
      overrides: fields of the saved config to change: `tto={"steps": 3}`.

    Raises:
      UserError: no checkpoint there, or one that is damaged.
    """
    if pose_runs.saved_pose_run(path):
        return pose_api.load_lifter(path, overrides)
    return load_reconstructor(path, **overrides)


def load_reconstructor(path: PathLike, **overrides: Any) -> Reconstructor:
    """`load`, for systems that look at photographs."""
    variables, record = load_variables(Path(path))
    config = load_config(with_new_fields(config_from_dict(record.config)), overrides)
    system = create_system(config)
    whole = {**variables, "constants": system.constants()}
    return Reconstructor(config, system, whole, record.step)


def default_workdir(config: Any) -> Path:
    """`runs/<name>` or `runs/<name>-<preset>` for a config given by name, else `runs/run`."""
    if not isinstance(config, str | os.PathLike):
        return Path("runs/run")
    name, _, preset = str(config).partition(":")
    return Path("runs") / "-".join(part for part in (Path(name).stem, preset) if part)


def untrained(config: Any, seed: int = 0) -> Reconstructor:
    """A Reconstructor with fresh weights, to load others into."""
    resolved = load_config(config)
    system = create_system(resolved)
    height, width = resolved.system.image_size
    batch = {"image": np.zeros((1, height, width, 3), np.uint8)}
    state = create_state(system, optax.identity(), batch, seed)
    return Reconstructor(resolved, system, variables_of(state, system.constants()))


def convert(
    source: PathLike, target: PathLike, config: Any = "metahmr:resnet50", strict: bool = True
) -> str:
    """Between the authors' PyTorch checkpoints and ours; the direction follows from `source`.

    Args:
      source: a `.pt` file of the authors, or a run folder or checkpoint of ours. Where a system
        has several networks, "main=pose.pth,aux=cliff.pt" fills each from a file of its own.
      target: the checkpoint folder or the `.pt` file to write.
      config: the network of the `.pt` file; not used in the other direction.
      strict: refuse missing and unexpected names, instead of listing them.

    Returns:
      a report in words.

    Raises:
      UserError: unreadable source, weights of another network, a target that cannot be written.
    """
    if Path(source).is_dir():
        reconstructor = load_reconstructor(source)
        tree = published_format(reconstructor.config).export_checkpoint(reconstructor.variables)
        write_checkpoint(target, tree)
        return f"{source} written as {target}"
    files = _files_of_networks(str(source))
    # All files are read before any network is made: a wrong name is told at once.
    trees = {network: read_checkpoint(file, skip_unknown=True) for network, file in files.items()}
    reconstructor = untrained(config)
    variables, lines = reconstructor.variables, [f"{source} written as {target}"]
    for network, tree in trees.items():
        only = {} if network is None else {"networks": (network,)}
        variables, report = published_format(reconstructor.config).import_checkpoint(
            tree, variables, strict, **only
        )
        lines.append(str(report))
    dataclasses.replace(reconstructor, variables=variables).save(target)
    return "\n".join(lines)


def _files_of_networks(source: str) -> dict[str | None, str]:
    """Of "main=a.pth,aux=b.pt" the file of each network; of a path that path alone, under None."""
    parts = [part.partition("=") for part in source.split(",")]
    if Path(source).exists() or not all(name and equals for name, equals, _ in parts):
        return {None: source}
    return {name: file for name, _, file in parts}


def fit_photo(
    image: Any,
    keypoints: Any,
    bbox: Any = None,
    *,
    body: str = "",
    joint_set: str | None = None,
    focal_length: float | None = None,
    smooth: bool | float | int = False,
    fps: float | int | None = None,
    progress: bool = True,
) -> Reconstruction | SequenceReconstruction:
    """The body in a photograph, or in each of many frames, from its 2D keypoints alone.

    By optimisation from the mean pose, without any trained weights.

    Args:
      image, keypoints, bbox, joint_set, focal_length, smooth, fps, progress: as for
        `Reconstructor.reconstruct`.
      body: a SMPL file or folder; the open body if empty.

    Raises:
      UserError: a file or value that cannot be used.
    """
    if is_sequence(image):
        footage = _footage(image, keypoints, bbox, joint_set, focal_length, smooth, fps)
        found = sequence_results.fit_footage(footage, body or None, progress)
        return _smoothed(found, smooth)
    photo = results.read(image, keypoints, bbox, joint_set, focal_length)
    return results.fit_photo(photo, body or None)


def _footage(
    frames: Any,
    keypoints: Any,
    bbox: Any,
    joint_set: str | None,
    focal_length: float | None,
    smooth: bool | float | int,
    fps: float | int | None,
) -> Footage:
    return read_footage(
        frames,
        keypoints,
        bbox,
        joint_set=joint_set,
        focal_length=focal_length,
        fps=fps,
        follow=True if smooth else None,
    )


def _smoothed(found: SequenceReconstruction, smooth: bool | float | int) -> SequenceReconstruction:
    if smooth is False:
        return found
    return found.smoothed() if smooth is True else found.smoothed(smooth)
