"""From MakeHuman's stance to the rest pose of SMPL: a T pose (design, section 4)."""

from collections.abc import Callable

import numpy as np

from jaxrecon.bodies.open_body.generate.source import Source

_TOE_SPREAD = (-2.0, 0.0, 1.5, 3.0, 5.0)  # degrees: else toes 4 and 5 cut each other
_SIDES = ((1.0, "L"), (-1.0, "R"))


class TPose:
    """The T pose of any shape: rotations of the bones, then linear blend skinning.

    Args:
      source: the rig.
      flatten: how much of the vertical part of each finger bone is taken away, 0..1.
    """

    def __init__(self, source: Source, flatten: float):
        self.source, self.flatten = source, flatten

    def bone_ends(self, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heads and tails (N, bones, 3) of shapes (N, 19158, 3) in MakeHuman's stance."""
        heads = np.stack([shapes[:, ids].mean(1) for ids in self.source.heads], 1)
        tails = np.stack([shapes[:, ids].mean(1) for ids in self.source.tails], 1)
        return heads.astype(np.float64), tails.astype(np.float64)

    def __call__(
        self, shapes: np.ndarray, keep: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pose shapes.

        Args:
          shapes: (N, 19158, 3) in MakeHuman's stance.
          keep: (V,) the vertices wanted.
          weights: (V, bones) their skinning weights.

        Returns:
          vertices (N, V, 3) float32 and bone heads (N, bones, 3).
        """
        heads, tails = self.bone_ends(shapes)
        rotations = self.rotations(heads, tails)
        posed = np.zeros_like(heads)
        for bone, parent in enumerate(self.source.parents):
            if parent < 0:
                posed[:, bone] = heads[:, bone]
            else:
                step = heads[:, bone] - heads[:, parent]
                posed[:, bone] = posed[:, parent] + _apply(rotations[:, parent], step)
        offsets = posed - _apply(rotations, heads)
        affine = np.concatenate([rotations, offsets[..., None]], -1)
        out = np.empty((len(shapes), len(keep), 3), np.float32)
        for i, shape in enumerate(shapes):
            blend = (weights @ affine[i].reshape(len(self.source.bones), 12)).reshape(-1, 3, 4)
            out[i] = _apply(blend[..., :3], shape[keep].astype(np.float64)) + blend[..., 3]
        return out, posed

    def rotations(self, heads: np.ndarray, tails: np.ndarray) -> np.ndarray:
        """World rotations (N, bones, 3, 3) relative to MakeHuman's stance."""
        bone = self.source.bone
        rotations = np.tile(np.eye(3), (*heads.shape[:2], 1, 1))

        def head(name: str) -> np.ndarray:
            return heads[:, bone(name)]

        def turn(rotation: np.ndarray, *names: str) -> None:
            for name in names:
                rotations[:, bone(name)] = rotation

        for sign, side in _SIDES:
            self._arm(turn, head, sign, side)
            hand = rotations[:, bone(f"wrist.{side}")]
            for finger in range(2, 6):
                parent = hand
                for segment in range(1, 4):
                    name = f"finger{finger}-{segment}.{side}"
                    along = _apply(parent, tails[:, bone(name)] - head(name))
                    flat = along * [1, 1 - self.flatten, 1]
                    parent = _align(along, flat) @ parent
                    turn(parent, name)
            self._leg(turn, head, sign, side)
        return rotations

    def _arm(self, turn: Callable, head: Callable, sign: float, side: str) -> None:
        outwards = np.array([sign, 0, 0])
        turn(_about("z", 15 * sign), f"clavicle.{side}")
        lifted = _about("z", 25 * sign)
        turn(lifted, f"shoulder01.{side}")

        shoulder, elbow = head(f"upperarm01.{side}"), head(f"lowerarm01.{side}")
        wrist = head(f"wrist.{side}")
        upper = _align(_apply(lifted, elbow - shoulder), outwards) @ lifted
        turn(upper, f"upperarm01.{side}", f"upperarm02.{side}")
        lower = _align(_apply(upper, wrist - elbow), outwards) @ upper

        along = _unit(head(f"finger3-1.{side}") - wrist)
        across = head(f"finger2-1.{side}") - head(f"finger5-1.{side}")
        across = _unit(across - (across * along).sum(-1, keepdims=True) * along)
        frame = np.stack([along, across, np.cross(along, across)], -1)
        forward = np.array([0.0, 0, 1])
        goal = np.stack([outwards, forward, np.cross(outwards, forward)], -1)
        hand = goal @ np.swapaxes(frame, -1, -2)
        turn(hand, f"wrist.{side}", *(f"metacarpal{i}.{side}" for i in range(1, 5)))
        turn(hand, *(f"finger1-{i}.{side}" for i in range(1, 4)))

        # What the forearm must turn about its own axis to meet the hand, shared by its two bones.
        rest = hand @ np.swapaxes(lower, -1, -2)
        twist = np.arctan2(rest[:, 2, 1] - rest[:, 1, 2], rest[:, 1, 1] + rest[:, 2, 2])
        for share, name in ((0.25, "lowerarm01"), (0.75, "lowerarm02")):
            turn(_about("x", np.degrees(share * twist)) @ lower, f"{name}.{side}")

    def _leg(self, turn: Callable, head: Callable, sign: float, side: str) -> None:
        hip, ankle = head(f"upperleg01.{side}"), head(f"foot.{side}")
        length = np.linalg.norm(ankle - hip, axis=-1)
        along = (ankle - hip) / length[:, None]
        goal = along.copy()
        goal[:, 0] = -0.05 * hip[:, 0] / length  # the ankle ends at 0.95 of the hip's x
        goal[:, 2] = -0.045
        straight = _align(along, goal)
        turn(straight, *(f"{bone}.{side}" for bone in ("upperleg02", "lowerleg01", "lowerleg02")))
        # The bisector's alignment is half the rotation.
        turn(_align(along, along + _unit(goal)), f"upperleg01.{side}")
        for toe, degrees in enumerate(_TOE_SPREAD, 1):
            segments = range(1, 3 if toe == 1 else 4)
            turn(_about("y", sign * degrees), *(f"toe{toe}-{i}.{side}" for i in segments))


def _apply(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum("...ij,...j->...i", matrices, vectors)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _align(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation (..., 3, 3) that takes the direction of a to that of b."""
    a, b = np.broadcast_arrays(_unit(a), _unit(b))
    v = np.cross(a, b)
    cosine = (a * b).sum(-1)[..., None, None]
    zero = np.zeros(v.shape[:-1])
    k = np.stack(
        [zero, -v[..., 2], v[..., 1], v[..., 2], zero, -v[..., 0], -v[..., 1], v[..., 0], zero], -1
    ).reshape(*v.shape[:-1], 3, 3)
    return np.eye(3) + k + k @ k / (1 + cosine)


def _about(axis: str, degrees: float | np.ndarray) -> np.ndarray:
    """Rotation about a coordinate axis; (3, 3), or (N, 3, 3) for (N,) angles."""
    angle = np.radians(degrees)
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rows = {
        "x": [one, zero, zero, zero, c, -s, zero, s, c],
        "y": [c, zero, s, zero, one, zero, -s, zero, c],
        "z": [c, -s, zero, s, c, zero, zero, zero, one],
    }[axis]
    return np.stack(rows, -1).reshape(*np.shape(angle), 3, 3)
