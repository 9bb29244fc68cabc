"""The interactive 3D view of a page: meshes packed into text, drawn by `assets/viewer.js`."""

import base64
import dataclasses
import html
import json
from collections.abc import Sequence
from importlib import resources

import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.rendering import PALETTE
from jaxrecon.typing import AnyArray, Float, Int

_LEVELS = 65535  # steps of a quantised coordinate; 0.03 mm for a body


@dataclasses.dataclass(frozen=True)
class Layer:
    """One mesh of a scene, at rest or moving.

    Attributes:
      name: on its button.
      vertices: (V, 3), or (T, V, 3) for T steps; metres, camera frame (y down).
      faces: (F, 3).
      colour: sRGB in [0, 1].
      hidden: shown only when its button is pressed.
    """

    name: str
    vertices: Float[AnyArray, "*t v 3"]
    faces: Int[AnyArray, "f 3"]
    colour: tuple[float, float, float] = PALETTE["prediction"]
    hidden: bool = False


@dataclasses.dataclass(frozen=True)
class Scene:
    """What the viewer shows.

    Attributes:
      layers: meshes; those with several steps follow the slider, the others stand still.
      labels: of the steps; "step 0", "step 1", ... by default.
      caption: one line below.
      interval: milliseconds that a step stays when they are played.
    """

    layers: Sequence[Layer]
    labels: Sequence[str] = ()
    caption: str = ""
    interval: int = 220


def viewer_html(scene: Scene) -> str:
    """The viewer as an HTML fragment; `viewer_script` must stand once at the end of the page.

    Raises:
      UserError: no layers, vertices that are not finite, labels that do not fit the steps.
    """
    meshes = [_frames(layer) for layer in scene.layers]
    if not meshes:
        raise UserError("a scene needs at least one layer")
    steps = max(len(frames) for frames in meshes)
    labels = list(scene.labels) or [f"step {i}" for i in range(steps)]
    if len(labels) != steps:
        raise UserError(f"the scene has {steps} steps but {len(labels)} labels")
    low = np.min([frames.min((0, 1)) for frames in meshes], axis=0)
    high = np.max([frames.max((0, 1)) for frames in meshes], axis=0)
    step = max(float((high - low).max()), 1e-6) / _LEVELS
    wide = max(frames.shape[1] for frames in meshes) > _LEVELS + 1

    packed_faces: dict[str, str] = {}
    layers = []
    for layer, frames in zip(scene.layers, meshes):
        layers.append(
            {
                "name": layer.name,
                "colour": [round(float(c), 4) for c in layer.colour],
                "hidden": layer.hidden,
                "faces": _faces_key(np.asarray(layer.faces), wide, packed_faces),
                "frames": [
                    _base64(np.round((vertices - low) / step).astype("<u2")) for vertices in frames
                ],
            }
        )
    data = {
        "low": [float(x) for x in low],
        "step": step,
        "wide": wide,
        "faces": packed_faces,
        "layers": layers,
        "labels": labels,
        "interval": scene.interval,
    }
    # "</" would end the script element.
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    return (
        '<div class="viewer"><canvas tabindex="0" role="img" aria-label="3D view; drag to turn, '
        'arrow keys work too"></canvas>'
        '<p class="no-webgl">This browser has no WebGL; open the .glb file instead.</p>'
        f'<div class="viewer-bar">{_buttons(scene)}{_slider(labels)}</div>'
        '<p class="hint">Drag to turn, pinch or click and scroll to zoom, shift-drag to move, '
        "double-click to reset."
        f"{' ' + html.escape(scene.caption) if scene.caption else ''}</p>"
        f'<script type="application/json">{text}</script></div>'
    )


def viewer_script() -> str:
    """The viewer's program, as a script element."""
    return f"<script>{asset('viewer.js')}</script>"


def asset(name: str) -> str:
    """Text of a file in `assets/`."""
    return (resources.files("jaxrecon.report") / "assets" / name).read_text(encoding="utf-8")


def _frames(layer: Layer) -> np.ndarray:
    vertices = np.asarray(layer.vertices, np.float32)
    vertices = vertices[None] if vertices.ndim == 2 else vertices
    if vertices.size == 0 or not np.isfinite(vertices).all():
        raise UserError(f"layer {layer.name!r}: its vertices are empty or not all finite")
    return vertices


def _faces_key(faces: np.ndarray, wide: bool, packed: dict[str, str]) -> str:
    """Layers that share their faces share the text."""
    text = _base64(faces.astype("<u4" if wide else "<u2"))
    for key, known in packed.items():
        if known == text:
            return key
    key = f"f{len(packed)}"
    packed[key] = text
    return key


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _buttons(scene: Scene) -> str:
    if len(scene.layers) < 2:
        return ""
    parts = []
    for layer in scene.layers:
        red, green, blue = (round(255 * float(c)) for c in layer.colour)
        parts.append(
            f'<button type="button" class="layer" style="--swatch:rgb({red},{green},{blue})">'
            f"{html.escape(layer.name)}</button>"
        )
    return f'<span class="layers">{"".join(parts)}</span>'


def _slider(labels: list[str]) -> str:
    if len(labels) < 2:
        return ""
    return (
        '<span class="steps"><button type="button" class="play" aria-label="play">&#9654;</button>'
        f'<input type="range" min="0" max="{len(labels) - 1}" value="{len(labels) - 1}" '
        'aria-label="step"><output></output></span>'
    )
