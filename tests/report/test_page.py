"""The page of a run: whole, self-contained, honest about what is missing."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.io.images import decode_image
from jaxrecon.report.curves import Chart, Series
from jaxrecon.report.page import Metric, Movie, RunPage, Sample, render_page, write_run_page
from jaxrecon.report.viewer import Layer, Scene, viewer_html

TETRAHEDRON = np.array([[0, 0, 3], [1, 0, 3], [0, 1, 3], [0, 0, 4]], np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
_VOID = {"meta", "link", "img", "input", "br", "hr"}


class _Page(HTMLParser):
    """Checks that elements nest, and collects them."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.elements, self.text = [], [], []
        self.feed(text)
        assert self.stack == [], f"not closed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def _full_page():
    picture = np.full((32, 24, 3), (200, 40, 60), np.uint8)
    return RunPage(
        title="A <run> & its page",
        subtitle="small",
        facts={"images": "12"},
        notes=["first order: the second network does not learn"],
        metrics=[
            Metric("MPJPE", "mm", 100.0, 125.0, 200.0, "joints"),
            Metric("2D error", "px", 6.0, 5.0),
            Metric("nothing", "mm", None, 3.0),
            Metric("not a number", "mm", float("nan")),
        ],
        adaptation_charts=[Chart("MPJPE", [Series("MPJPE", [0, 1], [125.0, 100.0])])],
        training_charts=[Chart("Loss", [Series("loss", [1, 2], [3.0, 2.0])])],
        samples=[Sample("person 1", {"input": picture, "after": picture}, {"PA-MPJPE": "80 mm"})],
        scene=Scene([Layer("body", np.stack([TETRAHEDRON, TETRAHEDRON + 0.1]), FACES)]),
        turntable=[picture, picture[::-1]],
        command="python -m jaxrecon.main --config=x --name='a b'",
        protocol={"root": "pelvis", "crop": [256, 192]},
        config={"training": {"steps": 3}},
        files={"mesh": "body.glb"},
    )


def test_everything_is_there_and_nothing_comes_from_outside():
    text = render_page(_full_page())
    page = _Page(text)
    for words in (
        "A <run> & its page", "first order: the second network", "100.0 mm", "mean pose 200.0",
        "before adaptation 125.0", "Test-time optimisation", "Examples", "person 1",
        "PA-MPJPE 80 mm", "In three dimensions", "Training", "Protocol", "256, 192",
        "--name='a b'", '"steps": 3', "Files",
    ):  # fmt: skip
        assert words in page.words, words
    assert "nothing" not in page.words and "nan" not in page.words.lower().split()
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed")
        for name in ("src", "href", "srcset", "data"):
            value = attributes.get(name) or ""
            if tag == "a" and name == "href":
                assert value == "body.glb"
            else:
                assert value == "" or value.startswith("data:"), (tag, value)
    outside = set(re.findall(r"https?://[^\s\"'<)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert outside == set()
    assert "@import" not in text and "url(" not in text


def test_deltas_tell_better_from_worse():
    text = render_page(_full_page())
    assert re.search(r'delta better">\N{MINUS SIGN}20\.0', text)
    assert re.search(r'delta worse">\+20\.0', text)
    accuracy = RunPage("t", metrics=[Metric("IoU", "%", 60.0, 50.0, higher_is_better=True)])
    assert 'delta better">+20.0' in render_page(accuracy)


def test_pictures_are_the_ones_given():
    text = render_page(_full_page())
    uris = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="person 1', text)
    assert len(uris) == 2
    image = decode_image(base64.b64decode(uris[0]))
    assert image.shape == (32, 24, 3)
    assert np.abs(image.astype(int) - (200, 40, 60)).max() < 12


@pytest.mark.parametrize(
    "part", ["metrics", "samples", "scene", "turntable", "protocol", "command", "training_charts"]
)
def test_a_page_of_one_part_only(part):
    full = _full_page()
    page = _Page(render_page(RunPage("alone", **{part: getattr(full, part)})))
    headings = [tag for tag, _ in page.elements if tag == "h2"]
    assert len(headings) == (0 if part == "metrics" else 1)


def test_a_page_with_nothing_yet():
    page = _Page(render_page(RunPage("just begun")))
    assert "just begun" in page.words
    assert not [tag for tag, _ in page.elements if tag in ("section", "dialog", "canvas")]


def test_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "index.html"
    write_run_page(path, RunPage("first"))
    broken = RunPage("second", scene=Scene([Layer("body", TETRAHEDRON * np.nan, FACES)]))
    with pytest.raises(UserError, match="'body'.*not all finite"):
        write_run_page(path, broken)
    assert "first" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def _scene_data(text):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', text)[1])


def test_meshes_survive_the_packing():
    rng = np.random.default_rng(0)
    frames = rng.uniform(-1, 1, (3, 50, 3)).astype(np.float32) + [0, 0, 4]
    faces = rng.integers(0, 50, (80, 3)).astype(np.int32)
    still = rng.uniform(-1, 1, (50, 3)).astype(np.float32)
    scene = Scene(
        [Layer("moving", frames, faces), Layer("still", still, faces, (0.1, 0.2, 0.3), True)]
    )
    data = _scene_data(viewer_html(scene))
    assert data["labels"] == ["step 0", "step 1", "step 2"]
    assert len(data["faces"]) == 1, "layers with the same faces share them"
    for layer, want in zip(data["layers"], (frames, still[None])):
        for text, vertices in zip(layer["frames"], want, strict=True):
            packed = np.frombuffer(base64.b64decode(text), "<u2").reshape(-1, 3)
            got = np.array(data["low"]) + packed * data["step"]
            np.testing.assert_allclose(got, vertices, atol=data["step"])
    got = np.frombuffer(base64.b64decode(data["faces"]["f0"]), "<u2").reshape(-1, 3)
    np.testing.assert_array_equal(got, faces)


def test_large_meshes_use_wide_indices():
    vertices = np.random.default_rng(0).uniform(size=(70000, 3)).astype(np.float32)
    faces = np.array([[0, 1, 69999]], np.int32)
    data = _scene_data(viewer_html(Scene([Layer("surface", vertices, faces)])))
    assert data["wide"]
    got = np.frombuffer(base64.b64decode(data["faces"]["f0"]), "<u4")
    np.testing.assert_array_equal(got, [0, 1, 69999])


def test_a_name_cannot_end_the_script():
    scene = Scene([Layer("</script><b>", TETRAHEDRON, FACES), Layer("b", TETRAHEDRON, FACES)])
    text = viewer_html(scene)
    assert text.count("</script>") == 1
    assert _scene_data(text)["layers"][0]["name"] == "</script><b>"


def test_scenes_that_do_not_fit_are_refused():
    layer = Layer("body", np.stack([TETRAHEDRON] * 3), FACES)
    with pytest.raises(UserError, match="3 steps but 2 labels"):
        viewer_html(Scene([layer], labels=["a", "b"]))
    with pytest.raises(UserError, match="at least one layer"):
        viewer_html(Scene([]))


def test_a_movie_stands_inside_the_page():
    """A video with controls, an animation as an image; both as data, nothing beside the page."""
    text = render_page(RunPage("walk", movie=Movie(b"frames", "video/webm", "the <overlay>")))
    assert '<video src="data:video/webm;base64,ZnJhbWVz"' in text and "controls" in text
    assert "the &lt;overlay&gt;" in text and "the <overlay>" not in text
    text = render_page(RunPage("walk", movie=Movie(b"frames", "image/webp")))
    assert '<img src="data:image/webp;base64,ZnJhbWVz" alt="overlay">' in text
    assert "<video" not in render_page(RunPage("walk"))
    chart = Chart("2D error", [Series("result", [0, 1], [3.0, 2.0])])
    assert "Over time" in render_page(RunPage("walk", time_charts=[chart]))
