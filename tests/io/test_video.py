"""Videos, folders and lists of frames: read back, in order, with one line for every fault."""

import cv2
import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.io.frames import is_sequence, open_frames
from jaxrecon.io.images import write_image
from jaxrecon.io.video import fit_frame, open_video, working_codec, write_video

SIZE = (48, 64)
CODEC = "mp4v"


def pictures(count=5, size=SIZE):
    frames = np.zeros((count, *size, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[:, 8 * i : 8 * i + 16] = (250, 120, 10)  # a column that walks
    return list(frames)


def write(path, frames, fps=10):
    with write_video(path, SIZE, fps, CODEC) as video:
        for frame in frames:
            video.add(frame)


def test_a_video_comes_back(tmp_path):
    path = tmp_path / "walk.mp4"
    write(path, pictures())
    video = open_video(path)
    assert (video.count, video.fps, video.image_size) == (5, 10.0, SIZE)
    for _ in range(2):  # as often as wanted
        for got, want in zip(video.frames(), pictures(), strict=True):
            assert np.abs(got.astype(int) - want).mean() < 12
    source = open_frames(path)
    assert len(source) == 5 and source.fps == 10 and source.names[3] == "walk_000003"
    np.testing.assert_array_equal(source[3], list(source)[3])
    assert open_frames(path, fps=24).fps == 24


def test_a_video_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "walk.mp4"
    with pytest.raises(RuntimeError, match="in the middle"):
        with write_video(path, SIZE, 10, CODEC) as video:
            video.add(pictures()[0])
            raise RuntimeError("in the middle")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="cannot write 64 x 48 pixels as 'zzzz'"):
        with write_video(path, SIZE, 10, "zzzz"):
            pass
    assert list(tmp_path.iterdir()) == []
    assert working_codec((("zzzz", ".mp4"),)) is None


def test_frames_of_other_sizes_are_fitted():
    wide = np.full((20, 100, 3), 200, np.uint8)
    fitted = fit_frame(wide, SIZE)
    assert fitted.shape == (*SIZE, 3)
    lit = np.flatnonzero((fitted == 200).all((1, 2)))
    assert len(lit) == 12 and abs(lit.mean() - 23.5) <= 0.5  # 64 x 12.8, centred
    small = np.full((10, 10, 3), 200, np.uint8)
    assert (fit_frame(small, SIZE) == 200).all(-1).sum() == 100  # never enlarged


def test_folders_are_read_in_natural_order(tmp_path):
    for name, shade in (("f10.png", 30), ("f2.png", 20), ("f1.jpg", 10)):
        write_image(tmp_path / name, np.full((8, 8 + shade, 3), shade, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    source = open_frames(tmp_path)
    assert source.names == ("f1", "f2", "f10") and source.fps == 30
    assert [int(p[0, 0, 0]) for p in source] == [10, 20, 30]
    assert [p.shape[1] for p in source] == [18, 28, 38]
    write_image(tmp_path / "f2.jpg", np.zeros((8, 8, 3), np.uint8))
    assert open_frames(tmp_path).names == ("f1", "f2_jpg", "f2_png", "f10")


def test_a_damaged_image_is_a_frame_with_a_fault(tmp_path):
    write_image(tmp_path / "a.png", pictures(1)[0])
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    first, second = open_frames(tmp_path)
    assert isinstance(first, np.ndarray)
    assert isinstance(second, UserError) and "b.png" in str(second)


def test_what_is_a_sequence(tmp_path):
    assert is_sequence(tmp_path) and is_sequence("absent.mp4") and is_sequence(["a.jpg"])
    assert is_sequence(np.zeros((2, 4, 4, 3), np.uint8))
    assert not is_sequence("photo.jpg") and not is_sequence(np.zeros((4, 4, 3), np.uint8))
    assert len(open_frames(pictures(3))) == 3


def test_faults_are_one_line(tmp_path, capfd):
    empty = tmp_path / "empty"
    empty.mkdir()
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("no image")
    clip = tmp_path / "clip"
    clip.mkdir()
    write(clip / "walk.mp4", pictures())
    cut, text = tmp_path / "cut.mp4", tmp_path / "text.mp4"
    cut.write_bytes((clip / "walk.mp4").read_bytes()[:400])
    text.write_text("not a video")
    capfd.readouterr()
    for source, message in (
        (empty, "empty is empty; put images into it"),
        (texts, "texts holds no image"),
        (clip, r"holds no image .*; name the video .*walk\.mp4 itself"),
        (cut, r"cut\.mp4 cannot be read as a video|has no frame"),
        (text, r"text\.mp4 cannot be read as a video|has no frame"),
        (tmp_path / "absent.mp4", r"no such video: .*absent\.mp4"),
        ([], "list of frames is empty"),
        ([np.zeros((4, 4), np.uint8)], r"frame 0: an array uint8 \(4, 4\) is no picture"),
    ):
        with pytest.raises(UserError, match=message):
            open_frames(source)
    with pytest.raises(UserError, match="0 frames a second"):
        open_frames(clip / "walk.mp4", fps=0)
    assert capfd.readouterr().err == ""  # nothing of OpenCV's or FFmpeg's own


def test_a_video_that_ends_early_is_noted(tmp_path):
    path = tmp_path / "walk.avi"
    frames = [np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8) for i in range(12)]
    with write_video(path, SIZE, 10, "MJPG") as video:
        for frame in frames:
            video.add(frame)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert cv2.VideoCapture(str(path)).isOpened()
    source = open_frames(path)
    assert 2 <= len(source) < 12
    assert len(list(source)) == len(source)
    if source.content.promised > len(source) + 1:
        assert "says that it has 12 frames" in source.notes[0]
