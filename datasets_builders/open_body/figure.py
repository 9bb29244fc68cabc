"""The mesh that is photographed: the open body with the loose pieces that clothes and hair need.

A skirt and a fall of hair are extra tubes of vertices with skinning weights of their own, so the
body model's forward pass moves them with the body. They are always part of the mesh; a person
without them gets empty triangles in their place, which keeps every shape fixed.
Coordinates are those of the template in its T-pose (metres, y up, facing +z): textures are
functions of them, so they stick to the body.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxrecon.datasets_builders.open_body.textures import normalise
from scipy import sparse
from scipy.spatial import cKDTree

from jaxrecon.bodies import BodyModel, load_body
from jaxrecon.bodies.joints import SMPL24
from jaxrecon.typing import AnyArray, Float

BODY, SKIRT, HAIR = 0, 1, 2
SKIRT_RINGS, SKIRT_AROUND = 15, 40
HAIR_RINGS, HAIR_AROUND = 9, 22


@dataclass(frozen=True)
class Landmarks:
    """Places on the template that clothes are cut by, metres."""

    shoulder_x: float
    elbow_x: float
    wrist_x: float
    shoulder_y: float
    hip_y: float
    knee_y: float
    ankle_y: float
    sole_y: float
    waist_y: float
    neck: np.ndarray
    head: np.ndarray  # middle of the skull
    nose: np.ndarray
    eyes: np.ndarray  # (2, 3) right, left
    ears: np.ndarray  # (2, 3)


@dataclass(frozen=True, eq=False)
class Figure:
    """Body with skirt and hair; `part` says which of the three a vertex belongs to."""

    body: BodyModel  # extended; J_template and parents are those of the body
    body_vertices: int
    canonical: np.ndarray  # (V, 3)
    canonical_normals: np.ndarray  # (V, 3)
    part: np.ndarray  # (V,) int8
    faces: np.ndarray  # (F, 3) int32; body, skirt ring by ring, hair ring by ring
    columns: tuple[np.ndarray, np.ndarray, np.ndarray]  # of `faces`
    body_faces: int
    incidence: sparse.csr_matrix  # (V, F) vertex of face, for normals
    valence: np.ndarray  # (V,) faces that meet in a vertex
    landmarks: Landmarks

    def faces_of(self, skirt_rings: int, hair_rings: int) -> np.ndarray:
        """Faces (F, 3) with only the first rings of skirt and hair; the others are empty."""
        faces = self.faces.copy()
        skirt_each, hair_each = SKIRT_AROUND * 4, (HAIR_AROUND - 1) * 4
        first = self.body_faces + skirt_rings * skirt_each
        hair = self.body_faces + (SKIRT_RINGS - 1) * skirt_each
        faces[first:hair] = 0
        faces[hair + hair_rings * hair_each :] = 0
        return faces

    def normals(self, vertices: Float[AnyArray, "v 3"]) -> np.ndarray:
        """Unit vertex normals (V, 3), area weighted; skirt and hair count their outside."""
        x, y, z = np.ascontiguousarray(vertices.T)
        i, j, k = self.columns
        ax, ay, az = x[j] - x[i], y[j] - y[i], z[j] - z[i]
        bx, by, bz = x[k] - x[i], y[k] - y[i], z[k] - z[i]
        cross = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)
        return normalise(self.incidence @ cross)


def smoothstep(x: Any, low: float, high: float) -> Any:
    """0 up to `low`, 1 from `high` on, a smooth rise between; of numbers or arrays."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _joint(positions: np.ndarray, name: str) -> np.ndarray:
    return positions[SMPL24.index(name)]


def _landmarks(body: BodyModel) -> Landmarks:
    joints, template = np.asarray(body.J_template), np.asarray(body.v_template)
    nose, right_eye, left_eye, right_ear, left_ear = template[np.asarray(body.vertex_ids)[:5]]
    top = template[:, 1].max()
    chest = _joint(joints, "spine3")
    hip = _joint(joints, "l_hip")
    return Landmarks(
        shoulder_x=float(_joint(joints, "l_shoulder")[0]),
        elbow_x=float(_joint(joints, "l_elbow")[0]),
        wrist_x=float(_joint(joints, "l_wrist")[0]),
        shoulder_y=float(_joint(joints, "l_shoulder")[1]),
        hip_y=float(hip[1]),
        knee_y=float(_joint(joints, "l_knee")[1]),
        ankle_y=float(_joint(joints, "l_ankle")[1]),
        sole_y=float(template[:, 1].min()),
        waist_y=float(0.45 * chest[1] + 0.55 * hip[1] + 0.03),
        neck=_joint(joints, "neck"),
        head=np.array([0.0, 0.5 * (top + nose[1]) - 0.02, 0.5 * (right_ear[2] + nose[2]) - 0.05]),
        nose=nose,
        eyes=np.stack([right_eye, left_eye]),
        ears=np.stack([right_ear, left_ear]),
    )


def _strip_faces(rings: int, around: int, closed: bool, first: int) -> np.ndarray:
    """Triangles of a tube or strip, ring by ring, each seen from both sides."""
    columns = around if closed else around - 1
    j = np.arange(columns)
    following = (j + 1) % around
    faces = []
    for ring in range(rings - 1):
        top, below = first + ring * around, first + (ring + 1) * around
        a, b, c, d = top + j, top + following, below + j, below + following
        outside = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)])
        faces += [outside, outside[:, ::-1]]
    return np.concatenate(faces)


def _skirt(marks: Landmarks) -> np.ndarray:
    """Rings (R, A, 3) from the waist down to below the knee, around both legs."""
    angle = np.linspace(0.0, 2 * np.pi, SKIRT_AROUND, endpoint=False)
    length = marks.waist_y - marks.knee_y + 0.18
    rings = []
    for t in np.linspace(0.0, 1.0, SKIRT_RINGS):
        y = marks.waist_y - t * length
        over_hips = float(smoothstep(marks.waist_y - y, 0.0, 0.16))
        half_width = 0.152 + 0.05 * over_hips + 0.02 * t
        front, back = 0.178 - 0.012 * over_hips, -0.06 - 0.052 * over_hips
        centre, depth = 0.5 * (front + back), 0.5 * (front - back)
        # Seen from above the angle runs so that triangles face outwards.
        rings.append(
            np.stack(
                [
                    half_width * np.cos(angle),
                    np.full_like(angle, y),
                    centre + depth * np.sin(angle),
                ],
                -1,
            )
        )
    return np.stack(rings)


def _hair(marks: Landmarks) -> np.ndarray:
    """Rings (R, A, 3) of a half tube from ear to ear round the back of the head."""
    angle = np.linspace(-0.62 * np.pi, 0.62 * np.pi, HAIR_AROUND)
    top = marks.head[1] + 0.035
    rings = []
    for t in np.linspace(0.0, 1.0, HAIR_RINGS):
        y = top - 0.36 * t
        spread = 0.092 + 0.02 * t
        back = 0.105 + 0.03 * smoothstep(t, 0.4, 0.9)
        x = spread * np.sin(angle)
        z = marks.head[2] - 0.005 - back * np.cos(angle)
        rings.append(np.stack([x, np.full_like(x, y), z], -1))
    return np.stack(rings)


def _skirt_weights(points: np.ndarray, marks: Landmarks) -> np.ndarray:
    """Waist with the pelvis, sides with their thigh, below the knee half with the shin."""
    weights = np.zeros((len(points), 24))
    y = points[:, 1]
    left = smoothstep(points[:, 0], -0.13, 0.13)
    pelvis = 1.0 - 0.9 * smoothstep(marks.waist_y - y, 0.03, 0.30)
    shin = (1.0 - pelvis) * 0.6 * smoothstep(marks.knee_y - y, -0.06, 0.14)
    thigh = 1.0 - pelvis - shin
    weights[:, SMPL24.index("pelvis")] = pelvis
    for name, share in (("l", left), ("r", 1.0 - left)):
        weights[:, SMPL24.index(f"{name}_hip")] = thigh * share
        weights[:, SMPL24.index(f"{name}_knee")] = shin * share
    return weights


def _hair_weights(points: np.ndarray, marks: Landmarks) -> np.ndarray:
    weights = np.zeros((len(points), 24))
    down = smoothstep(marks.neck[1] + 0.05 - points[:, 1], 0.0, 0.16)
    weights[:, SMPL24.index("head")] = 1.0 - down
    weights[:, SMPL24.index("neck")] = 0.4 * down
    weights[:, SMPL24.index("spine3")] = 0.6 * down
    return weights


@lru_cache(maxsize=1)
def load_figure() -> Figure:
    """The open body extended by skirt and hair."""
    body = load_body()
    marks = _landmarks(body)
    template = np.asarray(body.v_template)
    skirt, hair = _skirt(marks).reshape(-1, 3), _hair(marks).reshape(-1, 3)
    extra = np.concatenate([skirt, hair])
    count = len(template)

    # Extra pieces change with the shape like the nearest skin of trunk, thighs and head do.
    trunk = np.flatnonzero(np.abs(template[:, 0]) < marks.shoulder_x + 0.03)
    _, near = cKDTree(template[trunk]).query(extra, k=6)
    shapedirs = np.asarray(body.shapedirs)[trunk][near].mean(1)
    weights = np.concatenate([_skirt_weights(skirt, marks), _hair_weights(hair, marks)])

    skirt_faces = _strip_faces(SKIRT_RINGS, SKIRT_AROUND, True, count)
    hair_faces = _strip_faces(HAIR_RINGS, HAIR_AROUND, False, count + len(skirt))
    faces = np.concatenate([np.asarray(body.faces), skirt_faces, hair_faces]).astype(np.int32)
    canonical = np.concatenate([template, extra]).astype(np.float32)
    part = np.repeat([BODY, SKIRT, HAIR], [count, len(skirt), len(hair)]).astype(np.int8)

    # The doubled inside of the extra pieces must not cancel the outside.
    outside = np.ones(len(faces), np.float32)
    start = len(body.faces)
    for columns, rings in (
        (2 * SKIRT_AROUND, SKIRT_RINGS - 1),
        (2 * (HAIR_AROUND - 1), HAIR_RINGS - 1),
    ):
        for ring in range(rings):
            outside[start + (2 * ring + 1) * columns : start + (2 * ring + 2) * columns] = 0.0
        start += 2 * columns * rings
    rows = faces.reshape(-1)
    incidence = sparse.csr_matrix(
        (np.repeat(outside, 3), (rows, np.repeat(np.arange(len(faces)), 3))),
        shape=(len(canonical), len(faces)),
    )
    extended = body.replace(  # type: ignore[attr-defined]
        v_template=canonical,
        shapedirs=np.concatenate([np.asarray(body.shapedirs), shapedirs]).astype(np.float32),
        posedirs=np.concatenate([np.asarray(body.posedirs), np.zeros((len(extra), 3, 207))]).astype(
            np.float32
        ),
        weights=np.concatenate([np.asarray(body.weights), weights]).astype(np.float32),
        faces=faces,
        J_regressor_extra=None,
        J_regressor_h36m=None,
        vertex_ids=None,
    )
    figure = Figure(
        body=extended,
        body_vertices=count,
        canonical=canonical,
        canonical_normals=np.zeros_like(canonical),
        part=part,
        faces=faces,
        columns=(faces[:, 0].copy(), faces[:, 1].copy(), faces[:, 2].copy()),
        body_faces=len(body.faces),
        incidence=incidence,
        valence=np.asarray(incidence.sum(1)).reshape(-1),
        landmarks=marks,
    )
    object.__setattr__(figure, "canonical_normals", figure.normals(canonical).astype(np.float32))
    return figure
