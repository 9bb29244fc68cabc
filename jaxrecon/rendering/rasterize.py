"""The one rasteriser: which triangle each pixel sees, in JAX, compiled once per shape.

Method: every triangle asks for the pixels of its bounding box; the requests of all triangles
are laid out in one flat list of fixed length (the budget), tested, and scattered into a depth
buffer and then into a face buffer. No loop over triangles, pixels or meshes, so the same code
runs batched under `vmap` and on every backend. Several meshes are one call with their vertices
and faces concatenated.

Pixels: `x` to the right, `y` down; pixel `(row r, column c)` has its centre at
`(c + 0.5, r + 0.5)`, so an image spans `[0, width] x [0, height]` and a principal point of
`(width / 2, height / 2)` is its middle.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.typing import AnyArray, Array, Bool, Float, Int

NEAR = 1e-4  # metres; a triangle with any corner closer than this is not drawn
_SLACK = 1e-4  # pixels; keeps neighbouring triangles watertight in float32
_MIN_BUDGET = 1 << 14


class Fragments(NamedTuple):
    """What the rasteriser found. Gradients flow through `barycentric` and `depth`."""

    face_id: Int[AnyArray, "*b h w"]  # visible face, -1 for none
    barycentric: Float[AnyArray, "*b h w 3"]  # perspective-correct, zeros for none
    depth: Float[AnyArray, "*b h w"]  # in the unit of the vertices, inf for none
    overflow: Int[AnyArray, "*b"]  # requests beyond the budget; the picture is whole if 0

    @property
    def mask(self) -> AnyArray:
        """True where a face is seen."""
        return self.face_id >= 0


@partial(jax.jit, static_argnames=("image_size", "max_fragments", "cull_backfaces"))
def rasterize(
    vertices_image: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    image_size: tuple[int, int],
    max_fragments: int = 1 << 18,
    cull_backfaces: bool = False,
) -> Fragments:
    """Find the nearest triangle at each pixel centre.

    Args:
      vertices_image: pixel x, pixel y and depth z > 0 of each vertex.
      faces: vertex indices. A triangle that reaches behind `NEAR` is left out whole.
      image_size: (height, width).
      max_fragments: budget, the sum over triangles of the pixel centres in their clipped
        bounding boxes; `count_fragments` tells it, `rasterize_host` chooses it.
      cull_backfaces: leave out triangles whose corners turn clockwise on the screen
        (those that face away, when normals point outwards), about half of a closed mesh.

    The choice of the face is piecewise constant and carries no gradient; barycentrics and
    depth are recomputed from the chosen face's corners and do.
    """
    height, width = image_size
    face_id, overflow = _visible_faces(
        jax.lax.stop_gradient(vertices_image), faces, height, width, max_fragments, cull_backfaces
    )
    barycentric, depth = _barycentric(vertices_image, faces, face_id)
    return Fragments(face_id, barycentric, depth, overflow)


def interpolate(
    fragments: Fragments, faces: Int[Array, "f 3"], vertex_attributes: Float[Array, "v c"]
) -> Float[Array, "h w c"]:
    """Vertex attributes at the visible surface point of each pixel; zeros where there is none.

    Differentiable in the attributes and, through the barycentrics, in the vertices.
    """
    face = jnp.maximum(fragments.face_id, 0)
    channels = []
    for channel in range(vertex_attributes.shape[-1]):
        corners = vertex_attributes[:, channel][faces]
        weighted = [fragments.barycentric[..., i] * corners[:, i][face] for i in range(3)]
        channels.append(weighted[0] + weighted[1] + weighted[2])
    return jnp.stack(channels, axis=-1)


def rasterize_host(
    vertices_image: Float[AnyArray, "v 3"],
    faces: Int[AnyArray, "f 3"],
    image_size: tuple[int, int],
    cull_backfaces: bool = False,
) -> Fragments:
    """`rasterize` for callers outside of jit: chooses the budget and pads to few shapes.

    The result holds NumPy arrays. Budgets are powers of two, and vertex and face counts are
    rounded up to few sizes, so that scenes of varying size reuse the same compiled programs.
    """
    vertices = np.asarray(vertices_image, np.float32)
    triangles = np.asarray(faces, np.int32)
    check_mesh(vertices, triangles)
    budget = _budget(count_fragments(vertices, triangles, image_size, cull_backfaces))
    padded_vertices = pad_rows(vertices)
    padded_faces = pad_rows(triangles)  # faces (0, 0, 0): no area, never drawn
    while True:
        fragments = rasterize(
            jnp.asarray(padded_vertices),
            jnp.asarray(padded_faces),
            image_size,
            budget,
            cull_backfaces,
        )
        if int(fragments.overflow) == 0:
            return Fragments(*(np.asarray(x) for x in fragments))
        budget *= 2


def count_fragments(
    vertices_image: Float[AnyArray, "v 3"],
    faces: Int[AnyArray, "f 3"],
    image_size: tuple[int, int],
    cull_backfaces: bool = False,
) -> int:
    """The budget `rasterize` needs for this mesh (NumPy)."""
    corners = np.asarray(vertices_image, np.float32)[np.asarray(faces)]
    _, extent = _boxes(corners, *image_size, cull_backfaces, np)
    return int((extent[:, 0].astype(np.int64) * extent[:, 1]).sum())


def check_mesh(vertices: np.ndarray, faces: np.ndarray) -> None:
    """Raise a UserError for vertices that are not finite or faces that point outside."""
    if not np.isfinite(vertices).all():
        row = int(np.argwhere(~np.isfinite(vertices))[0, 0])
        raise UserError(f"vertices: vertex {row} is not finite; nothing can be drawn")
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise UserError(
            f"faces: indices run from {faces.min()} to {faces.max()}, "
            f"but there are {len(vertices)} vertices"
        )


def _boxes(corners, height, width, cull_backfaces, xp):
    """First pixel (F, 2) and extent (F, 2) of each triangle's clipped box; NumPy or JAX."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    low = xp.minimum(xp.minimum(a, b), c)
    high = xp.maximum(xp.maximum(a, b), c)
    size = xp.asarray([width, height], xp.float32)
    # Clip in float first: far-away corners overflow an int32.
    first = xp.ceil(xp.clip(low[:, :2] - (0.5 + _SLACK), 0.0, size))
    last = xp.floor(xp.clip(high[:, :2] - (0.5 - _SLACK), -1.0, size - 1.0))
    ab, ac = b[:, :2] - a[:, :2], c[:, :2] - a[:, :2]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    drawn = (low[:, 2] > NEAR) & ((area < 0.0) if cull_backfaces else (area != 0.0))
    extent = xp.where(drawn[:, None], xp.maximum(last - first + 1.0, 0.0), 0.0)
    return first.astype(xp.int32), extent.astype(xp.int32)


def flat_requests(
    extent: Int[Array, "n 2"], budget: int
) -> tuple[
    Int[Array, "budget"],
    Int[Array, "budget"],
    Int[Array, "budget"],
    Bool[Array, "budget"],
    Int[Array, ""],
]:
    """The pixels of n boxes of `extent` (width, height) in one list of fixed length.

    Returns:
      For each slot the box that owns it, its row and its column in the box, and whether the slot
      is used; and how many pixels did not fit.
    """
    ends = jnp.cumsum(extent[:, 0] * extent[:, 1])
    # The owner of a slot is the number of boxes that end at or before it (`jnp.repeat`, written
    # out, without its second pass).
    slot = jnp.arange(budget, dtype=jnp.int32)
    marks = jnp.zeros(budget, jnp.int32).at[ends].add(1, mode="drop")
    owner = jnp.minimum(jnp.cumsum(marks), len(extent) - 1)
    starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])
    local = slot - starts[owner]
    width = jnp.maximum(extent[:, 0], 1)[owner]
    down = local // width
    overflow = jnp.maximum(ends[-1] - budget, 0)
    return owner, down, local - down * width, slot < ends[-1], overflow


def _visible_faces(vertices, faces, height, width, max_fragments, cull_backfaces):
    corners = vertices[faces]
    first, extent = _boxes(corners, height, width, cull_backfaces, jnp)
    owner, down, along, valid, overflow = flat_requests(extent, max_fragments)

    # Per triangle: corner, edges over area, 1 / depth. Columns are gathered one by one, which
    # fuses with the arithmetic; gathering rows costs ten times as much.
    a = corners[:, 0, :2]
    ab, ac = corners[:, 1, :2] - a, corners[:, 2, :2] - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    inverse_area = jnp.where(area == 0.0, 0.0, 1.0 / jnp.where(area == 0.0, 1.0, area))
    slack = -_SLACK * jnp.abs(inverse_area) * (jnp.abs(ab) + jnp.abs(ac)).sum(-1)
    inverse_depth = 1.0 / jnp.maximum(corners[..., 2], NEAR)

    column = first[:, 0][owner] + along
    row = first[:, 1][owner] + down
    # Edge functions relative to the first corner keep their precision in large images.
    px = column + 0.5 - a[:, 0][owner]
    py = row + 0.5 - a[:, 1][owner]
    weight_b = px * (ac[:, 1] * inverse_area)[owner] - py * (ac[:, 0] * inverse_area)[owner]
    weight_c = py * (ab[:, 0] * inverse_area)[owner] - px * (ab[:, 1] * inverse_area)[owner]
    weight_a = 1.0 - weight_b - weight_c
    inside = jnp.minimum(jnp.minimum(weight_a, weight_b), weight_c) >= slack[owner]
    inside &= valid
    at_a, at_b, at_c = (inverse_depth[:, i][owner] for i in range(3))
    inverse = weight_a * at_a + weight_b * at_b + weight_c * at_c
    # Clamped, so that the slack never extrapolates the depth of a sliver seen edge-on.
    inverse = jnp.clip(
        inverse,
        jnp.minimum(jnp.minimum(at_a, at_b), at_c),
        jnp.maximum(jnp.maximum(at_a, at_b), at_c),
    )
    fragment_depth = 1.0 / inverse

    # Two scatters: the least depth of each pixel, then the lowest face that has it.
    pixel = jnp.where(inside, row * width + column, height * width)
    nearest = jnp.full(height * width, jnp.inf).at[pixel].min(fragment_depth, mode="drop")
    wins = inside & (fragment_depth == nearest[jnp.minimum(pixel, height * width - 1)])
    none = jnp.int32(len(faces))
    winner = (
        jnp.full(height * width, none)
        .at[jnp.where(wins, pixel, height * width)]
        .min(owner, mode="drop")
    )
    return jnp.where(winner == none, -1, winner).reshape(height, width), overflow


def _barycentric(vertices, faces, face_id):
    """Perspective-correct barycentrics (h, w, 3) and depth (h, w) of the chosen faces."""
    height, width = face_id.shape
    seen = face_id >= 0
    face = jnp.maximum(face_id, 0)
    safe = ((0.0, 0.0, 1.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0))

    def corner(i):
        values = vertices[faces[:, i]]
        return [jnp.where(seen, values[:, k][face], safe[i][k]) for k in range(3)]

    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (corner(i) for i in range(3))
    bx, by, cx, cy = bx - ax, by - ay, cx - ax, cy - ay
    px = jnp.arange(width)[None, :] + 0.5 - ax
    py = jnp.arange(height)[:, None] + 0.5 - ay
    area = bx * cy - by * cx
    weight_b = (px * cy - py * cx) / area
    weight_c = (py * bx - px * by) / area
    over_depth = [(1.0 - weight_b - weight_c) / az, weight_b / bz, weight_c / cz]
    depth = 1.0 / (over_depth[0] + over_depth[1] + over_depth[2])
    barycentric = jnp.stack([jnp.where(seen, w * depth, 0.0) for w in over_depth], axis=-1)
    return barycentric, jnp.where(seen, depth, jnp.inf)


def _budget(count: int) -> int:
    """The power of two that holds `count` fragments."""
    return max(_MIN_BUDGET, 1 << max(count - 1, 1).bit_length())


def pad_rows(rows: np.ndarray) -> np.ndarray:
    """Rows padded with zeros to a multiple of an eighth of the next power of two."""
    step = max((1 << max(len(rows) - 1, 1).bit_length()) // 8, 64)
    padded = np.zeros((-(-max(len(rows), 1) // step) * step, rows.shape[1]), rows.dtype)
    padded[: len(rows)] = rows
    return padded
