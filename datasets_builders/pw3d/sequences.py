"""3DPW's sequence files as annotations: labels of the SMPL bodies in each camera frame.

2D joints are those of the labelled body, projected ("w2d" in the names of the published
archives), 3D joints its own ("smpl3d"). Source: spec of Meta-HMR, section 7.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxrecon.datasets_builders.people.annotations import Annotations, checked
from jaxrecon.datasets_builders.people.joints import with_confidence

from jaxrecon.bodies import joints49_forward, joints49_model, load_body
from jaxrecon.bodies.joints import JOINT_SETS, convert_keypoints
from jaxrecon.errors import UserError
from jaxrecon.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from jaxrecon.io.pickles import read_pickle

_KEYS = ("poses", "betas", "trans", "cam_poses", "cam_intrinsics", "genders", "campose_valid")
_GENDERS = {"m": "male", "f": "female"}
_CHUNK = 512  # bodies at a time
_FIRST_GT24 = len(JOINT_SETS["openpose25"])
_PELVIS = JOINT_SETS["gt24"].index("pelvis")


def read_sequences(root: Path, files: tuple[Path, ...]) -> Annotations:
    """All frames with a valid camera of the sequences in the folder of the first file.

    Sequences by name, in each its people one after the other. The SMPL files of men and women are
    those of the second file's folder.

    Raises:
      UserError: a file is damaged or lacks a field; no SMPL files.
    """
    folder = files[0].parent
    joints = {gender: _joints(files[1].parent, name) for gender, name in _GENDERS.items()}
    columns: dict[str, list[np.ndarray]] = {}
    for file in sorted(folder.glob("*.pkl")):
        for person in _people(file):
            for name, values in _labels(person, joints[person["gender"]]).items():
                columns.setdefault(name, []).append(values)
    if not columns:
        raise UserError(f"the sequences in {folder} have no frame with a valid camera")
    fields = {name: np.concatenate(values) for name, values in columns.items()}
    return checked(fields, str(folder / "*.pkl"), ("pose", "shape", "S", "gender"))


def _people(file: Path) -> Iterator[dict[str, Any]]:
    """Each person of a sequence: the frames whose camera is valid."""
    sequence = read_pickle(file, "3DPW sequence", "unpack sequenceFiles.zip again")
    missing = [key for key in _KEYS if not isinstance(sequence, dict) or key not in sequence]
    if missing:
        raise UserError(
            f"{file} has no {', '.join(missing)}; is it a sequence of 3DPW's sequenceFiles.zip?"
        )
    extrinsics = np.asarray(sequence["cam_poses"], np.float64)
    intrinsics = np.asarray(sequence["cam_intrinsics"], np.float64)
    if extrinsics.ndim != 3 or extrinsics.shape[1:] != (4, 4) or intrinsics.shape != (3, 3):
        raise UserError(
            f"{file}: cam_poses {extrinsics.shape} and cam_intrinsics {intrinsics.shape} are not "
            "(frames, 4, 4) and (3, 3)"
        )
    frames = len(extrinsics)
    for number, gender in enumerate(sequence["genders"]):
        if gender not in _GENDERS:
            raise UserError(f"{file}: gender {gender!r} of person {number} is not 'm' or 'f'")

        def of_person(key: str, *shape: int, number: int = number) -> np.ndarray:
            try:
                return np.asarray(sequence[key][number], np.float64).reshape(frames, *shape)
            except (IndexError, ValueError, TypeError) as error:
                raise UserError(
                    f"{file}: {key} of person {number} is not ({frames}, ...), one row for each "
                    f"frame ({error}); get it again"
                ) from error

        valid = np.flatnonzero(of_person("campose_valid") > 0)
        if not len(valid):
            continue
        detected = np.zeros((frames, 18, 3))
        if "poses2d" in sequence:
            detected = of_person("poses2d", 3, 18).transpose(0, 2, 1)
        betas = np.ravel(np.asarray(sequence["betas"][number], np.float64))[:10]
        yield {
            "names": [f"imageFiles/{file.stem}/image_{i:05d}.jpg" for i in valid],
            "gender": gender,
            "pose": of_person("poses", 72)[valid],
            "betas": np.broadcast_to(betas, (len(valid), 10)),
            "trans": of_person("trans", 3)[valid],
            "extrinsics": extrinsics[valid],
            "intrinsics": intrinsics,
            "detected": detected[valid],
        }


def _labels(
    person: dict[str, Any], joints: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The fields of one person's frames, in the frame of the camera."""
    rotation, shift = person["extrinsics"][:, :3, :3], person["extrinsics"][:, :3, 3]
    intrinsics, pose = person["intrinsics"], person["pose"].copy()
    root = np.asarray(axis_angle_to_matrix(jnp.asarray(pose[:, :3], jnp.float32)), np.float64)
    turned = jnp.asarray(rotation @ root, jnp.float32)
    pose[:, :3] = np.asarray(matrix_to_axis_angle(turned))
    placed, origin = joints(pose, person["betas"])
    # SMPL turns about its own root joint, not about the origin.
    transl = np.einsum("nij,nj->ni", rotation, origin + person["trans"]) + shift - origin
    points = placed + transl[:, None]
    pixels = points @ intrinsics.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    low, high = pixels.min(1), pixels.max(1)
    detected = person["detected"]
    detected = np.where(detected[..., 2:] > 0, detected, 0)
    count = len(points)
    return {
        "imgname": np.array(person["names"]),
        "part": with_confidence(pixels),
        "openpose": convert_keypoints(detected, "coco18", "openpose25"),
        "pose": pose,
        "shape": person["betas"],
        "S": with_confidence(placed - placed[:, [_PELVIS]]),
        "gender": np.full(count, person["gender"]),
        "focal_length": np.full(count, intrinsics[0, 0]),
        "transl": transl,
        "center": (low + high) / 2,
        "scale": 1.2 * (high - low).max(1) / 200,
    }


def _joints(folder: Path, gender: str) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """pose (N, 72), betas (N, 10) -> gt24 joints (N, 24, 3) and root joint at rest (N, 3)."""
    body = load_body(folder, gender)
    model = joints49_model(body)

    @jax.jit
    def forward(pose: jax.Array, betas: jax.Array) -> tuple[jax.Array, jax.Array]:
        rotmats = axis_angle_to_matrix(pose.reshape(-1, 24, 3))
        origin = body.J_template[0] + jnp.einsum("nb,cb->nc", betas, body.J_shapedirs[0])
        return joints49_forward(model, betas, rotmats)[:, _FIRST_GT24:], origin

    def run(pose: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for start in range(0, len(pose), _CHUNK):
            part = slice(start, start + _CHUNK)
            count = len(pose[part])
            padded = [
                np.pad(a[part], ((0, _CHUNK - count), (0, 0))).astype(np.float32)
                for a in (pose, betas)
            ]
            found.append([np.asarray(a, np.float64)[:count] for a in forward(*padded)])
        joints, origin = (np.concatenate(parts) for parts in zip(*found))
        return joints, origin

    return run
