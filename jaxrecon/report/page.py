"""One self-contained `index.html` for a run: numbers, curves, pictures, the body to turn.

Everything is inside the file (images and meshes as data, no network, no library), so it can be
mailed, kept beside a paper, or opened from a cluster's file system. Parts that a run does not
have yet are left out.
"""

import base64
import dataclasses
import html
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxrecon.io.atomic import write_text
from jaxrecon.io.images import encode_image
from jaxrecon.report.animation import encode_animation
from jaxrecon.report.curves import Chart, Number
from jaxrecon.report.viewer import Scene, asset, viewer_html, viewer_script

Image = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One tile. Values may be None or not finite: then they are left out.

    Attributes:
      label: "PA-MPJPE".
      unit: "mm".
      after: the number in large, after adaptation (or the only one there is).
      before: before adaptation.
      baseline: of the mean pose.
      about: one line that says what is measured.
      digits: after the point.
      higher_is_better: for accuracies rather than errors.
    """

    label: str
    unit: str = ""
    after: Number | None = None
    before: Number | None = None
    baseline: Number | None = None
    about: str = ""
    digits: int = 1
    higher_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class Sample:
    """One row of the gallery.

    Attributes:
      name: of the example.
      pictures: caption -> RGB image, in order: input, before, after, side view.
      facts: shown beside the name: {"PA-MPJPE": "81.2 -> 74.0 mm"}.
    """

    name: str
    pictures: Mapping[str, Image]
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Movie:
    """A moving picture inside the page.

    Attributes:
      data: the file: a video that browsers play, or an animated image.
      mime: "video/mp4", "image/webp" ...
      caption: one line below.
    """

    data: bytes
    mime: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class RunPage:
    """What a page shows; every part but the title may be missing.

    Attributes:
      title, subtitle: what was run.
      facts: short facts below the title: {"images": "2,000", "time": "4 min"}.
      notes: warnings and remarks, a line each.
      metrics: the tiles.
      movie: shown large.
      time_charts: what changes over the frames of a video.
      adaptation_charts: error per step of test-time optimisation.
      training_charts: loss and scores over training.
      samples: the gallery.
      scene: the interactive 3D view.
      turntable: RGB frames of one size.
      command: what made the run.
      protocol: how the metrics were measured.
      config: resolved; nested mappings, or text.
      files: label -> path relative to the page.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    metrics: Sequence[Metric] = ()
    movie: Movie | None = None
    time_charts: Sequence[Chart] = ()
    adaptation_charts: Sequence[Chart] = ()
    training_charts: Sequence[Chart] = ()
    samples: Sequence[Sample] = ()
    scene: Scene | None = None
    turntable: Sequence[Image] = ()
    command: str = ""
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] | str = ""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write_run_page(path: str | os.PathLike[str], page: RunPage) -> None:
    """Writes the page, whole or not at all.

    Raises:
      UserError: the path cannot be written, or a part of the page is not what it should be.
    """
    write_text(path, render_page(page))


def render_page(page: RunPage) -> str:
    """The page as HTML text."""
    body = [
        _header(page),
        "<main>",
        _tiles(page.metrics),
        _movie(page.movie),
        _gallery(page.samples),
        _stage(page),
        _charts("Over time", "", page.time_charts),
        _charts(
            "Test-time optimisation",
            "Error after each step of optimisation on the 2D keypoints of the test images.",
            page.adaptation_charts,
        ),
        _charts("Training", "", page.training_charts),
        _protocol(page.protocol),
        _origin(page),
        "</main>",
        "<footer>Made by jaxrecon. Errors are means over the evaluated examples.</footer>",
    ]
    if page.samples:
        body.append('<dialog><img alt=""><p></p></dialog>')
    body.append(f"<script>{asset('page.js')}</script>")
    if page.scene is not None:
        body.append(viewer_script())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{html.escape(page.title)}</title><link rel="icon" href="data:,">'
        f"<style>{asset('page.css')}</style></head><body>{''.join(body)}</body></html>\n"
    )


def image_uri(image: Image, quality: int = 88) -> str:
    """An RGB image as a data URI (WebP)."""
    return _uri("image/webp", encode_image(image, ".webp", quality))


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _header(page: RunPage) -> str:
    parts = [f"<header><h1>{html.escape(page.title)}</h1>"]
    if page.subtitle:
        parts.append(f'<p class="subtitle">{html.escape(page.subtitle)}</p>')
    if page.facts:
        items = (
            f"<li>{html.escape(k)} <b>{html.escape(str(v))}</b></li>" for k, v in page.facts.items()
        )
        parts.append(f'<ul class="facts">{"".join(items)}</ul>')
    if page.notes:
        lines = "".join(f"<p>{html.escape(note)}</p>" for note in page.notes)
        parts.append(f'<div class="notes">{lines}</div>')
    return "".join(parts) + "</header>"


def _tiles(metrics: Sequence[Metric]) -> str:
    tiles = [_tile(metric) for metric in metrics if _known(metric.after)]
    return f'<section class="tiles">{"".join(tiles)}</section>' if tiles else ""


def _known(value: Number | None) -> bool:
    return value is not None and math.isfinite(value)


def _tile(metric: Metric) -> str:
    values = {
        "mean pose": metric.baseline,
        "before adaptation": metric.before,
        "after adaptation": metric.after,
    }
    known = {name: float(v) for name, v in values.items() if v is not None and _known(v)}
    after = known["after adaptation"]
    unit = html.escape(metric.unit)
    parts = [
        f'<article class="tile card"><h3>{html.escape(metric.label)}</h3>'
        f'<p class="value">{after:.{metric.digits}f} <small>{unit}</small>'
        f"{_delta(known.get('before adaptation'), after, metric.higher_is_better)}</p>"
    ]
    if len(known) > 1:
        largest = max(max(known.values()), 1e-12)
        rows = (
            f'<dt>{name}</dt><span class="bar {name.split()[0]}"><i style="width:'
            f'{100 * max(value, 0) / largest:.1f}%"></i></span><dd>{value:.{metric.digits}f}</dd>'
            for name, value in known.items()
        )
        parts.append(f'<dl class="bars">{"".join(rows)}</dl>')
    if metric.about:
        parts.append(f'<p class="about">{html.escape(metric.about)}</p>')
    return "".join(parts) + "</article>"


def _delta(before: float | None, after: float, higher_is_better: bool) -> str:
    if not before:
        return ""
    percent = 100 * (after / before - 1)
    if abs(percent) < 0.05:
        return '<span class="delta same">unchanged</span>'
    kind = "better" if (percent > 0) == higher_is_better else "worse"
    # U+2212 minus and U+2009 thin space.
    sign = "+" if percent > 0 else "\N{MINUS SIGN}"
    return f'<span class="delta {kind}">{sign}{abs(percent):.1f}\N{THIN SPACE}%</span>'


def _movie(movie: Movie | None) -> str:
    if movie is None:
        return ""
    source = f'src="{_uri(movie.mime, movie.data)}"'
    label = html.escape(movie.caption or "overlay", quote=True)
    if movie.mime.startswith("video/"):
        shown = f'<video {source} aria-label="{label}" controls autoplay loop muted playsinline>'
        shown += "</video>"
    else:
        shown = f'<img {source} alt="{label}">'
    caption = f"<figcaption>{html.escape(movie.caption)}</figcaption>" if movie.caption else ""
    return f'<section><figure class="movie card">{shown}{caption}</figure></section>'


def _charts(title: str, lead: str, charts: Sequence[Chart]) -> str:
    if not charts:
        return ""
    figures = "".join(
        f'<figure class="chart card" style="margin:0">{c.svg()}</figure>' for c in charts
    )
    return _section(title, lead, f'<div class="charts">{figures}</div>')


def _gallery(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    rows = []
    for sample in samples:
        figures = "".join(
            f'<figure><img src="{image_uri(image)}" '
            f'alt="{html.escape(f"{sample.name}: {caption}", quote=True)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for caption, image in sample.pictures.items()
        )
        facts = "".join(
            f"<span>{html.escape(k)} {html.escape(str(v))}</span>" for k, v in sample.facts.items()
        )
        rows.append(
            f'<article class="sample card"><h3>{html.escape(sample.name)}{facts}</h3>'
            f'<div class="pictures" style="--n:{max(len(sample.pictures), 1)}">{figures}</div>'
            "</article>"
        )
    widest = max(
        (image.shape[1] / image.shape[0] for s in samples for image in s.pictures.values()),
        default=1.0,
    )
    narrow = " narrow" if widest <= 1.05 and len(samples) > 1 else ""
    return _section("Examples", "", f'<div class="samples{narrow}">{"".join(rows)}</div>')


def _stage(page: RunPage) -> str:
    parts = []
    if page.scene is not None:
        view = viewer_html(page.scene)
        parts.append(view.replace('<div class="viewer">', '<div class="viewer card">', 1))
    if page.turntable:
        uri = _uri("image/webp", encode_animation(page.turntable, ".webp"))
        parts.append(
            f'<figure class="turntable card"><img src="{uri}" alt="the body on a turntable">'
            "<figcaption>One turn of the result</figcaption></figure>"
        )
    if not parts:
        return ""
    single = " single" if len(parts) == 1 else ""
    return _section("In three dimensions", "", f'<div class="stage{single}">{"".join(parts)}</div>')


def _protocol(protocol: Mapping[str, Any]) -> str:
    if not protocol:
        return ""
    pairs = "".join(
        f"<dt>{html.escape(str(k).replace('_', ' '))}</dt><dd>{html.escape(_words(v))}</dd>"
        for k, v in protocol.items()
    )
    lead = "How these numbers were measured. Numbers of another protocol do not compare."
    return _section("Protocol", lead, f'<dl class="pairs card">{pairs}</dl>')


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{k}: {_words(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_words(v) for v in value)
    return str(value)


def _origin(page: RunPage) -> str:
    parts = []
    if page.command:
        parts.append(
            f'<div class="command card"><pre>{html.escape(page.command)}</pre>'
            '<button type="button">copy</button></div>'
        )
    if page.config:
        config = page.config
        text = config if isinstance(config, str) else json.dumps(config, indent=2, default=str)
        parts.append(
            '<details class="card"><summary>Resolved config</summary>'
            f"<pre>{html.escape(text)}</pre></details>"
        )
    found = _section("How it was made", "", "".join(parts)) if parts else ""
    if page.files:
        links = "".join(
            f'<li><a href="{html.escape(path, quote=True)}">{html.escape(label)}</a></li>'
            for label, path in page.files.items()
        )
        found += _section("Files", "", f'<ul class="files">{links}</ul>')
    return found


def _section(title: str, lead: str, content: str) -> str:
    lead = f'<p class="lead">{html.escape(lead)}</p>' if lead else '<p class="lead"></p>'
    return f"<section><h2>{html.escape(title)}</h2>{lead}{content}</section>"
