"""Fewer vertices by half-edge collapses: those that stay are a subset (design, section 5.5).

A collapse moves a vertex onto a neighbour. Its cost is the quadric error (Garland and Heckbert
1997) at the neighbour, plus a part for its area times the squared distance, which keeps flat
regions evenly covered.
"""

import heapq

import numpy as np

_SPREAD = 0.03
_SMALLEST_COSINE = 0.3
_THINNEST = 0.15
_LARGEST_VALENCE = 10


class _Mesh:
    def __init__(
        self,
        positions: np.ndarray,
        triangles: np.ndarray,
        importance: np.ndarray,
        fixed: set[int],
        midline: set[int],
    ):
        self.points = {int(i): positions[i] for i in np.unique(triangles)}
        self.fixed, self.midline, self.importance = fixed, midline, importance
        self.faces: dict[int, set[tuple[int, int, int]]] = {i: set() for i in self.points}
        self.quadrics = {i: np.zeros((4, 4)) for i in self.points}
        self.areas = dict.fromkeys(self.points, 0.0)
        self.version = dict.fromkeys(self.points, 0)
        for a, b, c in triangles.tolist():
            face = _ordered(a, b, c)
            normal = np.cross(positions[b] - positions[a], positions[c] - positions[a])
            double_area = float(np.linalg.norm(normal))
            unit = normal / max(double_area, 1e-30)
            plane = np.append(unit, -unit @ positions[a])
            for vertex in (a, b, c):
                self.faces[vertex].add(face)
                self.quadrics[vertex] += double_area / 2 * np.outer(plane, plane)
                self.areas[vertex] += double_area / 6

    def neighbours(self, vertex: int) -> set[int]:
        return {i for face in self.faces[vertex] for i in face} - {vertex}

    def on_border(self, vertex: int) -> bool:
        return len(self.neighbours(vertex)) != len(self.faces[vertex])

    def cost(self, gone: int, kept: int) -> float:
        place = np.append(self.points[kept], 1.0)
        step = self.points[kept] - self.points[gone]
        error = place @ self.quadrics[gone] @ place + _SPREAD * self.areas[gone] * (step @ step)
        return float(self.importance[gone] * error)

    def allowed(self, gone: int, kept: int) -> bool:
        if gone in self.fixed:
            return False
        between = self.faces[gone] & self.faces[kept]
        around_gone, around_kept = self.neighbours(gone), self.neighbours(kept)
        # The link condition: the edge has two sides (one on the border), and nothing else touches.
        shared = around_gone & around_kept
        if len(shared) != len(between) or not between:
            return False
        if len(between) == 2 and self.on_border(gone) and self.on_border(kept):
            return False
        # Who is on the midline stays there, and slides along it only.
        if gone in self.midline and not (kept in self.midline and len(between) == 1):
            return False
        if self.on_border(gone) and len(between) != 1:
            return False
        new = around_gone - around_kept - {kept}
        # Two midline vertices joined by an inner edge would be joined twice after mirroring.
        if kept in self.midline and len(new & self.midline) > (gone in self.midline):
            return False
        if len(around_kept | around_gone) - 2 > _LARGEST_VALENCE:
            return False
        return all(self._sound(face, gone, kept) for face in self.faces[gone] - between)

    def _sound(self, face: tuple[int, int, int], gone: int, kept: int) -> bool:
        before = np.array([self.points[i] for i in face])
        after = np.array([self.points[kept if i == gone else i] for i in face])
        old, new = _normal(before), _normal(after)
        old_length, new_length = np.sqrt(old @ old), np.sqrt(new @ new)
        if new_length == 0 or old @ new < _SMALLEST_COSINE * old_length * new_length:
            return False
        thin = _thinness(after, float(new_length))
        return thin >= _THINNEST or thin >= _thinness(before, float(old_length))

    def collapse(self, gone: int, kept: int) -> set[int]:
        """Do it; the vertices whose edges have new costs."""
        touched = self.neighbours(gone)
        for face in self.faces.pop(gone):
            for vertex in face:
                if vertex != gone:
                    self.faces[vertex].discard(face)
            if kept not in face:
                moved = _ordered(*(kept if i == gone else i for i in face))
                for vertex in moved:
                    self.faces[vertex].add(moved)
        self.quadrics[kept] = self.quadrics[kept] + self.quadrics.pop(gone)
        self.areas[kept] += self.areas.pop(gone)
        del self.points[gone]
        return touched


def decimate(
    positions: np.ndarray,
    triangles: np.ndarray,
    count: int,
    importance: np.ndarray,
    midline: np.ndarray | None = None,
    fixed: np.ndarray | None = None,
) -> np.ndarray:
    """Collapse edges until `count` vertices are left.

    Args:
      positions: (N, 3).
      triangles: (T, 3) indices into them.
      count: of vertices to keep.
      importance: (N,) factor of the cost of each vertex.
      midline: (N,) mask of vertices that must stay on the plane of symmetry.
      fixed: indices of vertices that must stay.

    Returns:
      the triangles left, of the same indices.
    """
    on_midline = set() if midline is None else set(np.flatnonzero(midline).tolist())
    locked = set() if fixed is None else set(fixed.tolist())
    mesh = _Mesh(positions, triangles, importance, locked, on_midline)
    heap: list[tuple[float, int, int, int, int]] = []

    def offer(gone: int, kept: int) -> None:
        if gone not in locked:
            entry = (mesh.cost(gone, kept), gone, kept, mesh.version[gone], mesh.version[kept])
            heapq.heappush(heap, entry)

    for vertex in sorted(mesh.points):
        for other in sorted(mesh.neighbours(vertex)):
            offer(vertex, other)
    while len(mesh.points) > count and heap:
        _, gone, kept, *versions = heapq.heappop(heap)
        if gone not in mesh.points or kept not in mesh.points:
            continue
        if versions != [mesh.version[gone], mesh.version[kept]] or not mesh.allowed(gone, kept):
            continue
        touched = mesh.collapse(gone, kept)
        for vertex in touched:
            mesh.version[vertex] += 1
        pairs = {(v, n) for v in touched for n in mesh.neighbours(v)}
        for one, other in sorted(pairs | {(b, a) for a, b in pairs}):
            offer(one, other)
    faces = sorted({face for around in mesh.faces.values() for face in around})
    return np.array(faces)


def _ordered(a: int, b: int, c: int) -> tuple[int, int, int]:
    """The same oriented triangle, smallest index first."""
    if a <= b and a <= c:
        return a, b, c
    return (b, c, a) if b <= c else (c, a, b)


def _normal(corners: np.ndarray) -> np.ndarray:
    a, b = corners[1] - corners[0], corners[2] - corners[0]
    return np.array(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )


def _thinness(corners: np.ndarray, double_area: float) -> float:
    """Twice the area over the square of the longest edge: 0.87 at best."""
    sides = corners - np.roll(corners, 1, 0)
    return double_area / float((sides * sides).sum(1).max())
