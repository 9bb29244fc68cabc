"""Fits to the 2D keypoints of real photographs, scored against their measured 3D joints.

    python -m jaxrecon.evaluation.photos DIR [--body=FILE]

DIR holds `h36m/annotations.npz` and `mpi_inf_3dhp/{train,test}.npz` (those there are), each with
`image`, `K` (3, 3) pixels, `keypoints2d` (17, 3) pixels and visibility, `joints3d` (17, 4) metres
in the camera frame and validity, one frame or several. Nothing is trained: the body is fitted by
`optimization.smplify` from the mean pose, with the photograph's own camera.

Protocol: PA-MPJPE in millimetres after the best similarity of each frame. The headline takes the
12 joints of the limbs (ankles, knees, hips, wrists, elbows, shoulders), whose meaning the data
sets and the body share; all 17 of a data set are given beside. The body's regressors for the
trunk and head are not calibrated on these data sets (see the open body's limits).
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrecon.bodies.joints import joint_names
from jaxrecon.bodies.load import load_body
from jaxrecon.bodies.model import BodyModel
from jaxrecon.errors import UserError
from jaxrecon.geometry.metrics import pa_mpjpe
from jaxrecon.optimization.fit_energy import FitSettings
from jaxrecon.optimization.smplify import fit_keypoints

# Annotation file -> joint set of its 17 joints.
FILES = {
    "h36m/annotations.npz": "h36m17",
    "mpi_inf_3dhp/train.npz": "mpi_inf_3dhp17",
    "mpi_inf_3dhp/test.npz": "mpi_inf_3dhp17",
}
LIMB_JOINTS = tuple(
    f"{side}_{joint}"
    for joint in ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")
    for side in "lr"
)


@dataclasses.dataclass(frozen=True)
class Frame:
    """An annotated photograph: `intrinsics` (3, 3) pixels, `keypoints2d` (J, 3) pixels and
    visibility, `joints3d` (J, 4) metres in the camera frame and validity."""

    name: str
    joint_set: str
    intrinsics: np.ndarray
    keypoints2d: np.ndarray
    joints3d: np.ndarray


@dataclasses.dataclass(frozen=True)
class Score:
    """Errors of one fit: PA-MPJPE in mm over the limbs and over all joints of the set; mean 2D
    error over visible keypoints in pixels, and as a share of the longer side of their box."""

    name: str
    joint_set: str
    limbs_mm: float
    all_mm: float
    pixels: float
    fraction: float


def read_frames(folder: str | Path) -> list[Frame]:
    """Frames of every known annotation file in a folder.

    Raises:
        UserError: the folder is missing or holds none of `FILES`; a file is damaged or lacks a
            field.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the one that holds {', '.join(FILES)}")
    there = {file: joint_set for file, joint_set in FILES.items() if (folder / file).is_file()}
    if not there:
        raise UserError(f"{folder} holds none of {', '.join(FILES)}")
    return [frame for file, name in there.items() for frame in _read(folder / file, name)]


def _read(file: Path, joint_set: str) -> list[Frame]:
    count = len(joint_names(joint_set))
    try:
        with np.load(file, allow_pickle=False) as arrays:
            names = np.atleast_1d(arrays["image"])
            cameras = arrays["K"].reshape(len(names), 3, 3)
            keypoints = arrays["keypoints2d"].reshape(len(names), count, 3)
            joints = arrays["joints3d"].reshape(len(names), count, 4)
    except KeyError as error:
        raise UserError(f"{file} lacks a field: {error.args[0]}") from error
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{file} cannot be read as annotations: {error}") from error
    return [
        Frame(str(name), joint_set, camera, points, truth)
        for name, camera, points, truth in zip(names, cameras, keypoints, joints, strict=True)
    ]


def score_frames(
    body: BodyModel, frames: Sequence[Frame], settings: FitSettings | None = None
) -> list[Score]:
    """Fits every frame from its keypoints and scores it, in the order given."""
    scores: dict[int, Score] = {}
    for joint_set in dict.fromkeys(frame.joint_set for frame in frames):
        chosen = [i for i, frame in enumerate(frames) if frame.joint_set == joint_set]
        group = [frames[i] for i in chosen]
        intrinsics = np.stack([frame.intrinsics for frame in group])
        keypoints = np.stack([_square(frame) for frame in group]).astype(np.float32)
        fitted = fit_keypoints(
            body, keypoints, intrinsics[:, 0, 0], intrinsics[:, :2, 2], joint_set, settings=settings
        )
        for i, frame, joints, error in zip(chosen, group, fitted.joints, fitted.error, strict=True):
            scores[i] = _score(frame, np.asarray(joints), np.asarray(error))
    return [scores[i] for i in range(len(frames))]


def _square(frame: Frame) -> np.ndarray:
    """Keypoints as a camera of the same horizontal focal length in both directions sees them."""
    points = frame.keypoints2d.copy()
    center, k = frame.intrinsics[1, 2], frame.intrinsics
    points[:, 1] = center + (points[:, 1] - center) * k[0, 0] / k[1, 1]
    return points


def _score(frame: Frame, joints: np.ndarray, error: np.ndarray) -> Score:
    valid = (frame.joints3d[:, 3] > 0) & np.isfinite(joints).all(-1)
    limbs = np.isin(joint_names(frame.joint_set), LIMB_JOINTS)

    def aligned(mask: np.ndarray) -> float:
        truth = frame.joints3d[mask, :3].astype(np.float32)
        return 1000 * float(pa_mpjpe(joints[mask].astype(np.float32), truth))

    seen = frame.keypoints2d[:, 2] > 0
    side = np.ptp(frame.keypoints2d[seen, :2], axis=0).max()
    pixels = float(error[seen].mean())
    return Score(
        name=frame.name,
        joint_set=frame.joint_set,
        limbs_mm=aligned(valid & limbs),
        all_mm=aligned(valid),
        pixels=pixels,
        fraction=pixels / float(side),
    )


def table(scores: Sequence[Score]) -> str:
    """The scores as text, one frame a line, the mean last."""
    width = max(len(score.name) for score in scores)
    head = f"{'frame':{width}}  {'joint set':14}  limbs 12   all 17       2D"
    lines = [
        f"{s.name:{width}}  {s.joint_set:14}  {s.limbs_mm:5.1f} mm  {s.all_mm:5.1f} mm"
        f"  {s.pixels:5.1f} px ({100 * s.fraction:.1f} % of the box)"
        for s in scores
    ]
    limbs, everything = (np.mean([getattr(s, f) for s in scores]) for f in ("limbs_mm", "all_mm"))
    mean = f"{'mean PA-MPJPE':{width}}  {'':14}  {limbs:5.1f} mm  {everything:5.1f} mm"
    return "\n".join([head, *lines, mean])


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; exit status 2 and one line for a mistake in the input."""
    parser = argparse.ArgumentParser(prog="python -m jaxrecon.evaluation.photos", description="")
    parser.add_argument("folder", help="the folder of the annotated photographs")
    parser.add_argument("--body", default=None, help="an SMPL file (default: the open body)")
    options = parser.parse_args(argv)
    try:
        body = load_body(options.body)
        scores = score_frames(body, read_frames(options.folder))
    except UserError as error:
        print(f"jaxrecon: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(
        "protocol: fit to the annotated 2D keypoints alone, true camera, "
        f"body {body.name}; PA-MPJPE over ankles, knees, hips, wrists, elbows, shoulders "
        "and over all joints of the set"
    )
    print(table(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
