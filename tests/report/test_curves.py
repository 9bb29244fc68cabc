"""Charts: round ticks, honest ranges, SVG that parses."""

import json
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from jaxrecon.report.curves import Chart, Series, format_number, log_ticks, moving_mean, ticks

SVG = "{http://www.w3.org/2000/svg}"


def _parse(chart):
    return ElementTree.fromstring(chart.svg())


def _paths(root):
    return [p for p in root.iter(f"{SVG}path") if p.find(f"{SVG}title") is not None]


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0.0, 1.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.07, 0.33, False, [0.1, 0.2, 0.3]),
        (-3.0, 9.5, False, [-2.5, 0, 2.5, 5, 7.5]),
        (0.0, 14.0, True, [0, 5, 10]),
        (0.0, 3.0, True, [0, 1, 2, 3]),
        (2.0, 2.0, False, [2.0]),
    ],
)
def test_ticks_are_round(low, high, whole, expected):
    assert ticks(low, high, 5, whole) == expected


@pytest.mark.parametrize(("low", "high"), [(0.9, 1100.0), (1.1, 9.0), (4.0, 5.5), (1e-6, 1e6)])
def test_log_ticks_lie_within_and_are_some(low, high):
    found = log_ticks(low, high)
    assert 2 <= len(found) <= 14
    assert all(low <= t <= high for t in found)


def test_numbers_are_short():
    values = [0, 12345, 3.2e6, 0.05, 2e-6, 110.53, -1500, 99999]
    assert [format_number(v) for v in values] == [
        "0", "12.35k", "3.2M", "0.05", "2e-6", "110.5", "-1500", "100k",
    ]  # fmt: skip


def test_moving_mean_keeps_lines_and_gaps_and_drops_noise():
    assert np.allclose(moving_mean(np.full(9, 3.0), 2), 3.0)
    line = np.arange(200.0)
    np.testing.assert_allclose(moving_mean(line, 5)[60:140], line[60:140], atol=0.02)
    noise = np.random.default_rng(0).normal(size=2000)
    assert moving_mean(noise, 20).std() < 0.25
    gap = moving_mean(np.array([1.0, math.nan, 3.0]), 1)
    assert np.isnan(gap).tolist() == [False, True, False]


def test_points_lie_where_the_axes_say():
    root = _parse(Chart("t", [Series("a", [0, 1, 2], [10.0, 20.0, 30.0])], "step", "mm"))
    # Tick labels of y give the map from pixels to values; the circles must agree with it.
    labels = {
        float(t.text): float(t.get("y")) - 4
        for t in root.iter(f"{SVG}text")
        if t.get("text-anchor") == "end"
    }
    (v0, y0), *_, (v1, y1) = sorted(labels.items())
    circles = sorted(root.iter(f"{SVG}circle"), key=lambda c: float(c.get("cx")))
    values = [v0 + (float(c.get("cy")) - y0) / (y1 - y0) * (v1 - v0) for c in circles]
    np.testing.assert_allclose(values, [10, 20, 30], atol=0.15)


def test_gaps_break_the_line():
    root = _parse(Chart("t", [Series("a", range(5), [1.0, 2.0, None, 4.0, math.inf])]))
    assert _paths(root)[0].get("d").count("M") == 2


def test_long_lines_are_thinned_but_keep_their_peaks():
    values = np.zeros(20000)
    values[12345] = 1.0
    root = _parse(Chart("t", [Series("a", range(20000), values)]))
    path = _paths(root)[0].get("d")
    assert path.count("L") < 600
    heights = [float(p.split(" ")[1]) for p in path.replace("M", "L").split("L")[1:]]
    assert max(heights) - min(heights) > 100


def test_log_axis_spreads_decades_evenly_and_ignores_zeros():
    root = _parse(Chart("t", [Series("a", range(4), [1.0, 10.0, 0.0, 100.0])], log=True))
    y = sorted(float(c.get("cy")) for c in root.iter(f"{SVG}circle"))
    assert len(y) == 3
    assert y[1] - y[0] == pytest.approx(y[2] - y[1], abs=0.2)


def test_empty_charts_say_so():
    for series in ([], [Series("a", [], [])], [Series("a", [1], [None])]):
        assert "no data yet" in Chart("t", series).svg()


def test_names_are_escaped_and_data_reads_back():
    chart = Chart("a \"<b>\" & 'c'", [Series("x<y'z", [0, 1], [1.0, 2.0]), Series("b", [0], [1])])
    root = _parse(chart)
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert "a \"<b>\" & 'c'" in texts and "x<y'z" in texts
    data = json.loads(root.get("data-chart"))
    assert data["series"][0] == {"name": "x<y'z", "colour": 0, "x": [0, 1], "y": [1, 2]}
