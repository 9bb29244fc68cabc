"""Files of a `Reconstruction`: what each suffix holds, and how the .npz is laid out.

The .npz of bodies carries AMASS's keys (`poses`, `trans`, `betas`, `gender`,
`mocap_frame_rate`), so that its readers take the file, beside our own:

    format, system, focal, center, image_size, image_png, instances
    0/vertices, 0/faces, 0/joints, 0/joint_set, 0/keypoints2d, 0/parameters/betas, ...

AMASS has one body and many frames; here the frames are the people of one image. Poses are in
the camera frame (y down).
"""

import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrecon.bodies.joints import JOINT_SETS
from jaxrecon.errors import UserError
from jaxrecon.io.animated_glb import body_rig, write_skinned_glb
from jaxrecon.io.atomic import write_bytes, write_text
from jaxrecon.io.files import existing_file
from jaxrecon.io.images import decode_image, encode_image, write_image
from jaxrecon.io.meshes import write_mesh
from jaxrecon.report.curves import Chart, Series
from jaxrecon.report.page import RunPage, Sample

if TYPE_CHECKING:
    from jaxrecon.reconstruction import Reconstruction

FORMAT = "jaxrecon.reconstruction.1"
SUFFIXES = (".glb", ".obj", ".ply", ".npz", ".png", ".jpg", ".webp", ".html")
_OPTIONAL = ("joints", "keypoints2d", "bbox")
_WORDS = ("joint_set", "keypoint_set", "gender")
_PLURAL = {"body": "bodies", "mesh": "meshes"}
_DRAWN = {"loss": ("Loss", "loss"), "keypoint_error": ("2D error", "pixels")}
_STILL_RATE = 30.0  # frames a second; means nothing for one image, but AMASS's readers need it


@dataclass(frozen=True)
class Content:
    """What an .npz says, as the arguments of the public classes."""

    instances: list[dict[str, Any]]
    camera: dict[str, Any]
    image: np.ndarray | None
    system: str


def save(result: "Reconstruction", path: Path) -> None:
    """Write by suffix; see `Reconstruction.save`."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"cannot save a reconstruction as {path.name!r}: the name must end in "
            f"{', '.join(SUFFIXES)}"
        )
    if suffix == ".npz":
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **_arrays(result))
        write_bytes(path, stream.getvalue())
    elif suffix == ".html":
        write_text(path, result.page())
    elif suffix in (".glb", ".obj", ".ply"):
        _write_mesh(result, path)
    else:
        write_image(path, result.overlay())


def read(path: str | os.PathLike[str]) -> Content:
    """The content of an .npz; see `Reconstruction.load`."""
    file = existing_file(path, "reconstruction")
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not an .npz, or it is damaged; save it again") from error
    if str(arrays.get("format", "")) != FORMAT:
        raise UserError(
            f"{file} is no reconstruction of this version (format {FORMAT!r} expected); "
            "write it with Reconstruction.save"
        )
    try:
        image = arrays.get("image_png")
        return Content(
            instances=[_instance(arrays, f"{i}/") for i in range(int(arrays["instances"]))],
            camera={
                "focal": float(arrays["focal"]),
                "center": tuple(arrays["center"].tolist()),
                "image_size": tuple(arrays["image_size"].tolist()),
            },
            image=None if image is None else decode_image(image.tobytes(), f"in {file}"),
            system=str(arrays["system"]),
        )
    except KeyError as error:
        raise UserError(f"{file} lacks the array {error.args[0]!r}; save it again") from error


def _arrays(result: "Reconstruction") -> dict[str, Any]:
    camera = result.camera
    arrays: dict[str, Any] = {
        "format": FORMAT,
        "system": result.system,
        "focal": camera.focal,
        "center": camera.center,
        "image_size": camera.image_size,
        "instances": len(result.instances),
        **_amass(result),
    }
    if result.image is not None:
        arrays["image_png"] = np.frombuffer(encode_image(result.image, ".png"), np.uint8)
    for i, instance in enumerate(result.instances):
        for name in ("vertices", "faces", *_OPTIONAL, *_WORDS):
            value = getattr(instance, name)
            if value is not None:
                arrays[f"{i}/{name}"] = value
        for group in ("parameters", "history"):
            for name, value in getattr(instance, group).items():
                arrays[f"{i}/{group}/{name}"] = value
    return arrays


def _instance(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    fields: dict[str, Any] = {name: arrays[prefix + name] for name in ("vertices", "faces")}
    fields.update((name, arrays.get(prefix + name)) for name in _OPTIONAL)
    for name in _WORDS:
        if prefix + name in arrays:
            fields[name] = str(arrays[prefix + name])
    for group in ("parameters", "history"):
        start = f"{prefix}{group}/"
        fields[group] = {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}
    return fields


def _amass(result: "Reconstruction") -> dict[str, Any]:
    """AMASS's keys, where every instance is a body of the SMPL family."""
    needed = {"betas", "global_orient", "body_pose", "transl"}
    people = [i.parameters for i in result.instances]
    if not people or not all(needed <= set(p) for p in people):
        return {}
    poses = [np.concatenate([p["global_orient"], p["body_pose"]]) for p in people]
    if len({len(pose) for pose in poses}) > 1:
        return {}
    betas = np.stack([p["betas"] for p in people])
    return {
        "poses": np.stack(poses),
        "trans": np.stack([p["transl"] for p in people]),
        "betas": betas[0] if len(people) == 1 else betas,
        "gender": result.instances[0].gender,
        "mocap_frame_rate": _STILL_RATE,
    }


def _write_mesh(result: "Reconstruction", path: Path) -> None:
    single = result.instances[0] if len(result.instances) == 1 else None
    skeleton = JOINT_SETS["smpl24"]
    if (
        path.suffix.lower() == ".glb"
        and single is not None
        and result.body is not None
        and len(result.body.parents) == len(skeleton)
        and {"betas", "rotmats", "transl"} <= set(single.parameters)
    ):
        parameters = single.parameters
        write_skinned_glb(
            path,
            body_rig(result.body, parameters["betas"], skeleton),
            parameters["rotmats"][None],
            parameters["transl"][None],
        )
        return
    vertices, faces, colours = result.merged()
    write_mesh(path, vertices, faces, colours)


def page_of(result: "Reconstruction", title: str) -> RunPage:
    """What the .html of a reconstruction shows."""
    height, width = result.camera.image_size
    count, noun = len(result.instances), result.noun
    facts = {
        "found": f"{count} {noun if count == 1 else _PLURAL[noun]}",
        "image": f"{width} x {height} px",
        "focal length": f"{result.camera.focal:.0f} px",
    }
    error = result.keypoint_error()
    if error.joints:
        facts["2D error"] = (
            f"{error.pixels:.1f} px over {error.joints} joints, "
            f"{100 * error.fraction:.1f} % of the box"
        )
    pictures: dict[str, np.ndarray] = {}
    if result.image is not None:
        pictures["input"] = result.closeup(result.draw_evidence(result.image))
    if count:
        pictures["overlay"] = result.closeup(result.overlay())
        pictures["side view"] = result.side_view(image_size=pictures["overlay"].shape[:2])
    return RunPage(
        title=title,
        subtitle=f"by {result.system}" if result.system else "",
        facts=facts,
        samples=[Sample("Pictures", pictures)] if pictures else [],
        scene=result.scene() if count else None,
        adaptation_charts=_history_charts(result),
    )


def _history_charts(result: "Reconstruction") -> list[Chart]:
    charts = []
    for name, (label, unit) in _DRAWN.items():
        lines = [
            Series(f"{result.noun} {i + 1}", range(len(trail)), trail.tolist())
            for i, instance in enumerate(result.instances)
            if (trail := np.asarray(instance.history.get(name, 0.0))).ndim == 1 and len(trail) > 1
        ]
        if lines:
            charts.append(Chart(label, lines, "step", unit))
    return charts
