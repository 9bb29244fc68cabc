"""Who is meant in each frame, and where the crops are."""

import json

import numpy as np
import pytest

from jaxrecon.data.sequences import read_footage
from jaxrecon.errors import UserError
from jaxrecon.io.images import write_image
from tests.data.people import photograph

PERSON = np.array([[30 + 2 * (i % 5), 20 + 3 * i, 0.8] for i in range(25)], np.float32)
STRANGER = PERSON + np.array([60, 0, 0.1], np.float32)
FRAMES = [photograph(i, 120, 160) for i in range(4)]


def moving(person, step=4):
    return np.stack([person + [step * i, 0, 0] for i in range(4)])


def test_a_louder_stranger_does_not_take_over():
    both = np.stack([moving(STRANGER), moving(PERSON)], 1)
    both[0, 0] = 0  # not there yet
    footage = read_footage(FRAMES, both, joint_set="openpose25")
    np.testing.assert_allclose(footage.keypoints2d[:, :25], moving(PERSON))
    # Images of a folder have nothing to do with each other: there the surest person is meant.
    apart = read_footage(FRAMES, both, joint_set="openpose25", follow=False)
    np.testing.assert_allclose(apart.keypoints2d[1:, :25], moving(STRANGER)[1:])


def test_a_box_says_who_is_followed():
    both = np.stack([moving(STRANGER, 20), moving(PERSON, 20)], 1)
    box = [25, 15, 20, 90]
    footage = read_footage(FRAMES, both, box, joint_set="openpose25")
    np.testing.assert_allclose(footage.keypoints2d[:, :25], moving(PERSON, 20))
    # It said who; the crops go along with the keypoints.
    centers = [photo.center[0] for _, photo in footage.photos()]
    np.testing.assert_allclose(np.diff(centers), 20, atol=1e-3)


def test_boxes_of_frames(tmp_path):
    rows = [[10 + i, 10, 50, 80] for i in range(4)]
    (tmp_path / "boxes.json").write_text(json.dumps({"bbox": rows}))
    footage = read_footage(FRAMES, None, tmp_path / "boxes.json")
    np.testing.assert_allclose([p.center[0] for _, p in footage.photos()], [35, 36, 37, 38])
    assert footage.keypoints2d is None and footage.evidence[1] == "gt24"
    with pytest.raises(UserError, match="3 boxes, but the frames has 4 frames"):
        read_footage(FRAMES, None, rows[:3])
    with pytest.raises(UserError, match="the box of frame 1 has no area"):
        read_footage(FRAMES, None, [rows[0], [1, 1, 0, 5], *rows[2:]])


def test_boxes_beside_the_keypoints_of_images(tmp_path):
    for i in range(2):
        write_image(tmp_path / f"a{i}.png", FRAMES[i])
        people = [{"pose_keypoints_2d": PERSON.ravel().tolist()}]
        (tmp_path / f"a{i}_keypoints.json").write_text(json.dumps({"people": people}))
    (tmp_path / "a1_bbox.json").write_text("[20, 10, 60, 100]")
    (_, first), (size, second) = read_footage(tmp_path, tmp_path).photos()
    assert size == (120, 160)
    assert second.center.tolist() == [50, 60] and first.center.tolist() != [50, 60]


def test_frames_that_cannot_be_used_say_why():
    points = moving(PERSON)
    points[1] = np.nan
    points[2, :, 2] = 0
    points[3, :, :2] += 1000
    footage = read_footage(FRAMES, points, joint_set="openpose25")
    found = [photo for _, photo in footage.photos()]
    assert not isinstance(found[0], str)
    assert found[1:3] == ["nobody was detected"] * 2
    assert "lies outside the photograph of 160 x 120" in found[3]
    with pytest.raises(UserError, match="none of its 4 frames has keypoints"):
        read_footage(FRAMES, points * 0, joint_set="openpose25")
    with pytest.raises(UserError, match="nothing that says where the person is"):
        read_footage(FRAMES)
