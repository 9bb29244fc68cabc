"""Plain checks of triangle meshes that the tests of the open models share."""

import numpy as np


def edge_uses(faces):
    """Directed edges and how often each occurs."""
    directed = np.concatenate([faces[:, [i, (i + 1) % 3]] for i in range(3)]).astype(np.int64)
    return np.unique(directed, axis=0, return_counts=True)


def is_closed(faces):
    """Every directed edge once, and its opposite once: closed with consistent winding."""
    edges, counts = edge_uses(faces)
    reverse = {tuple(e) for e in edges[:, ::-1].tolist()}
    return bool((counts == 1).all()) and {tuple(e) for e in edges.tolist()} == reverse


def euler_characteristic(faces):
    edges, _ = edge_uses(faces)
    return len(np.unique(faces)) - len(edges) // 2 + len(faces)


def volumes(vertices, faces):
    """Enclosed volumes of meshes (..., V, 3)."""
    a, b, c = (vertices[..., faces[:, i], :].astype(np.float64) for i in range(3))
    return np.einsum("...fi,...fi->...", a, np.cross(b, c)) / 6


def winding_numbers(points, vertices, faces):
    """How often the surface goes around each point: 1 inside, 0 outside (Van Oosterom 1983)."""
    corners = vertices[faces][None] - points[:, None, None]
    lengths = np.linalg.norm(corners, axis=-1)
    a, b, c = corners[:, :, 0], corners[:, :, 1], corners[:, :, 2]
    la, lb, lc = np.moveaxis(lengths, -1, 0)
    top = np.einsum("pfi,pfi->pf", a, np.cross(b, c))
    bottom = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (a * c).sum(-1) * lb
    return 2 * np.arctan2(top, bottom).sum(-1) / (4 * np.pi)


def crossing_pairs(vertices, faces, cell=0.03):
    """How many pairs of triangles without a common vertex cut each other."""
    first, second = _near_pairs(vertices[faces], cell)
    apart = ~(faces[first][:, :, None] == faces[second][:, None, :]).any((1, 2))
    first, second = first[apart], second[apart]
    a, b = vertices[faces[first]].astype(np.float64), vertices[faces[second]].astype(np.float64)
    return int((_edges_cut(a, b) | _edges_cut(b, a)).sum())


def _near_pairs(corners, cell):
    """Pairs of triangles whose boxes overlap, found through the cells of a grid."""
    low, high = corners.min(1), corners.max(1)
    first_cell, last_cell = np.floor(low / cell).astype(int), np.floor(high / cell).astype(int)
    owners, keys = [], []
    steps = (last_cell - first_cell).max(0)
    for x in range(steps[0] + 1):
        for y in range(steps[1] + 1):
            for z in range(steps[2] + 1):
                here = first_cell + (x, y, z)
                inside = (here <= last_cell).all(1)
                owners.append(np.flatnonzero(inside))
                keys.append(here[inside])
    owners, keys = np.concatenate(owners), np.concatenate(keys)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    owners = owners[order]
    bounds = np.flatnonzero(np.diff(group.ravel()[order])) + 1
    found = []
    for members in np.split(owners, bounds):
        i, j = np.triu_indices(len(members), 1)
        i, j = members[i], members[j]
        touch = ((low[i] <= high[j]) & (low[j] <= high[i])).all(1)
        found.append(np.sort(np.stack([i[touch], j[touch]], 1), 1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _edges_cut(a, b):
    """Whether an edge of triangle a passes through triangle b (Moller and Trumbore 1997)."""
    cut = np.zeros(len(a), bool)
    one, two = b[:, 1] - b[:, 0], b[:, 2] - b[:, 0]
    for i in range(3):
        start, step = a[:, i], a[:, (i + 1) % 3] - a[:, i]
        h = np.cross(step, two)
        slope = (one * h).sum(1)
        safe = np.where(np.abs(slope) < 1e-18, np.inf, slope)
        s = start - b[:, 0]
        u = (s * h).sum(1) / safe
        q = np.cross(s, one)
        v = (step * q).sum(1) / safe
        t = (two * q).sum(1) / safe
        hit = np.isfinite(safe) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0) & (t <= 1)
        cut |= hit
    return cut
