"""Meshes as pictures: light, colour, clean edges, and the overlay that proves a camera."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxrecon.errors import UserError
from jaxrecon.rendering.rasterize import (
    NEAR,
    check_mesh,
    pad_rows,
    rasterize_host,
)
from jaxrecon.typing import AnyArray, Array, Float, Int

Number = float | int | np.floating

# sRGB colours in [0, 1] for what a picture shows.
PALETTE: dict[str, tuple[float, float, float]] = {
    "prediction": (0.62, 0.78, 0.93),  # light blue: the result
    "before": (0.95, 0.73, 0.55),  # warm: the result before adaptation
    "truth": (0.66, 0.82, 0.66),  # green: ground truth
    "object": (0.84, 0.82, 0.79),  # clay: things that are no person
}
# For several people in one picture, in turn.
PEOPLE: tuple[tuple[float, float, float], ...] = (
    PALETTE["prediction"],
    (0.95, 0.75, 0.58),
    (0.66, 0.83, 0.68),
    (0.79, 0.71, 0.92),
    (0.94, 0.72, 0.76),
    (0.89, 0.85, 0.60),
)
STUDIO: tuple[float, float, float] = (0.955, 0.960, 0.968)  # background without a photograph

_MAX_SUPERSAMPLED = 2048  # pixels a side; beyond it edges are clean enough without


class Light(NamedTuple):
    """Directional lights that move with the camera; a pytree, so all of it may be batched.

    `directions` point from the surface to the lights in the camera frame (y down, so up is
    negative y); the first alone makes highlights. Intensities are linear.
    """

    directions: Float[AnyArray, "l 3"]
    intensities: Float[AnyArray, "l"]
    ambient: Float[AnyArray, ""]
    sky: Float[AnyArray, ""]  # more ambient for what faces up
    specular: Float[AnyArray, ""]
    shininess: Float[AnyArray, ""]


def studio_light() -> Light:
    """A key light from above left, a fill from the right, a soft sky and a low highlight."""
    directions = np.array([[-0.45, -0.75, -0.80], [0.90, -0.10, -0.55], [0.1, 0.5, -0.9]])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Light(
        directions.astype(np.float32),
        np.array([0.80, 0.24, 0.10], np.float32),
        *(np.array(x, np.float32) for x in (0.17, 0.16, 0.09, 24.0)),
    )


def vertex_normals(
    vertices: Float[AnyArray, "v 3"], faces: Int[AnyArray, "f 3"]
) -> Float[Array, "v 3"]:
    """Unit normals, the area-weighted mean of the faces around each vertex; finite gradients.

    Outward where faces run counter-clockwise seen from outside; zero for unused vertices.
    """
    vertices, faces = jnp.asarray(vertices), jnp.asarray(faces)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    across = jnp.cross(b - a, c - a)
    total = jnp.zeros_like(vertices)
    for corner in range(3):
        total = total.at[faces[:, corner]].add(across)
    square = (total**2).sum(-1, keepdims=True)
    used = square > 0
    return jnp.where(used, total / jnp.sqrt(jnp.where(used, square, 1.0)), 0.0)


def shade(
    normals: Float[AnyArray, "*b 3"],
    colours: Float[AnyArray, "*b 3"],
    points: Float[AnyArray, "*b 3"],
    light: Light,
) -> Float[AnyArray, "*b 3"]:
    """Lambert, sky ambient and a Blinn-Phong highlight; sRGB colours in and out.

    NumPy in, NumPy out (pictures, where the number of covered pixels varies); JAX in, JAX out
    (photometric losses, differentiable in everything).

    Args:
      normals: need no unit length; turned towards the camera, so both sides are lit.
      points: camera frame, metres; only their direction counts.
    """
    xp = jnp if isinstance(normals, jax.Array) else np
    view = -_unit(points, xp)
    normals = _unit(normals, xp)
    # Mirrored, not negated: at an outline the two agree, so no dark fringe runs around it.
    normals = normals - 2.0 * xp.minimum(_dot(normals, view, xp), 0.0) * view
    facing = xp.maximum(normals @ light.directions.T, 0.0)
    up = 0.5 - 0.5 * normals[..., 1:2]
    diffuse = (facing @ light.intensities)[..., None] + light.ambient + light.sky * up
    half = _unit(view + light.directions[0], xp)
    cosine = xp.maximum(_dot(normals, half, xp), 1e-6)
    highlight = xp.exp(light.shininess * xp.log(cosine)) * light.intensities[0]
    # Colours are taken to linear light by their square; near enough to 2.2 and much faster.
    linear = colours**2 * diffuse + light.specular * highlight
    return xp.sqrt(xp.clip(linear, 1e-6, 1.0))


def render_mesh(
    vertices: Float[AnyArray, "v 3"],
    faces: Int[AnyArray, "f 3"],
    focal: Number | AnyArray,
    center: tuple[float, float] | AnyArray,
    image_size: tuple[int, int],
    colours: tuple[float, float, float] | AnyArray | None = None,
    light: Light | None = None,
    background: tuple[float, float, float] | UInt8[np.ndarray, "h w 3"] | None = None,
    opacity: float | int = 1.0,
    supersample: int = 2,
) -> UInt8[np.ndarray, "h w 3"]:
    """A mesh as an RGB picture.

    Args:
      vertices: camera frame (x right, y down, z forward), metres. Parts behind the camera are
        left out.
      focal: pixels, one number or (fx, fy).
      center: principal point, pixels (x, y).
      image_size: (height, width).
      colours: sRGB in [0, 1], one or for each vertex; the palette's prediction by default.
      background: an image of `image_size` or a colour; a light grey by default.
      opacity: of the mesh over the background.
      supersample: 2 for clean edges, 1 for speed.

    Raises:
      UserError: vertices that are not finite, faces that point outside, a background of
        another size, an image without pixels.
    """
    canvas = _canvas(image_size, background)
    vertices = np.asarray(vertices, np.float32)
    faces = np.asarray(faces, np.int32)
    check_mesh(vertices, faces)
    focal = np.broadcast_to(np.asarray(focal, np.float32), (2,))
    center = np.asarray(center, np.float32)
    if faces.size == 0:
        return canvas
    image = _project(vertices, focal, center, 1)
    window = _window(image, image_size)
    if window is None:
        return canvas
    top, left, height, width = window
    if max(height, width) * supersample > _MAX_SUPERSAMPLED:
        supersample = 1
    shifted = center - np.array([left, top], np.float32)
    image = _project(vertices, focal, shifted, supersample)
    size = (height * supersample, width * supersample)
    fragments = rasterize_host(image, faces, size)
    colours = np.asarray(PALETTE["prediction"] if colours is None else colours, np.float32)
    attributes = np.concatenate(
        [_normals_host(vertices, faces), np.broadcast_to(colours, vertices.shape)], -1
    )
    # Only covered samples are shaded, and they may be few.
    rows, columns = np.nonzero(fragments.face_id >= 0)
    corners = faces[fragments.face_id[rows, columns]]
    weights = fragments.barycentric[rows, columns]
    normals, colour = np.split(np.einsum("pi,pic->pc", weights, attributes[corners]), 2, axis=-1)
    samples = (np.stack([columns, rows], -1) + np.float32(0.5)) / np.float32(supersample)
    rays = np.concatenate([(samples - shifted) / focal, np.ones((len(rows), 1), np.float32)], -1)
    rgba = np.zeros((*size, 4), np.float32)
    rgba[rows, columns, :3] = shade(normals, colour, rays, light or studio_light())
    rgba[rows, columns, 3] = 1.0
    rgba = _box_mean(rgba, supersample)

    part = canvas[top : top + height, left : left + width]
    blended = part * (1.0 - opacity * rgba[..., 3:]) + 255.0 * opacity * rgba[..., :3]
    part[...] = np.round(blended).astype(np.uint8)
    return canvas


def render_overlay(
    image: UInt8[np.ndarray, "h w 3"],
    vertices: Float[AnyArray, "v 3"],
    faces: Int[AnyArray, "f 3"],
    focal: Number | AnyArray,
    center: tuple[float, float] | AnyArray,
    colours: tuple[float, float, float] | AnyArray | None = None,
    opacity: float | int = 0.9,
    light: Light | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The mesh over its photograph (spec meta_hmr 6.3: 0.9 mesh + 0.1 image); see `render_mesh`."""
    return render_mesh(
        vertices, faces, focal, center, image.shape[:2], colours, light, image, opacity
    )


def merge_meshes(
    meshes: list[tuple[AnyArray, AnyArray, AnyArray | tuple[float, float, float]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Several (vertices, faces, colours) as one mesh that hides and is hidden as a whole."""
    vertices = [np.asarray(v, np.float32) for v, _, _ in meshes]
    starts = np.cumsum([0, *(len(v) for v in vertices)])
    faces = [np.asarray(f, np.int32) + s for (_, f, _), s in zip(meshes, starts)]
    colours = [
        np.broadcast_to(np.asarray(c, np.float32), v.shape)
        for v, (_, _, c) in zip(vertices, meshes)
    ]
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(colours)


def _dot(x, y, xp):
    return xp.einsum("...i,...i->...", x, y)[..., None]


def _unit(x, xp):
    return x / xp.sqrt(xp.maximum(_dot(x, x, xp), 1e-12))


def _box_mean(image: np.ndarray, factor: int) -> np.ndarray:
    offsets = [(i, j) for i in range(factor) for j in range(factor)]
    total = np.sum([image[i::factor, j::factor] for i, j in offsets], axis=0)
    return total / np.float32(factor**2)


def _normals_host(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`vertex_normals`, compiled once for few padded sizes."""
    return np.asarray(_jitted_normals(pad_rows(vertices), pad_rows(faces)))[: len(vertices)]


_jitted_normals = jax.jit(vertex_normals)


def _project(vertices, focal, center, scale):
    """Pixel x, y at the supersampled size, and depth."""
    depth = vertices[:, 2:]
    # What lies behind is culled by its depth; any finite pixel will do for it.
    safe = np.where(depth > NEAR, depth, 1.0)
    return np.concatenate([(vertices[:, :2] / safe * focal + center) * scale, depth], -1)


def _canvas(image_size, background):
    if min(image_size) < 1:
        raise UserError(f"image_size {tuple(image_size)} has no pixels")
    if isinstance(background, np.ndarray) and background.ndim == 3:
        if background.shape[:2] != tuple(image_size):
            raise UserError(
                f"the background is {background.shape[0]} x {background.shape[1]}, "
                f"the picture {image_size[0]} x {image_size[1]}"
            )
        return background.copy()
    colour = np.asarray(STUDIO if background is None else background, np.float32)
    return np.broadcast_to(np.round(colour * 255).astype(np.uint8), (*image_size, 3)).copy()


def _window(image: np.ndarray, image_size: tuple[int, int]):
    """(top, left, height, width) of the part to render, of few different sizes; or None."""
    seen = image[image[:, 2] > NEAR]
    if len(seen) == 0:
        return None
    low = np.clip(np.floor(seen[:, :2].min(0)), 0, None)
    high = np.ceil(seen[:, :2].max(0))
    spans = []
    for side, first, last in zip(image_size, low[::-1], high[::-1]):
        last = min(last, side)
        if last <= first:
            return None
        # Small pictures are rendered whole; in large ones the window grows in coarse steps.
        length = side if side <= 512 else min(side, int(-(-(last - first) // 256) * 256))
        spans.append((min(int(first), side - length) if side > 512 else 0, length))
    (top, height), (left, width) = spans
    return top, left, height, width
