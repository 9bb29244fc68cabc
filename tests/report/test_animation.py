"""Animations read back, frame by frame."""

import cv2
import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.report.animation import SUFFIXES, encode_animation, write_animation


def _frames(count=5):
    frames = np.zeros((count, 48, 64, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[:, 12 * i : 12 * i + 12] = (250, 120, 10)  # a column that walks
    return list(frames)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_come_back(tmp_path, suffix):
    path = tmp_path / f"turn{suffix}"
    write_animation(path, _frames(), fps=20)
    done, animation = cv2.imreadanimation(str(path))
    assert done and len(animation.frames) == 5
    for got, want in zip(animation.frames, _frames()):
        error = np.abs(got[:, :, 2::-1].astype(int) - want)
        assert error.mean() < 6
    assert list(animation.durations) == [50] * 5
    assert animation.loop_count == 0  # for ever


def test_faults_are_named(tmp_path):
    with pytest.raises(UserError, match="at least one frame"):
        encode_animation([])
    with pytest.raises(UserError, match="differ in size"):
        encode_animation([*_frames(1), np.zeros((10, 10, 3), np.uint8)])
    with pytest.raises(UserError, match=r"use \.webp, \.gif, \.png"):
        write_animation(tmp_path / "turn.mp4", _frames())
    assert list(tmp_path.iterdir()) == []
