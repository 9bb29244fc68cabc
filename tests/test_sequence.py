"""Videos and folders through the doors: by the command, by Python, fitted and by a network."""

import re
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import jaxrecon
from jaxrecon import api, sequence_files
from jaxrecon.data.sequences import read_footage
from jaxrecon.errors import UserError
from jaxrecon.io.amass import Motion, read_motion, write_motion
from jaxrecon.io.images import write_image
from jaxrecon.main import main
from jaxrecon.report import film as films
from jaxrecon.sequence import frame_notes
from tests.io.test_animated_glb import Played
from tests.walking import walk, write_openpose_folder, write_people, write_walk_video

COUNT, NOBODY = 6, (3,)
SIZE = (96, 128)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """The compiler's best takes longer here than all that is computed."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def film():
    return walk(COUNT, SIZE, steps=0.25)


@pytest.fixture(scope="module")
def place(film, tmp_path_factory):
    """A folder with a video, its keypoints, its frames as images, and one array of keypoints."""
    folder = tmp_path_factory.mktemp("footage")
    write_walk_video(folder / "walk.mp4", film)
    write_openpose_folder(folder / "json", "walk", film, NOBODY)
    for i, picture in enumerate(film.pictures()):
        write_image(folder / "images" / f"walk{i}.png", picture)
        write_people(folder / "by_name" / f"walk{i}_keypoints.json", [film.keypoints[i]])
    np.savez(folder / "array.npz", keypoints=film.keypoints, joint_set="openpose25")
    return folder


@pytest.fixture(scope="module")
def fitted(place):
    return api.fit_photo(place / "walk.mp4", place / "json", progress=False)


@pytest.fixture(scope="module")
def network():
    """A small network with fresh weights: what it says is of no use, but it says it in batches."""
    changes = {"image_size": (32, 32), "main_iterations": 1, "aux_iterations": 1}
    config = api.load_config(
        "metahmr:tiny", {**changes, "tto": {"steps": 1}, "evaluation": {"batch_size": 4}}
    )
    return api.untrained(config)


def tree(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_video_by_the_command(place, film, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [f"--input={place}/walk.mp4", f"--keypoints={place}/json", f"--output={out}"]
    assert main(["jaxrecon", "--mode=reconstruct", "--smooth", *arguments]) == 0
    text = capsys.readouterr().out
    assert f"mean 2D error over {COUNT - 1} frames" in text
    assert "frame 3 (walk_000003) filled in between their neighbours: nobody was detected" in text
    frames = [
        f"frames/walk_{i:06d}{ending}"
        for i in range(COUNT)
        for ending in (".glb", ".npz", "_overlay.png")
    ]
    video = next(name for name in tree(out) if "_overlay." in name and "/" not in name)
    assert tree(out) == sorted([*frames, "index.html", "walk.glb", "walk_motion.npz", video])

    # The motion, and how near it is to the truth (heading and size, up to what a picture tells).
    motion = read_motion(out / "walk_motion.npz")
    assert motion.poses.shape == (COUNT, 72) and motion.betas.shape == (10,)
    assert motion.frame_rate == 10 and motion.gender == "neutral"
    np.testing.assert_array_equal(motion.extra["observed"], [i != 3 for i in range(COUNT)])
    root = (
        Rotation.from_rotvec(motion.poses[:, :3]) * Rotation.from_matrix(film.rotmats[:, 0]).inv()
    )
    assert np.median(root.magnitude()) < 0.6
    np.testing.assert_allclose(motion.trans[:, :2], film.transl[:, :2], atol=0.25)
    with np.load(out / "walk_motion.npz") as raw:
        assert {"poses", "betas", "trans", "gender", "mocap_framerate"} <= set(raw.files)

    # One frame, as of a photograph.
    single = jaxrecon.Reconstruction.load(out / "frames" / "walk_000002.npz")
    assert single.image is not None and single.image.shape == (*SIZE, 3)
    assert single.keypoint_error().pixels < 4
    np.testing.assert_allclose(single.instances[0].parameters["betas"], motion.betas, atol=1e-6)

    played = Played(out / "walk.glb")
    times = played.array(played.doc.animations[0].samplers[0].input)[:, 0]
    np.testing.assert_allclose(times, np.arange(COUNT) / 10, atol=1e-6)
    moved = [np.ptp(played.skinned(t)[:, 1]) for t in (0.0, 0.5)]
    assert min(moved) > 1.2  # it stands upright, y up

    capture = cv2.VideoCapture(str(out / video))
    shown = [frame for done, frame in iter(capture.read, (False, None)) if done]
    assert len(shown) == COUNT and shown[0].shape == (*SIZE, 3)
    page = (out / "index.html").read_text()
    assert re.search(r'src="data:(video/(mp4|webm)|image/webp);base64,', page)
    assert 'src="http' not in page and "walk.glb" in page and "2D error" in page
    assert not [p for p in out.rglob("*.part*")]


def test_frames_without_anybody_are_skipped(fitted):
    assert isinstance(fitted, jaxrecon.SequenceReconstruction)
    np.testing.assert_array_equal(fitted.track.frames, [0, 1, 2, 4, 5])
    assert "frame 3 (walk_000003) skipped: nobody was detected" in fitted.notes[0]
    found = dict(fitted)
    assert sorted(found) == list(range(COUNT))
    assert [len(found[i]) for i in range(COUNT)] == [1, 1, 1, 0, 1, 1]
    one = fitted[-1]
    np.testing.assert_allclose(one.instances[0].vertices, found[5].instances[0].vertices, atol=1e-5)
    np.testing.assert_array_equal(one.image, found[5].image)
    errors = fitted.keypoint_errors()
    assert np.isnan(errors[3]) and np.nanmax(errors) < 4
    assert fitted[2].keypoint_error().pixels == pytest.approx(errors[2], rel=1e-4)
    # The motion has no gap although the frames have one.
    assert len(fitted.motion()) == COUNT
    with pytest.raises(IndexError):
        fitted[COUNT]


def test_every_layout_of_keypoints_gives_the_same(place, film, fitted):
    rows = [i for i in range(COUNT) if i not in NOBODY]
    for source, keypoints in (
        (place / "walk.mp4", place / "array.npz"),
        (place / "walk.mp4", place / "json"),
        (place / "images", place / "by_name"),
        (place / "images", place / "array.npz"),
    ):
        footage = read_footage(source, keypoints, fps=10)
        assert len(footage) == COUNT and footage.evidence[1] == "openpose25"
        np.testing.assert_allclose(footage.keypoints2d[rows, :25], film.keypoints[rows])
        np.testing.assert_allclose(fitted.keypoints2d[rows], film.keypoints[rows])


def by_frames(found, rows):
    """What is found of each frame, in an order."""
    assert len(found.track) == COUNT and found.system == "meta_hmr"
    assert np.isfinite(found.history["loss"]).all()
    track = found.track
    return {
        "rotmats": track.rotmats[rows],
        "betas": track.betas[rows],
        "transl": track.transl[rows],
        "keypoint_error": found.history["keypoint_error"][rows],
    }


def test_every_frame_adapts_by_itself(place, network):
    """Batches of 4, the last one filled up: what else is in its batch does not touch a frame."""
    images = sorted((place / "images").iterdir())
    files = sorted((place / "by_name").iterdir())
    forward = network.reconstruct(images, files, progress=False)
    backward = network.reconstruct(images[::-1], files[::-1], progress=False)
    assert backward.source.names[0] == "walk5"
    ours, theirs = (
        by_frames(found, rows)
        for found, rows in ((forward, np.arange(COUNT)), (backward, np.arange(COUNT)[::-1]))
    )
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=2e-3, atol=2e-3, err_msg=name)
    moved = np.abs(np.diff(ours["keypoint_error"], axis=1))
    assert moved.min() > 0, "nothing was adapted"


@pytest.mark.slow
def test_a_frame_is_what_the_photograph_would_be(place, network):
    found = network.reconstruct(place / "images", place / "by_name", progress=False)
    for i in (0, 5):
        alone = network.reconstruct(
            place / "images" / f"walk{i}.png", place / "by_name" / f"walk{i}_keypoints.json"
        ).instances[0]
        one = found[i].instances[0]
        np.testing.assert_allclose(one.vertices, alone.vertices, atol=2e-3)
        np.testing.assert_allclose(
            one.history["keypoint_error"], alone.history["keypoint_error"], rtol=1e-2
        )


def test_a_box_is_enough_for_a_network(place, network):
    found = network.reconstruct(place / "walk.mp4", bbox=(20, 5, 60, 90), progress=False)
    assert len(found.track) == COUNT and found.keypoints2d is None
    assert np.isnan(found.keypoint_errors()).all()
    boxes = [[20 + i, 5, 60, 90] for i in range(COUNT)]
    moving = network.reconstruct(place / "walk.mp4", bbox=boxes, progress=False)
    assert not np.allclose(moving.track.transl[-1], found.track.transl[-1])
    with pytest.raises(UserError, match="need 2D keypoints"):
        network.reconstruct(place / "walk.mp4", bbox=(20, 5, 60, 90), adapt_steps=2)
    with pytest.raises(UserError, match="nothing that says where the person is"):
        network.reconstruct(place / "walk.mp4")


def test_frames_of_different_sizes(film, tmp_path, network):
    """A folder of mixed sizes and kinds works; a damaged file and an empty one are skipped."""
    for i, picture in enumerate(film.pictures()[:5]):
        scale = (1.0, 0.75, 0.6, 1.25, 1.0)[i]
        resized = cv2.resize(picture, None, fx=scale, fy=scale)
        points = film.keypoints[i] * (scale, scale, 1)
        write_image(tmp_path / "in" / f"p{i}{('.png', '.jpg')[i % 2]}", resized)
        write_people(tmp_path / "kp" / f"p{i}.json", [points])
    (tmp_path / "in" / "p0.png").write_bytes((tmp_path / "in" / "p0.png").read_bytes()[:90])
    (tmp_path / "kp" / "p4.json").unlink()
    found = network.reconstruct(tmp_path / "in", tmp_path / "kp", progress=False)
    np.testing.assert_array_equal(found.track.frames, [1, 2, 3])
    assert len(found.notes) == 2 and "p0.png" in found.notes[0] and "p4" in found.notes[1]
    assert [tuple(x) for x in found.image_sizes[1:]] == [(72, 96), (58, 77), (120, 160), SIZE]
    pages = found.save(tmp_path / "out")
    names = tree(tmp_path / "out" / "frames")
    assert len(names) == 9 and "p3_overlay.png" in names and "p0.npz" not in names
    assert cv2.imread(str(tmp_path / "out" / "frames" / "p2_overlay.png")).shape == (58, 77, 3)
    assert pages[0].name == "index.html" and "skipped" in pages[0].read_text()


def test_one_thing_by_suffix(fitted, tmp_path, monkeypatch):
    assert fitted.save(tmp_path / "a.npz") == [tmp_path / "a.npz"]
    assert len(read_motion(tmp_path / "a.npz")) == COUNT
    assert fitted.save(tmp_path / "a.gif")[0].stat().st_size > 1000
    with pytest.raises(UserError, match=r"cannot save a sequence as 'a\.txt'"):
        fitted.save(tmp_path / "a.txt")
    # Without a codec the film becomes an animation.
    monkeypatch.setattr(films, "working_codec", lambda codecs: None)
    (written,) = fitted.save(tmp_path / "a.mp4")
    assert written.name == "a.webp"
    done, animation = cv2.imreadanimation(str(written))
    assert done and len(animation.frames) == COUNT and list(animation.durations) == [100] * COUNT
    assert tree(tmp_path) == ["a.gif", "a.npz", "a.webp"]


def test_nothing_half_written_stays(fitted, tmp_path, monkeypatch):
    """An end in the middle leaves whole frames at most, and neither film nor page."""
    written = []

    def fail_at_third(found, folder, stem, overlay):
        written.append(stem)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(sequence_files, "write_frame", fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        fitted.save(tmp_path / "out")
    assert tree(tmp_path) == ["out/walk.glb", "out/walk_motion.npz"]


def spoil(folder: Path, film) -> None:
    """Folders and files with one fault each."""
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("no image")
    (folder / "text.mp4").write_text("no video")
    data = (folder / "walk.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 3])
    write_openpose_folder(folder / "nobody", "walk", film, tuple(range(COUNT)))
    write_people(folder / "photo.json", [film.keypoints[0]])
    for i in range(COUNT + 2):
        write_people(folder / "more" / f"walk_{i:012d}_keypoints.json", [film.keypoints[0]])
    for i in range(COUNT - 2):
        write_people(folder / "fewer" / f"walk_{i:012d}_keypoints.json", [film.keypoints[0]])
    few = film.keypoints[0] * (np.arange(25) < 2)[:, None]
    for i in range(COUNT):
        write_people(folder / "two_points" / f"walk_{i:012d}_keypoints.json", [few])
    np.savez(folder / "short.npz", keypoints=film.keypoints[:3], joint_set="openpose25")


MISTAKES = [
    ("empty", "json", "folder empty is empty; put images into it"),
    ("texts", "json", "texts holds no image"),
    ("text.mp4", "json", r"text\.mp4 cannot be read as a video"),
    ("cut.mp4", "json", r"cut\.mp4 (cannot be read as a video|.*no frame)"),
    ("absent.mp4", "json", r"no such video: absent\.mp4"),
    ("walk.mp4", "more", f"has {COUNT + 2} files, but walk.mp4 has {COUNT} frames"),
    ("walk.mp4", "fewer", f"has {COUNT - 2} files, but walk.mp4 has {COUNT} frames"),
    ("walk.mp4", "short.npz", f"keypoints of 3 frames, but walk.mp4 has {COUNT}"),
    ("walk.mp4", "photo.json", "keypoints of one picture"),
    ("walk.mp4", "empty", "holds no keypoint file"),
    ("walk.mp4", "nobody", f"none of its {COUNT} frames has keypoints .nobody was detected"),
    ("walk.mp4", "two_points", f"none of its {COUNT} frames can be used .2 keypoints"),
    ("images", "photo.json", "keypoints of one picture"),
    ("images", "fewer", "no name fits: walk0_keypoints.json is expected"),
    ("walk.mp4", "json --fps=0", "0.0 frames a second"),
    ("walk.mp4", "json --focal_length=-1", "focal length -1"),
    ("walk.mp4", "json --bbox=500,500,9,9", "no detected person overlaps the box"),
]


@pytest.mark.parametrize(("source", "keypoints", "message"), MISTAKES)
def test_a_mistake_is_one_line(place, film, monkeypatch, capfd, source, keypoints, message):
    monkeypatch.chdir(place)
    if not (place / "empty").exists():
        spoil(place, film)
    before = tree(place)
    capfd.readouterr()
    arguments = [f"--input={source}", *f"--keypoints={keypoints}".split(), "--output=out"]
    assert main(["jaxrecon", "--mode=reconstruct", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("jaxrecon: "), err
    assert re.search(message, err), err
    assert tree(place) == before and not (place / "out").exists()


def test_motions_come_back_and_faults_are_named(tmp_path):
    random = np.random.default_rng(0)
    motion = Motion(
        random.normal(size=(4, 72)).astype(np.float32),
        random.normal(size=(4, 3)).astype(np.float32),
        random.normal(size=10).astype(np.float32),
        "female",
        25.0,
        {"frames": np.arange(4)},
    )
    write_motion(tmp_path / "m.npz", motion)
    again = read_motion(tmp_path / "m.npz")
    for name in ("poses", "trans", "betas"):
        np.testing.assert_array_equal(getattr(again, name), getattr(motion, name))
    assert (again.gender, again.frame_rate, len(again)) == ("female", 25.0, 4)
    np.testing.assert_array_equal(again.extra["frames"], np.arange(4))
    # As AMASS itself writes it: float64, bytes, another name of the rate, 52 joints.
    np.savez(
        tmp_path / "amass.npz", poses=np.zeros((3, 156)), trans=np.zeros((3, 3)),
        betas=np.zeros(16), gender=np.array(b"male"), mocap_framerate=120.0, dmpls=np.zeros((3, 8)),
    )  # fmt: skip
    amass = read_motion(tmp_path / "amass.npz")
    assert amass.gender == "male" and amass.frame_rate == 120 and "dmpls" in amass.extra
    np.savez(tmp_path / "no.npz", poses=np.zeros((3, 72)))
    (tmp_path / "bad.npz").write_text("no")
    for name, message in (
        ("no.npz", "is no motion: it lacks betas, trans"),
        ("bad.npz", "not an .npz"),
        ("absent.npz", "no such motion"),
    ):
        with pytest.raises(UserError, match=message):
            read_motion(tmp_path / name)
    with pytest.raises(UserError, match="not finite"):
        write_motion(tmp_path / "x.npz", Motion(motion.poses * np.nan, motion.trans, motion.betas))
    assert not (tmp_path / "x.npz").exists()


def test_notes_are_short():
    names = [f"a{i}" for i in range(20)]
    missing = dict.fromkeys((2, 3, 4, 9), "nobody was detected") | {5: "a5 is damaged"}
    assert frame_notes(missing, names, "skipped") == [
        "4 of 20 frames skipped: nobody was detected (2-4, 9, from 0)",
        "frame 5 (a5) skipped: a5 is damaged",
    ]
    many = {i: f"reason {i}" for i in range(10)}
    notes = frame_notes(many, names, "skipped")
    assert len(notes) == 7 and notes[-1] == "4 more frames skipped for other reasons"
