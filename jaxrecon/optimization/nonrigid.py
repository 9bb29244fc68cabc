"""Non-rigid structure from motion of one orthographic sequence, from its 2D points alone.

Two classical ideas, one after the other:

* where the camera turns fast against the deformation, short windows are nearly rigid: each is
  factorised (Tomasi and Kanade 1992), windows are joined over the frames they share, and shapes
  are then refined together as smooth trajectories in a basis of cosines (Akhter et al. 2008,
  "Nonrigid structure from motion in trajectory space"); elsewhere the whole sequence is
  factorised as rigid. Which of both, the 2D says (`steadiness`);
* then shapes are a Gaussian about their mean, each aligned to it (in the spirit of Lee et al.
  2013, "Procrustean normal distribution for non-rigid structure from motion"), fitted by
  expectation maximisation.

All in float64 on the host: it is seconds of small linear algebra, and float32 is too short for
the nearly singular systems.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from jaxrecon.errors import UserError

WINDOWS = (24, 48, 96)  # frames; the whole sequence is tried as well
TURNS_FAST = 8  # the best window is at most this part of the sequence: trajectories
COSINES = 60  # of the trajectory basis, at most; or a sixth of the frames
MODES = 12  # of the Gaussian
_ROUNDS, _ALTERNATIONS, _EM_STEPS = 12, 8, 100
_FLOOR = (1e-2, 1e-6)  # variance beside the modes, of the first and the last step
_FEWEST_FRAMES, _FEWEST_POINTS = 4, 4

Points2D = Float[np.ndarray, "f p 2"]


@dataclasses.dataclass(frozen=True)
class SequenceFit:
    """The shapes of a sequence.

    Attributes:
      points: (F, P, 3) camera frame, centred, in the unit of the 2D, whose x and y they keep.
      rotations: (F, 3, 3) shape @ rotation is in the camera frame.
      method: "trajectories, gaussian" or "gaussian" alone.
      window: frames of the windows that were factorised.
      steadiness: of each window length that was tried, see `steadiness`.
    """

    points: np.ndarray
    rotations: np.ndarray
    method: str
    window: int
    steadiness: dict[int, float]


def reconstruct_sequence(
    keypoints2d: Points2D, visible: Float[np.ndarray, "f p"] | None = None
) -> SequenceFit:
    """Depth for every point of every frame, up to one reflection in depth of the whole.

    Args:
      keypoints2d: (F, P, 2) in any unit.
      visible: (F, P), 1 where seen; unseen ones are filled in and refined with the rest.

    Raises:
      UserError: too few frames or points.
    """
    points = np.asarray(keypoints2d, np.float64)
    frames, count = points.shape[:2]
    if frames < _FEWEST_FRAMES or count < _FEWEST_POINTS:
        raise UserError(
            f"a sequence of {frames} frames and {count} points cannot be factorised; "
            f"{_FEWEST_FRAMES} frames of {_FEWEST_POINTS} points are needed"
        )
    if visible is None or np.all(visible > 0):
        return _fit(points)
    # What is missing is first what it was just before and after, then what the fit says.
    filled = _interpolated(points, visible)
    for _ in range(2):
        found = _fit(filled, final=False)
        filled = np.where(visible[..., None] > 0, points, found.points[..., :2] + _middle(filled))
    return _fit(filled)


def steadiness(points: Points2D, window: int) -> float:
    """Third over fourth singular value of the 2D of windows: how much more the camera turns in
    one than the shape deforms."""
    starts = range(0, len(points) - window + 1, max(window // 2, 1))
    found = []
    for start in starts:
        flat = points[start : start + window].transpose(0, 2, 1).reshape(2 * window, -1)
        values = np.sqrt(np.maximum(np.linalg.eigvalsh(flat.T @ flat)[::-1], 0.0))
        found.append(values[2] / max(values[3], 1e-9 * values[0]))
    return float(np.median(found))


def _fit(points: np.ndarray, final: bool = True) -> SequenceFit:
    points = points - _middle(points)
    size = np.sqrt((points**2).mean())
    unit, frames = points / size, len(points)
    lengths = [w for w in WINDOWS if w <= frames // 2] + [frames]
    steady = {length: steadiness(unit, length) for length in lengths}
    window = max(steady, key=lambda length: steady[length])
    if window <= frames // TURNS_FAST:
        shapes = _with_depth(unit, _joined_windows(unit, window))
        rounds = _ROUNDS if final else 1
        shapes = _smooth_trajectories(unit, shapes, rounds)
        method = "trajectories, gaussian"
    else:
        window = frames
        shapes = _with_depth(unit, _rigid_windows(unit[None])[1][0])
        method = "gaussian"
    shapes, rotations = _gaussian(unit, shapes, _EM_STEPS if final else _EM_STEPS // 4)
    return SequenceFit(shapes * size, rotations, method, window, steady)


# ------------------------------------------------------------------ rigid windows


def _rigid_windows(points: np.ndarray, steps: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """(rotations (n, L, 3, 3), depth (n, L, P)) of n windows (n, L, P, 2), each taken as rigid."""
    rotations = _factorised(points)
    shape = np.zeros(())
    for _ in range(steps):
        ahead = rotations[..., :2]
        normal = np.einsum("nlab,nlcb->nac", ahead, ahead)
        normal += 1e-9 * np.eye(3)
        shape = np.linalg.solve(normal, np.einsum("nlab,nlpb->nap", ahead, points))
        for _ in range(2):
            depth = np.einsum("nla,nap->nlp", rotations[..., 2], shape)
            rotations = _nearest(np.einsum("nap,nlpb->nlab", shape, _with_depth(points, depth)))
    return rotations, np.einsum("nla,nap->nlp", rotations[..., 2], shape)


def _factorised(points: np.ndarray) -> np.ndarray:
    """Rotations by rank 3 factorisation with the metric upgrade."""
    windows, length, count, _ = points.shape
    flat = points.transpose(0, 1, 3, 2).reshape(windows, 2 * length, count)
    left, values, _ = np.linalg.svd(flat, full_matrices=False)
    motion = (left[..., :3] * np.sqrt(values[:, None, :3])).reshape(windows, length, 2, 3)
    u, v = motion[:, :, 0], motion[:, :, 1]
    rows = np.concatenate([_quadratic(u, u), _quadratic(v, v), _quadratic(u, v)], axis=1)
    wanted = np.concatenate([np.ones(2 * length), np.zeros(length)])
    normal = np.einsum("nri,nrj->nij", rows, rows)
    normal += 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(6)
    q = np.linalg.solve(normal, np.einsum("nri,r->ni", rows, wanted)[..., None])[..., 0]
    metric = q[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    values, vectors = np.linalg.eigh(metric)
    upgrade = vectors * np.sqrt(np.maximum(values, 1e-3 * values[:, -1:]))[:, None, :]
    left, _, right = np.linalg.svd(np.einsum("nlba,nac->nlbc", motion, upgrade), False)
    axes = left @ right
    third = np.cross(axes[..., 0, :], axes[..., 1, :])
    return np.stack([axes[..., 0, :], axes[..., 1, :], third], axis=-1)


def _quadratic(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Rows with u^T Q v = row . (q00, q01, q02, q11, q12, q22) for symmetric Q."""
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    return np.stack(
        [u[..., i] * v[..., j] + (u[..., j] * v[..., i] if i != j else 0.0) for i, j in pairs], -1
    )


def _joined_windows(points: np.ndarray, window: int) -> np.ndarray:
    """Depth (F, P) from overlapping rigid windows, each mirrored as its neighbour is."""
    frames = len(points)
    starts = list(range(0, frames - window + 1, window // 4))
    if starts[-1] != frames - window:
        starts.append(frames - window)
    rotations, depths = _rigid_windows(np.stack([points[s : s + window] for s in starts]))
    ramp = np.minimum(np.arange(1, window + 1), np.arange(window, 0, -1))[:, None]
    total, weight = np.zeros(points.shape[:2]), np.zeros((frames, 1))
    mirror = np.array([[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    held, sign, end = rotations[0], 1.0, window
    for start, turn, depth in zip(starts, rotations, depths):
        if start:
            shared = end - start
            before = held[-shared:]
            options = [(1.0, turn), (-1.0, turn * mirror)]
            aligned = [(s, _onto(r, before)) for s, r in options]
            errors = [np.sum((r[:shared] - before) ** 2) for _, r in aligned]
            sign, held = aligned[int(np.argmin(errors))]
        rows = slice(start, start + window)
        total[rows] += sign * ramp * depth
        weight[rows] += ramp
        end = start + window
    return total / weight


def _onto(rotations: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`rotations` in the canonical frame in which their first frames are nearest to `target`."""
    shared = rotations[: len(target)]
    turn = _nearest(np.einsum("fab,fcb->ac", target, shared))
    return turn @ rotations


# ------------------------------------------------------------------ smooth trajectories


def _smooth_trajectories(points: np.ndarray, shapes: np.ndarray, rounds: int) -> np.ndarray:
    """Shapes that change slowly in the canonical frame, found in turns with the cameras."""
    frames = len(points)
    size = min(COSINES, max(frames // 6, 1))
    at = (np.arange(frames) + 0.5) / frames
    basis = np.cos(np.pi * at[:, None] * np.arange(size)) * np.sqrt(2 / frames)
    basis[:, 0] /= np.sqrt(2)
    products = (basis[:, :, None] * basis[:, None, :]).reshape(frames, -1)
    ridge = 1e-9 + 1e-6 * np.repeat(np.arange(size) ** 2.0, 3)
    rotations = np.zeros(())
    for _ in range(rounds):
        rotations, _, _ = _aligned(shapes)
        for _ in range(_ALTERNATIONS):
            ahead = rotations[..., :2]
            outer = (ahead @ ahead.transpose(0, 2, 1)).reshape(frames, 9)
            normal = (products.T @ outer).reshape(size, size, 3, 3).transpose(0, 2, 1, 3)
            normal = normal.reshape(3 * size, 3 * size) + np.diag(ridge)
            seen = (ahead @ points.transpose(0, 2, 1)).reshape(frames, -1)
            weights = np.linalg.solve(normal, (basis.T @ seen).reshape(3 * size, -1))
            canonical = (basis @ weights.reshape(size, -1)).reshape(frames, 3, -1)
            for _ in range(2):
                depth = np.einsum("fa,fap->fp", rotations[..., 2], canonical)
                rotations = _nearest(canonical @ _with_depth(points, depth))
        depth = np.einsum("fa,fap->fp", rotations[..., 2], canonical)
        shapes = _with_depth(points, depth)
    return shapes


# ------------------------------------------------------------------ a Gaussian of aligned shapes


def _gaussian(points: np.ndarray, shapes: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth as what a Gaussian of the canonical shapes expects beside the observed x and y."""
    modes = min(MODES, 3 * points.shape[1] - 7)
    floors = np.geomspace(*_FLOOR, steps)
    rotations, mean, _ = _aligned(shapes)
    model = _model(shapes, rotations, mean, None, modes, floors[0])
    for floor in floors:
        depth, spread = _expected_depth(points, rotations, model)
        shapes = _with_depth(points, depth)
        rotations = _nearest(np.einsum("fpa,pb->fab", shapes, model.mean)).transpose(0, 2, 1)
        mean = (shapes @ rotations.transpose(0, 2, 1)).mean(0)
        model = _model(shapes, rotations, mean, spread, modes, floor)
    depth, _ = _expected_depth(points, rotations, model)
    return _with_depth(points, depth), rotations


@dataclasses.dataclass(frozen=True)
class _Model:
    mean: np.ndarray  # (P, 3)
    modes: np.ndarray  # (K, P, 3), unit length
    variances: np.ndarray  # (K,)
    noise: float


def _expected_depth(
    points: np.ndarray, rotations: np.ndarray, model: _Model
) -> tuple[np.ndarray, np.ndarray]:
    """(depth (F, P), its covariance (F, P, P)) given x and y."""
    frames, count = points.shape[:2]
    modes = np.einsum("kpa,fab->fkpb", model.modes, rotations, optimize=True)
    mean = model.mean @ rotations
    across = modes[..., :2].reshape(frames, -1, 2 * count)
    left = (points - mean[..., :2]).reshape(frames, -1, 1)
    precision = across @ across.transpose(0, 2, 1) / model.noise + np.diag(1 / model.variances)
    covariance = np.linalg.inv(precision)
    weights = covariance @ (across @ left) / model.noise
    deep = modes[..., 2]
    depth = mean[..., 2] + (weights.transpose(0, 2, 1) @ deep)[:, 0]
    spread = deep.transpose(0, 2, 1) @ covariance @ deep + model.noise * np.eye(count)
    return depth, spread


def _model(
    shapes: np.ndarray,
    rotations: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray | None,
    modes: int,
    floor: float,
) -> _Model:
    """Mean, modes and noise of aligned shapes; deformations that turn the mean are left out."""
    frames, count = shapes.shape[:2]
    apart = (shapes @ rotations.transpose(0, 2, 1) - mean).reshape(frames, -1)
    covariance = apart.T @ apart / frames
    if spread is not None:
        axis = rotations[:, :, 2]
        outer = (axis[:, :, None] * axis[:, None, :]).reshape(frames, 9)
        more = (spread.reshape(frames, -1).T @ outer / frames).reshape(count, count, 3, 3)
        covariance = covariance + more.transpose(0, 2, 1, 3).reshape(3 * count, 3 * count)
    turns = np.stack([np.cross(axis, mean).ravel() for axis in np.eye(3)], axis=1)
    turns, _ = np.linalg.qr(turns)
    covariance = covariance - turns @ (turns.T @ covariance)
    covariance = covariance - (covariance @ turns) @ turns.T
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = max(float(values[modes:].sum()) / (3 * count - 6 - modes + 1), float(floor))
    return _Model(
        mean,
        vectors[:, :modes].T.reshape(modes, count, 3),
        np.maximum(values[:modes] - noise, 1e-8),
        noise,
    )


# ------------------------------------------------------------------ small things


def _aligned(shapes: np.ndarray, rounds: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rotations, mean, canonical shapes) by generalised Procrustes analysis."""
    mean, turned = shapes[0], shapes
    back = np.zeros(())
    for _ in range(rounds):
        back = _nearest(np.einsum("fpa,pb->fab", shapes, mean))
        turned = shapes @ back
        mean = turned.mean(0)
    return back.transpose(0, 2, 1), mean, turned


def _nearest(matrices: np.ndarray) -> np.ndarray:
    """The rotations nearest to matrices."""
    left, _, right = np.linalg.svd(matrices)
    sign = np.sign(np.linalg.det(left @ right))
    left = np.concatenate([left[..., :2], left[..., 2:] * sign[..., None, None]], axis=-1)
    return left @ right


def _with_depth(points: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return np.concatenate([points, depth[..., None]], axis=-1)


def _middle(points: np.ndarray) -> np.ndarray:
    return points.mean(1, keepdims=True)


def _interpolated(points: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Unseen points by linear interpolation in time; those never seen at the frames' middle."""
    weights = (visible > 0)[..., None]
    middle = (points * weights).sum(1) / np.maximum(weights.sum(1), 1)
    relative = points - middle[:, None]
    filled, at = relative.copy(), np.arange(len(points))
    for point in range(points.shape[1]):
        seen = visible[:, point] > 0
        for axis in range(2):
            known = relative[seen, point, axis]
            filled[:, point, axis] = np.interp(at, at[seen], known) if seen.any() else 0.0
    return np.where(weights, points, filled + middle[:, None])
