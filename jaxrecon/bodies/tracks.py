"""One body over the frames of a video: gaps filled, jitter taken out.

Rotations are smoothed as matrices, entry by entry, and brought back to the nearest rotation: the
weighted chordal mean, which knows no wrap-around of angles and no two signs of quaternions. The
translation is smoothed as what a camera sees (direction and log depth), because the error of one
picture lies almost wholly in the depth.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation

from jaxrecon.bodies.model import BodyModel, forward_kinematics
from jaxrecon.errors import UserError
from jaxrecon.geometry.procrustes import orthogonal_procrustes_rotation

WINDOW = 0.3  # seconds that the filter spans; a walker's step takes half a second
_DEGREE = 2  # of the polynomial, which keeps the peaks of a swing
_LEAST = 5  # frames that the filter spans at least


@dataclasses.dataclass(frozen=True)
class Track:
    """A body in T frames, camera frame.

    Attributes:
      frames: (T,) their numbers, increasing.
      rotmats: (T, J, 3, 3), the root's in the camera frame, the others relative to their parents.
      betas: (T, B) shape.
      transl: (T, 3) metres, in front of the camera.
      observed: (T,) False where a frame was filled in.
    """

    frames: Int[np.ndarray, "t"]
    rotmats: Float[np.ndarray, "t j 3 3"]
    betas: Float[np.ndarray, "t b"]
    transl: Float[np.ndarray, "t 3"]
    observed: Bool[np.ndarray, "t"]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def poses(self) -> Float[np.ndarray, "t p"]:
        """(T, 3 J) axis-angle, radians."""
        count, joints = self.rotmats.shape[:2]
        vectors = Rotation.from_matrix(self.rotmats.reshape(-1, 3, 3)).as_rotvec()
        return vectors.reshape(count, 3 * joints).astype(np.float32)


def fill_gaps(track: Track) -> Track:
    """The track with every frame between its first and its last.

    Rotations turn evenly between their neighbours in time (slerp), all else changes linearly.
    """
    frames = np.arange(track.frames[0], track.frames[-1] + 1)
    after = np.searchsorted(track.frames, frames)
    before = np.where(track.frames[after] == frames, after, after - 1)
    span = np.maximum(track.frames[after] - track.frames[before], 1)
    share = ((frames - track.frames[before]) / span).astype(np.float32)

    def between(values: np.ndarray) -> np.ndarray:
        first, last = values[before], values[after]
        return (first + share[:, None] * (last - first)).astype(np.float32)

    joints = track.rotmats.shape[1]
    first, last = (
        Rotation.from_matrix(track.rotmats[index].reshape(-1, 3, 3)) for index in (before, after)
    )
    turn = (first.inv() * last).as_rotvec() * np.repeat(share, joints)[:, None]
    rotmats = (first * Rotation.from_rotvec(turn)).as_matrix().reshape(len(frames), joints, 3, 3)
    known = before == after
    return Track(
        frames=frames,
        rotmats=np.where(known[:, None, None, None], track.rotmats[before], rotmats).astype(
            np.float32
        ),
        betas=between(track.betas),
        transl=between(track.transl),
        observed=np.where(known, track.observed[before], False),
    )


def shared_shape(track: Track) -> Float[np.ndarray, "b"]:
    """One shape for all frames: the median over those where the body was seen."""
    seen = track.betas[track.observed] if track.observed.any() else track.betas
    return np.median(seen, axis=0).astype(np.float32)


def share_shape(track: Track, body: BodyModel) -> Track:
    """The track with one shape, placed anew so that it covers the same place in the picture."""
    betas = np.tile(shared_shape(track), (len(track), 1))
    seen = joint_places(body, track.betas, track.rotmats) + track.transl[:, None]
    transl = _same_place(seen, joint_places(body, betas, track.rotmats), track.transl)
    return dataclasses.replace(track, betas=betas, transl=transl.astype(np.float32))


def smooth_track(
    track: Track, body: BodyModel, fps: float | int, seconds: float | int = WINDOW
) -> Track:
    """A track without gaps and jitter, of one shape.

    The filter is Savitzky and Golay's (a parabola through `seconds` of frames around each one).
    Before the translation is smoothed it is set anew, so that the smooth body covers the same
    place in the picture as the one it replaces.

    Args:
      body: the model that the track is of.
      fps: frames a second.
      seconds: what the filter spans; fewer than five frames are not smoothed.

    Raises:
      UserError: a span that is not positive.
    """
    if not (np.isfinite(seconds) and seconds > 0):
        raise UserError(f"smoothing over {seconds} seconds is impossible; give a number above 0")
    track = fill_gaps(track)
    betas = np.tile(shared_shape(track), (len(track), 1))
    before = joint_places(body, track.betas, track.rotmats)
    rotmats = track.rotmats
    span = min(max(_LEAST, round(seconds * fps)), len(track))
    span -= 1 - span % 2  # odd
    if span >= _LEAST:
        mean = savgol_filter(rotmats, span, _DEGREE, axis=0, mode="interp")
        rotmats = np.asarray(orthogonal_procrustes_rotation(mean.astype(np.float32)))
    transl = _same_place(
        before + track.transl[:, None], joint_places(body, betas, rotmats), track.transl
    )
    if span >= _LEAST:
        seen = np.concatenate([transl[:, :2] / transl[:, 2:], np.log(transl[:, 2:])], -1)
        seen = savgol_filter(seen, span, _DEGREE, axis=0, mode="interp")
        depth = np.exp(seen[:, 2:])
        transl = np.concatenate([seen[:, :2] * depth, depth], -1)
    return dataclasses.replace(
        track, rotmats=rotmats.astype(np.float32), betas=betas, transl=transl.astype(np.float32)
    )


def joint_places(
    body: BodyModel, betas: Float[np.ndarray, "t b"], rotmats: Float[np.ndarray, "t j 3 3"]
) -> Float[np.ndarray, "t j 3"]:
    """The posed joints of the skeleton, metres, without translation."""
    count = betas.shape[-1]
    shapedirs = np.asarray(body.J_shapedirs)[..., :count]
    rest = np.asarray(body.J_template) + np.einsum("jcs,ts->tjc", shapedirs, betas)
    _, places = forward_kinematics(rotmats, rest.astype(np.float32), body.parents)
    return np.asarray(places)


def _same_place(seen: np.ndarray, joints: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The translations (T, 3) under which `joints` project closest to where `seen` (T, J, 3) do.

    With a = x / z of a seen joint, (X + tx) = a (Z + tz) is linear in the translation, and
    likewise in y: two equations for each joint.
    """
    depth = seen[..., 2]
    usable = (depth > 0.05).astype(np.float64)
    slope = seen[..., :2] / np.where(depth > 0.05, depth, 1.0)[..., None]
    ones, zeros = np.ones_like(depth), np.zeros_like(depth)
    rows = np.stack(
        [
            np.stack([ones, zeros, -slope[..., 0]], -1),
            np.stack([zeros, ones, -slope[..., 1]], -1),
        ],
        -2,
    )  # (T, J, 2, 3)
    values = slope * joints[..., 2:] - joints[..., :2]
    weighted = rows * usable[..., None, None]
    normal = np.einsum("tjri,tjrk->tik", weighted, rows)
    right = np.einsum("tjri,tjr->ti", weighted, values)
    found = np.linalg.solve(normal + 1e-9 * np.eye(3), right[..., None])[..., 0]
    good = np.isfinite(found).all(-1) & (found[:, 2] > 0.05)
    return np.where(good[:, None], found, otherwise)
