"""Line charts as SVG text: no plotting library, legible on light and dark pages.

A chart is one `<svg>` that brings its own style, so the same text stands in a page or alone in
a file. Colours are CSS variables with a dark twin.
"""

import dataclasses
import html
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Light and dark twins, told apart also without colour vision (lightness differs in turn).
COLOURS: tuple[tuple[str, str], ...] = (
    ("#2f6fb7", "#78b3ee"),  # blue
    ("#d9772b", "#f2a566"),  # orange
    ("#3d8f5f", "#7fcf9f"),  # green
    ("#8a5fc0", "#bd9bec"),  # violet
    ("#c2486a", "#f08aa6"),  # rose
    ("#6d7480", "#a7afbb"),  # grey
)
Number = float | int | np.floating | np.integer

_MAX_POINTS = 500  # of one line; more than a chart has pixels for
_MARKED = 40  # lines of at most so many points show each of them
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 40, 46

_STYLE = """
.jr-chart{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;--ink:#1d2430;
--soft:#667080;--grid:#e3e7ed;%s}
.jr-chart text{fill:var(--soft)}.jr-chart .title{fill:var(--ink);font-weight:600;font-size:13px}
.jr-chart .grid{stroke:var(--grid);stroke-width:1}.jr-chart .axis{stroke:var(--soft);opacity:.55}
.jr-chart .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.jr-chart .raw{stroke-width:1;opacity:.28}.jr-chart .dashed{stroke-dasharray:5 4}
@media (prefers-color-scheme:dark){.jr-chart{--ink:#e8ecf2;--soft:#98a2b1;--grid:#2c333d;%s}}
"""


@dataclasses.dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
      name: for the legend.
      x, y: points, in order of x; a value that is not finite breaks the line.
      dashed: for what is no measurement along x, such as a baseline.
      smooth: half-life in points of an exponential mean, drawn over the faint raw line; 0 draws
        the raw line alone.
      colour: index into `COLOURS`; by default the place in the chart.
    """

    name: str
    x: Sequence[Number] | np.ndarray
    y: Sequence[Number | None] | np.ndarray
    dashed: bool = False
    smooth: Number = 0.0
    colour: int | None = None


@dataclasses.dataclass(frozen=True)
class Chart:
    """A line chart.

    Attributes:
      title, x_label, y_label: the unit belongs into the label: "MPJPE (mm)".
      log: logarithmic y; falls back to linear if no value is positive.
      zero: y starts at 0.
    """

    title: str
    series: Sequence[Series]
    x_label: str = ""
    y_label: str = ""
    log: bool = False
    zero: bool = False

    def svg(self, width: int = 560, height: int = 320) -> str:
        """The chart as SVG text."""
        return _svg(self, width, height)


def ticks(low: Number, high: Number, count: int = 5, whole: bool = False) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) from within [low, high].

    Args:
      whole: none between the integers, for an axis that counts.
    """
    low, high = float(low), float(high)
    if not high > low:
        return [low]
    raw = max((high - low) / count, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    factors = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    step = next(m * power for m in factors if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    # A multiple of the step, rounded so that 0.30000000000000004 reads 0.3.
    digits = 2 - math.floor(math.log10(step))
    return [round(i * step, digits) + 0.0 for i in range(first, last + 1)]


def log_ticks(low: Number, high: Number) -> list[float]:
    """Decades within [low, high], with 2 and 5 between where there are few of them."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = math.log10(high / low)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        found = [f * 10.0**e for e in exponents for f in factors]
        found = [t for t in found if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]
        if len(found) >= 3:
            return found if decades < 7 else found[:: math.ceil(decades / 7)]
    return ticks(low, high)


def format_number(value: Number) -> str:
    """Short: 12k, 3.2M, 0.05, 2e-6."""
    value = float(value)
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e4:
        for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size >= unit:
                return f"{value / unit:.4g}{name}"
    if size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def moving_mean(values: np.ndarray, half_life: Number) -> np.ndarray:
    """Exponential mean to both sides, so that it neither lags nor starts at zero.

    Values that are not finite are left out of the means and stay gaps.
    """
    known = np.isfinite(values)
    decay = 0.5 ** (1.0 / max(float(half_life), 1e-9))

    def one_sided(order: slice) -> tuple[np.ndarray, np.ndarray]:
        total = weight = 0.0
        sums, weights = np.zeros(len(values)), np.zeros(len(values))
        for i in np.arange(len(values))[order]:
            total, weight = total * decay, weight * decay
            if known[i]:
                total, weight = total + float(values[i]), weight + 1.0
            sums[i], weights[i] = total, weight
        return sums, weights

    (past, past_weight), (future, future_weight) = (
        one_sided(slice(None)),
        one_sided(slice(None, None, -1)),
    )
    # Each value stands in both sums, so it is taken out of one.
    weight = past_weight + future_weight - known
    total = past + future - np.where(known, values, 0.0)
    return np.where(known, total / np.maximum(weight, 1e-9), np.nan)


def _svg(chart: Chart, width: int, height: int) -> str:
    lines = [_Line.of(series, i) for i, series in enumerate(chart.series)]
    log = chart.log and any((line.y > 0).any() for line in lines)
    if log:
        for line in lines:
            line.y[~(line.y > 0)] = np.nan
    lines = [line for line in lines if np.isfinite(line.y).any()]
    head = (
        f'<svg class="jr-chart" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'aria-label="{html.escape(chart.title, quote=True)}"'
    )
    style = _STYLE % tuple(
        ";".join(f"--c{i}:{pair[k]}" for i, pair in enumerate(COLOURS)) for k in (0, 1)
    )
    title = f'<text class="title" x="4" y="16">{html.escape(chart.title)}</text>'
    if not lines:
        empty = f'<text x="{width / 2}" y="{height / 2}" text-anchor="middle">no data yet</text>'
        return f"{head}><style>{style}</style>{title}{empty}</svg>"
    frame = _Frame.around(lines, width, height, log, chart.zero)
    body = [title, _legend(lines, width), _axes(chart, frame)]
    body += [_draw(line, frame) for line in lines]
    return f"{head} data-chart='{_data(lines, frame)}'><style>{style}</style>{''.join(body)}</svg>"


@dataclasses.dataclass
class _Line:
    series: Series
    colour: int
    x: np.ndarray
    y: np.ndarray

    @staticmethod
    def of(series: Series, place: int) -> "_Line":
        colour = place if series.colour is None else series.colour
        x = np.asarray(series.x, float)
        y = np.array([math.nan if v is None else v for v in series.y], float)
        known = np.isfinite(x)
        return _Line(series, colour % len(COLOURS), x[known], y[known])


@dataclasses.dataclass(frozen=True)
class _Frame:
    """From values to pixels of the picture."""

    width: int
    height: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool
    counts: bool  # x takes integers only

    @staticmethod
    def around(lines: list[_Line], width: int, height: int, log: bool, zero: bool) -> "_Frame":
        x = np.concatenate([line.x[np.isfinite(line.y)] for line in lines])
        # What the eye follows sets the range: a smoothed line's spikes may leave the picture.
        y = np.concatenate([_followed(line) for line in lines])
        y = y[np.isfinite(y)]
        low, high = float(y.min()), float(y.max())
        if log:
            margin = max((high / low) ** 0.06, 1.02)
            low, high = low / margin, high * margin
        else:
            margin = (high - low or abs(high) or 1.0) * 0.07
            low, high = (min(low, 0.0) if zero else low - margin), high + margin
        x_low, x_high = float(x.min()), float(x.max())
        if x_high == x_low:
            x_low, x_high = x_low - 0.5, x_high + 0.5
        counts = bool((x == np.round(x)).all())
        return _Frame(width, height, (x_low, x_high), (low, high), log, counts)

    def x(self, value: Any) -> Any:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (self.width - _LEFT - _RIGHT)

    def y(self, value: Any) -> Any:
        low, high = self.y_range
        if self.log:
            share = np.log(value / low) / math.log(high / low)
        else:
            share = (value - low) / (high - low)
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)


def _followed(line: _Line) -> np.ndarray:
    if not line.series.smooth:
        return line.y
    smooth = moving_mean(line.y, line.series.smooth)
    known = line.y[np.isfinite(line.y)]
    return np.concatenate([smooth, np.quantile(known, [0.02, 0.98])])


def _axes(chart: Chart, frame: _Frame) -> str:
    right, floor = frame.width - _RIGHT, frame.height - _BOTTOM
    parts = []
    y_ticks = log_ticks(*frame.y_range) if frame.log else ticks(*frame.y_range)
    for value in y_ticks:
        y = float(frame.y(value))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{format_number(value)}</text>'
        )
    x_ticks = ticks(*frame.x_range, count=7, whole=frame.counts)
    for value in x_ticks:
        x = float(frame.x(value))
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>'
            f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{format_number(value)}</text>'
        )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle}" y="{frame.height - 8}" text-anchor="middle">'
        f"{html.escape(chart.x_label)}</text>"
    )
    centre = (_TOP + floor) / 2
    parts.append(
        f'<text transform="translate(13 {centre}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(chart.y_label)}</text>"
    )
    return "".join(parts)


def _legend(lines: list[_Line], width: int) -> str:
    if len(lines) < 2:
        return ""
    parts = []
    # Right to left; about 6.6 pixels a letter of this size.
    right = float(width - _RIGHT)
    for line in reversed(lines):
        name = line.series.name
        right -= 6.6 * len(name)
        dashed = " dashed" if line.series.dashed else ""
        parts.append(
            f'<text x="{right:.0f}" y="32">{html.escape(name)}</text>'
            f'<path class="line{dashed}" style="stroke:var(--c{line.colour})" '
            f'd="M{right - 22:.0f} 28h16"/>'
        )
        right -= 36
    return "".join(parts)


def _draw(line: _Line, frame: _Frame) -> str:
    x, y = frame.x(line.x), frame.y(line.y)
    top, floor = _TOP - 4.0, frame.height - _BOTTOM + 0.0
    style = f'style="stroke:var(--c{line.colour})"'
    name = html.escape(line.series.name)
    parts = []
    if line.series.smooth and len(line.x) > 2:
        parts.append(f'<path class="line raw" {style} d="{_path(x, np.clip(y, top, floor))}"/>')
        y = frame.y(moving_mean(line.y, line.series.smooth))
    dashed = " dashed" if line.series.dashed else ""
    path = _path(x, np.clip(y, top, floor))
    parts.append(f'<path class="line{dashed}" {style} d="{path}"><title>{name}</title></path>')
    known = np.isfinite(y)
    if known.sum() <= _MARKED and not line.series.dashed:
        parts += [
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3" style="fill:var(--c{line.colour})">'
            f"<title>{name}: {format_number(value)} at {format_number(at)}</title></circle>"
            for cx, cy, at, value in zip(x[known], y[known], line.x[known], line.y[known])
        ]
    return "".join(parts)


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """SVG path; long lines keep the lowest and the highest point of each stretch."""
    if len(x) > _MAX_POINTS:
        keep = []
        for part in np.array_split(np.arange(len(x)), _MAX_POINTS // 2):
            known = part[np.isfinite(y[part])]
            if len(known):
                keep += sorted({known[np.argmin(y[known])], known[np.argmax(y[known])]})
        x, y = x[keep], y[keep]
    parts, pen = [], "M"
    for px, py in zip(x, y):
        if not math.isfinite(py):
            pen = "M"
            continue
        parts.append(f"{pen}{px:.1f} {py:.1f}")
        pen = "L"
    return "".join(parts)


def _data(lines: list[_Line], frame: _Frame) -> str:
    """What the page's script needs to read values off the chart, as JSON for an attribute."""
    series = []
    for line in lines:
        y = moving_mean(line.y, line.series.smooth) if line.series.smooth else line.y
        known = np.flatnonzero(np.isfinite(y))
        if len(known) > _MAX_POINTS:
            known = known[np.linspace(0, len(known) - 1, _MAX_POINTS).astype(int)]
        series.append(
            {
                "name": line.series.name,
                "colour": line.colour,
                "x": [float(f"{v:.6g}") for v in line.x[known]],
                "y": [float(f"{v:.4g}") for v in y[known]],
            }
        )
    box = [_LEFT, frame.width - _RIGHT, _TOP, frame.height - _BOTTOM]
    text = json.dumps(
        {"box": box, "range": list(frame.x_range), "series": series}, separators=(",", ":")
    )
    return html.escape(text, quote=True).replace("&quot;", '"')
