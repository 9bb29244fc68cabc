"""One closed, exactly mirror-symmetric surface out of the body group (design, section 5)."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from jaxrecon.bodies.open_body.generate.source import N_BODY, Source
from jaxrecon.errors import UserError

# The islands of the texture map are told apart by their number of quads.
_ISLANDS = {3116: "head", 398: "mouth", 3938: "trunk", 293: "eyes", 1598: "hands", 1072: "feet"}
EYE_FRONTS = (14670, 14598)  # right and left: the front vertices of the eye balls


def islands(source: Source) -> dict[str, np.ndarray]:
    """The quads of each texture island (of both sides), by its name."""
    quads, corners = source.quads, source.quad_uvs
    rows = np.repeat(np.arange(len(quads)), 4)
    incidence = sparse.coo_matrix((np.ones(len(rows)), (rows, corners.ravel()))).tocsr()
    count, label = sparse.csgraph.connected_components(incidence @ incidence.T)
    sizes = np.bincount(label, minlength=count)
    if sorted(sizes) != sorted([3116, 398, 3938, 293, 293, 1598, 1598, 1072, 1072]):
        raise UserError(f"the base mesh has islands of {sorted(sizes)} quads, not those expected")
    found: dict[str, np.ndarray] = {}
    for size, name in _ISLANDS.items():
        found[name] = quads[np.isin(label, np.flatnonzero(sizes == size))]
    return found


def within(quads: np.ndarray, seeds: np.ndarray, distance: int) -> np.ndarray:
    """Mask (N_BODY,) of the vertices at most `distance` edges from the seeds."""
    near = np.zeros(N_BODY, bool)
    near[np.unique(seeds)] = True
    edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
    for _ in range(distance):
        reached = near[edges].any(1)
        near[edges[reached]] = True
    return near


def split_quads(quads: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Triangles of quads, each cut along its shorter diagonal."""
    a, b, c, d = quads.T
    first = np.linalg.norm(positions[a] - positions[c], axis=1)
    second = np.linalg.norm(positions[b] - positions[d], axis=1)
    short = (first <= second)[:, None]
    one = np.where(short, np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    two = np.where(short, np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return np.concatenate([one, two])


def border(triangles: np.ndarray) -> dict[int, int]:
    """The border as directed edges, from vertex to next, as the faces that close it go round."""
    edges = {(int(a), int(b)) for t in triangles for a, b in zip(t, np.roll(t, -1))}
    return {b: a for a, b in edges if (b, a) not in edges}


def chains(following: dict[int, int], inside: set[int]) -> list[list[int]]:
    """Runs of border vertices: the pieces left when the vertices outside `inside` cut it.

    A piece keeps the cutting vertices at its two ends; an uncut loop is returned from its smallest
    vertex on.
    """
    found, left = [], set(following)
    starts = [a for a in sorted(left) if a not in inside and following[a] in inside]
    for start in starts:
        run = [start]
        while len(run) == 1 or run[-1] in inside:
            run.append(following[run[-1]])
        found.append(run)
        left -= set(run)
    left &= inside
    while left:
        run = [min(left)]
        while following[run[-1]] != run[0]:
            run.append(following[run[-1]])
        found.append(run)
        left -= set(run)
    return found


def fan(loop: list[int], centre: int) -> np.ndarray:
    """Triangles that close a border loop towards one vertex."""
    return np.array([[a, b, centre] for a, b in zip(loop, [*loop[1:], loop[0]])])


def zip_closed(chain: list[int], positions: np.ndarray) -> np.ndarray:
    """Triangles that close a border chain from its two ends on, over the shorter new diagonal."""
    triangles, i, j = [], 0, len(chain) - 1
    while j - i > 1:
        ahead = np.linalg.norm(positions[chain[i + 1]] - positions[chain[j]])
        behind = np.linalg.norm(positions[chain[i]] - positions[chain[j - 1]])
        if ahead < behind:
            triangles.append([chain[i], chain[i + 1], chain[j]])
            i += 1
        else:
            triangles.append([chain[i], chain[j - 1], chain[j]])
            j -= 1
    return np.array(triangles)


@dataclass(frozen=True)
class HalfSurface:
    """The right half (x <= 0) of the closed body.

    Attributes:
      positions: (19158, 3) float64, rounded; those of the vertices in `triangles` are used.
      triangles: (T, 3) base-mesh ids.
      midline: (19158,) mask of the vertices on the plane of symmetry.
      importance: (19158,) factor of each vertex for the decimation.
    """

    positions: np.ndarray
    triangles: np.ndarray
    midline: np.ndarray
    importance: np.ndarray


def half_surface(source: Source, positions: np.ndarray) -> HalfSurface:
    """The right half of the body without eye sockets and mouth cavity, its holes closed.

    Args:
      source: the base mesh.
      positions: (19158, 3) mean T-posed mesh, metres, of body and eye vertices.
    """
    flip = np.array([-1.0, 1, 1])
    symmetric = (positions + positions[source.mirror] * flip) / 2
    # Rounded, so that ties and the decimation do not depend on the last bits of a matrix product.
    symmetric = np.round(symmetric, 5)
    island = islands(source)
    lips = within(source.quads, island["head"], 1)
    ring = island["mouth"][lips[island["mouth"]].all(1)]
    quads = np.concatenate([island[n] for n in ("head", "trunk", "hands", "feet")] + [ring])
    quads = quads[(symmetric[quads, 0] < 1e-6).all(1)]
    triangles = split_quads(quads, symmetric)
    midline = np.abs(symmetric[:, 0]) < 1e-6

    holes = chains(border(triangles), set(np.flatnonzero(~midline).tolist()))
    closed = [triangles]
    for hole in holes:
        if midline[hole[0]]:  # the mouth, from midline to midline
            closed.append(zip_closed(hole, symmetric))
        else:
            closed.append(fan(hole, EYE_FRONTS[0]))
    importance = np.ones(len(positions))
    for name, factor in (("feet", 24.0), ("hands", 30.0), ("head", 80.0)):
        importance[np.unique(island[name])] = factor
    importance[np.unique(ring)] = 80.0
    importance[EYE_FRONTS[0]] = 1e4
    return HalfSurface(symmetric, np.concatenate(closed), midline, importance)


def mirrored(source: Source, half: np.ndarray, midline: np.ndarray) -> np.ndarray:
    """Both halves: the triangles (T, 3) and their mirror images, by base-mesh ids."""
    image = np.where(midline, np.arange(len(midline)), source.mirror)
    return np.concatenate([half, image[half][:, ::-1]])


def compact(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorted ids that triangles use, and the triangles by place in that list."""
    ids, places = np.unique(triangles, return_inverse=True)
    return ids, places.reshape(triangles.shape)


def euler_characteristic(triangles: np.ndarray) -> int:
    """V - E + F of a mesh."""
    edges = np.sort(np.concatenate([triangles[:, [i, (i + 1) % 3]] for i in range(3)]), 1)
    return len(np.unique(triangles)) - len(np.unique(edges, axis=0)) + len(triangles)
