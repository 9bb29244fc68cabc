"""Soft silhouettes: a mask with a gradient, for losses against segmentations.

The outline is the set of edges at which the surface turns away from the camera and beside
which the background begins. The signed distance of a pixel to the nearest outline edge, through
a sigmoid, is the mask; its gradient reaches the two vertices of that edge. Compared with
blending all triangles near a pixel (Liu et al., "Soft Rasterizer", ICCV 2019, eq. 1-3), a few
hundred edges do the work of all triangles, and meshes of triangles smaller than a pixel do not
swell.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.rendering.rasterize import NEAR, flat_requests, rasterize
from jaxrecon.typing import AnyArray, Array, Bool, Float, Int

_OUTSIDE_STEP = 0.75  # pixels beyond an edge at which the background is looked for


class EdgeTopology(NamedTuple):
    """Edges of a mesh and the vertices opposite to them in the (up to two) faces beside."""

    edges: Int[AnyArray, "e 2"]
    opposite: Int[AnyArray, "e 2"]  # the same vertex twice at the rim of an open mesh


def edge_topology(faces: Int[AnyArray, "f 3"]) -> EdgeTopology:
    """The edges of a mesh, each once (NumPy). Of more than two faces at an edge two are kept."""
    faces = np.asarray(faces, np.int32)
    half = np.concatenate([np.roll(faces, -i, axis=1) for i in range(3)])
    ends = np.sort(half[:, :2], axis=1)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    ends, across = ends[order], half[order, 2]
    first = np.flatnonzero(np.any(np.diff(ends, axis=0, prepend=-1) != 0, axis=1))
    count = np.diff(first, append=len(ends))
    opposite = np.stack([across[first], across[first + (count > 1)]], axis=1)
    return EdgeTopology(ends[first].astype(np.int32), opposite.astype(np.int32))


@partial(
    jax.jit,
    static_argnames=("image_size", "radius", "max_fragments", "max_edges", "max_requests"),
)
def soft_silhouette(
    vertices_image: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    topology: EdgeTopology,
    image_size: tuple[int, int],
    sigma: float | Array = 1.0,
    radius: int = 4,
    max_fragments: int = 1 << 17,
    max_edges: int = 4096,
    max_requests: int = 1 << 18,
) -> tuple[Float[Array, "h w"], Bool[Array, ""]]:
    """Coverage of each pixel, in (0, 1), with gradients to the vertices along the outline.

    Args:
      vertices_image: pixel x, pixel y, depth, as for `rasterize`.
      topology: of `faces`, from `edge_topology`.
      image_size: (height, width).
      sigma: pixels over which the mask fades; it is sigmoid(signed distance / sigma).
      radius: pixels around the outline that feel it; beyond, the mask is constant and has no
        gradient. Take at least 3 sigma.
      max_fragments: budget of `rasterize`.
      max_edges: budget of outline edges.
      max_requests: budget of pixels in their boxes, grown by the radius.

    Returns:
      The mask, and whether a budget overflowed (then part of the outline is missing).
    """
    height, width = image_size
    fixed = jax.lax.stop_gradient(vertices_image)
    fragments = rasterize(fixed, faces, image_size, max_fragments)
    covered = jnp.asarray(fragments.mask)

    outline = _outline(fixed, topology, covered)
    chosen = jnp.nonzero(outline, size=max_edges, fill_value=0)[0]
    used = jnp.arange(max_edges) < outline.sum()
    nearest, found, missed = _nearest_edge(
        fixed, topology.edges[chosen], used, image_size, radius, max_requests
    )

    edge = topology.edges[chosen[nearest]]
    a, b = vertices_image[edge[..., 0], :2], vertices_image[edge[..., 1], :2]
    rows, columns = jnp.arange(height) + 0.5, jnp.arange(width) + 0.5
    pixels = jnp.stack(jnp.meshgrid(columns, rows), axis=-1)
    distance = jnp.sqrt(_square_distance(pixels, a, b) + 1e-8)
    # At the border of the reach the value is continuous, the gradient ends.
    distance = jnp.where(found, jnp.minimum(distance, radius), radius)
    mask = jax.nn.sigmoid(jnp.where(covered, distance, -distance) / sigma)
    overflow = (jnp.asarray(fragments.overflow) > 0) | (outline.sum() > max_edges)
    return mask, overflow | (missed > 0)


def _outline(vertices, topology, covered):
    """Which edges (E,) have the background beside them."""
    height, width = covered.shape
    a, b = (vertices[topology.edges[:, i]] for i in range(2))
    along = b[:, :2] - a[:, :2]
    normal = jnp.stack([-along[:, 1], along[:, 0]], axis=-1)
    sides = [
        (normal * (vertices[topology.opposite[:, i], :2] - a[:, :2])).sum(-1) for i in range(2)
    ]
    length = jnp.sqrt((along**2).sum(-1))
    turns = (sides[0] * sides[1] > 0) & (length > 0) & (jnp.minimum(a[:, 2], b[:, 2]) > NEAR)
    outward = -jnp.sign(sides[0])[:, None] * normal / jnp.maximum(length, 1e-12)[:, None]
    beside = (a[:, :2] + b[:, :2]) / 2 + _OUTSIDE_STEP * outward
    cell = jnp.floor(jnp.clip(beside, -1.0, max(height, width))).astype(jnp.int32)
    inside_image = ((cell >= 0) & (cell < jnp.asarray([width, height]))).all(-1)
    column, row = (jnp.clip(cell[:, i], 0, side - 1) for i, side in enumerate((width, height)))
    return turns & inside_image & ~covered[row, column]


def _nearest_edge(vertices, edges, used, image_size, radius, max_requests):
    """Index into `edges` of the nearest one within `radius` of each pixel, whether there is one,
    and how many requests did not fit.

    Every edge asks for the pixels of its box, grown by the radius, as triangles do in `rasterize`.
    """
    height, width = image_size
    a, b = vertices[edges[:, 0], :2], vertices[edges[:, 1], :2]
    size = jnp.asarray([width, height], jnp.float32)
    first = jnp.ceil(jnp.clip(jnp.minimum(a, b) - (radius + 0.5), 0.0, size))
    last = jnp.floor(jnp.clip(jnp.maximum(a, b) + (radius - 0.5), -1.0, size - 1.0))
    extent = jnp.where(used[:, None], jnp.maximum(last - first + 1.0, 0.0), 0.0)
    first, extent = first.astype(jnp.int32), extent.astype(jnp.int32)
    owner, down, along, valid, overflow = flat_requests(extent, max_requests)
    row, column = first[owner, 1] + down, first[owner, 0] + along
    centres = jnp.stack([column, row], -1) + 0.5
    distance = _square_distance(centres, a[owner], b[owner])
    outside = height * width
    pixel = jnp.where(valid & (distance <= radius**2), row * width + column, outside)
    best = jnp.full(outside, jnp.inf).at[pixel].min(distance, mode="drop")
    wins = distance == best[jnp.minimum(pixel, outside - 1)]
    nearest = (
        jnp.full(outside, len(edges))
        .at[jnp.where(wins, pixel, outside)]
        .min(owner, mode="drop")
        .reshape(image_size)
    )
    found = nearest < len(edges)
    return jnp.where(found, nearest, 0), found, overflow


def _square_distance(p, a, b):
    """From points to segments, (..., 2) each."""
    along = b - a
    square = jnp.maximum((along**2).sum(-1), 1e-12)
    t = jnp.clip(((p - a) * along).sum(-1) / square, 0.0, 1.0)
    return ((p - a - t[..., None] * along) ** 2).sum(-1)
