"""What an evaluation leaves beside its numbers: predictions, overlays and meshes.

    PREDICTIONS.npz                  every example, in the order of the data set:
        imgname      (N,) text;  dataset (N,) text
        pred_joints  (N, 17, 3) metres, minus the pelvis, regressed from the mesh: the 14 that are
                     measured, then three more (`bodies.joints.evaluation_rows`)
        pose         (N, 72) axis-angles, the root in the camera frame;  betas (N, 10)
        camera       (N, 3) weak perspective camera (scale, x, y) of the crop
        transl       (N, 3) metres, and focal_length (N,) pixels: the camera of the whole image
        step         (N,) steps of test-time optimisation behind the state
        mpjpe, ...   (N,) the errors of that state, NaN without a label
    overlays/000020_NAME_input.jpg, _ours.jpg      some examples
    meshes/000020_NAME_ours.obj, _true.obj         the same or others, pelvis on pelvis

Source: spec of Meta-HMR, sections 6.2 and 6.3 (`--result_file`, which saves zeros for all but the
joints, `--viz` and `--save_obj`).
"""

import dataclasses
import io
import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jaxrecon.bodies import BodyModel, h36m_joints, load_body
from jaxrecon.bodies.joints import evaluation_rows
from jaxrecon.data.items import Person, canonical_name, person_from_record
from jaxrecon.errors import UserError
from jaxrecon.evaluation.protocol import Result
from jaxrecon.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from jaxrecon.io.atomic import write_bytes
from jaxrecon.io.images import write_image
from jaxrecon.reconstruction import Camera, Instance, Reconstruction
from jaxrecon.systems.base import Batch
from jaxrecon.training.parallel import join_hosts, main_process

OVERLAYS, MESHES = "overlays", "meshes"
_GENDERS = {0: "male", 1: "female", 2: "neutral"}


@dataclasses.dataclass(frozen=True)
class OutputSettings:
    """What to write (fields of `config.evaluation`).

    Attributes:
      predictions: an `.npz` in the run folder; "" writes none.
      overlay_every: every so many examples one is drawn; 0 draws none. The published `--viz`
        draws the first of each batch: `evaluation.batch_size`.
      mesh_every: the same for meshes, of the prediction and of the label.
    """

    predictions: str = ""
    overlay_every: int = 0
    mesh_every: int = 0

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.predictions or self.overlay_every or self.mesh_every)

    @classmethod
    def from_config(cls, config: Any) -> "OutputSettings":
        """Those of a resolved config.

        Raises:
          UserError: a file that is no `.npz`, a negative number.
        """
        group = config.evaluation
        fields = {f.name: group.get(f.name, f.default) for f in dataclasses.fields(cls)}
        settings = cls(**fields)
        if settings.predictions and not settings.predictions.endswith(".npz"):
            raise UserError(f"evaluation.predictions={settings.predictions!r} must end in .npz")
        for name in ("overlay_every", "mesh_every"):
            if fields[name] < 0:
                raise UserError(f"evaluation.{name}={fields[name]}; it must be 0 or more")
        return settings


def outputs_of(config: Any, source: Any, box: str, folder: Path) -> "Outputs | None":
    """The `Outputs` of an evaluation, or None where its config asks for none."""
    settings = OutputSettings.from_config(config)
    return Outputs(settings, config, source, box, folder) if settings else None


class Outputs:
    """Takes the results of an `Evaluator` batch by batch, and writes what is asked for.

    Args:
      settings: what that is.
      config: resolved.
      source: the records that are evaluated, by the `index` of the batches.
      box: how their boxes were found (`DataConfig.box`).
      folder: the run folder.
    """

    def __init__(
        self, settings: OutputSettings, config: Any, source: Any, box: str, folder: Path
    ) -> None:
        self._settings, self._config = settings, config
        self._source, self._box, self._folder = source, box, folder
        self._path = config.body.path or None
        self._body = load_body(self._path)
        self._unknown = config.system.get("unknown_gender", "male")
        self._rows: list[dict[str, np.ndarray]] = []

    def __call__(self, batch: Batch, result: Result) -> None:
        """One batch: keeps its predictions, writes its pictures and meshes."""
        index, valid = np.asarray(batch["index"]), np.asarray(batch["valid"])
        if self._settings.predictions:
            self._rows.append({"index": index, "valid": valid, **self._arrays(result)})
        for place in np.flatnonzero(valid).tolist():
            number = int(index[place])
            drawn, meshed = (
                every > 0 and number % every == 0
                for every in (self._settings.overlay_every, self._settings.mesh_every)
            )
            if not (drawn or meshed):
                continue
            person = person_from_record(self._source[number], self._box)
            found = _reconstruction(self._config, self._body, person, result.prediction, place)
            stem = f"{number:06d}_{_stem(person.imgname)}"
            if drawn:
                folder, evidence = self._folder / OVERLAYS, found.draw_evidence(person.image)
                write_image(folder / f"{stem}_input.jpg", evidence)
                write_image(folder / f"{stem}_ours.jpg", found.overlay())
            if meshed:
                found.save(self._folder / MESHES / f"{stem}_ours.obj")
                if person.has_smpl:
                    true = self._label(person, found)
                    true.save(self._folder / MESHES / f"{stem}_true.obj")

    def finish(self) -> list[Path]:
        """Writes the predictions of all hosts; returns the files and folders there are."""
        written = []
        if self._settings.predictions:
            path = self._folder / self._settings.predictions
            rows = {name: np.concatenate([r[name] for r in self._rows]) for name in self._rows[0]}
            rows = join_hosts(rows)
            if main_process():
                self._write(path, rows)
                written.append(path)
        for name, every in (
            (OVERLAYS, self._settings.overlay_every),
            (MESHES, self._settings.mesh_every),
        ):
            if every:
                written.append(self._folder / name)
        return written

    def _arrays(self, result: Result) -> dict[str, np.ndarray]:
        prediction = result.prediction
        joints = np.asarray(h36m_joints(self._body, prediction.vertices))
        pose = np.asarray(matrix_to_axis_angle(prediction.rotmats))
        arrays = {
            "pred_joints": joints[:, evaluation_rows()] - joints[:, :1],
            "pose": pose.reshape(len(pose), -1),
            "betas": prediction.betas,
            "camera": prediction.cam,
            "transl": prediction.transl,
            "focal_length": prediction.focal_length,
            **result.metrics,
        }
        arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
        return {**arrays, "step": np.asarray(result.steps, np.int32)}

    def _write(self, path: Path, rows: dict[str, np.ndarray]) -> None:
        order = np.argsort(rows["index"], kind="stable")
        order = order[rows.pop("valid")[order]]
        rows = {name: value[order] for name, value in rows.items()}
        records = [self._source[int(number)] for number in rows.pop("index")]
        words = {
            "imgname": np.array([_text(record["imgname"]) for record in records]),
            "dataset": np.array([canonical_name(_text(record["dataset"])) for record in records]),
        }
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **words, **rows)
        write_bytes(path, stream.getvalue())

    def _label(self, person: Person, found: Reconstruction) -> Reconstruction:
        """The labelled mesh of the labelled gender, its pelvis where that of the prediction is."""
        gender = _GENDERS.get(person.gender, self._unknown)
        body = load_body(self._path, gender)  # type: ignore[arg-type]
        rotmats = np.asarray(axis_angle_to_matrix(person.pose.reshape(24, 3)))
        true = Instance.of_body(body, person.betas, rotmats, np.zeros(3, np.float32), gender=gender)
        wanted, have = (
            np.asarray(h36m_joints(body, mesh.vertices))[0] for mesh in (found.instances[0], true)
        )
        moved = Instance.of_body(body, person.betas, rotmats, wanted - have, gender=gender)
        return dataclasses.replace(found, instances=[moved], body=body)


def overlays(
    config: Any, source: Any, box: str, batch: Batch, result: Result, count: int = 4
) -> dict[str, np.ndarray]:
    """Pictures of the first examples of a batch with their bodies over them, by name."""
    body = load_body(config.body.path or None)
    numbers = np.asarray(batch["index"])[np.asarray(batch["valid"])][:count]
    people = [person_from_record(source[int(number)], box) for number in numbers]
    return {
        f"overlay_{place}": _reconstruction(
            config, body, person, result.prediction, place
        ).overlay()
        for place, person in enumerate(people)
    }


def _reconstruction(
    config: Any, body: BodyModel, person: Person, prediction: Any, place: int
) -> Reconstruction:
    """The prediction for one person, with the keypoints that it was adapted to."""
    half, joint_set = (slice(25, None), "gt24")
    if config.tto.openpose:
        half, joint_set = (slice(25), "openpose25")
    keypoints = np.asarray(person.keypoints2d[half], np.float32)
    seen = bool((keypoints[:, 2] > 0).any())
    instance = Instance.of_body(
        body,
        prediction.betas[place],
        prediction.rotmats[place],
        prediction.transl[place],
        keypoints2d=keypoints if seen else None,
        keypoint_set=joint_set if seen else None,
    )
    height, width = person.image.shape[:2]
    focal = float(prediction.focal_length[place])
    camera = Camera(focal, (width / 2, height / 2), (height, width))
    return Reconstruction([instance], camera, person.image, config.system.name, body)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _stem(name: str) -> str:
    """The last two parts of an image's path as one word that any file system takes."""
    path = PurePosixPath(name)
    return re.sub(r"[^\w.-]", "_", "-".join([*path.parts[-2:-1], path.stem]))
