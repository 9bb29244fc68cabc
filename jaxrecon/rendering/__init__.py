"""One rasteriser, differentiable, and the pictures made with it."""

from jaxrecon.rendering.drawing import draw_keypoints
from jaxrecon.rendering.rasterize import Fragments, interpolate, rasterize, rasterize_host
from jaxrecon.rendering.shading import (
    PALETTE,
    Light,
    merge_meshes,
    render_mesh,
    render_overlay,
    shade,
    studio_light,
    vertex_normals,
)
from jaxrecon.rendering.silhouette import EdgeTopology, edge_topology, soft_silhouette
from jaxrecon.rendering.views import fitting_height, turntable, view_mesh

__all__ = [
    "PALETTE",
    "EdgeTopology",
    "Fragments",
    "Light",
    "draw_keypoints",
    "edge_topology",
    "fitting_height",
    "interpolate",
    "merge_meshes",
    "rasterize",
    "rasterize_host",
    "render_mesh",
    "render_overlay",
    "shade",
    "soft_silhouette",
    "studio_light",
    "turntable",
    "vertex_normals",
    "view_mesh",
]
