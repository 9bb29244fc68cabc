"""Keypoints of many frames, in every layout, and what does not fit."""

import json

import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.io.frames import FrameSource
from jaxrecon.io.keypoint_files import Keypoints
from jaxrecon.io.keypoint_sequences import read_keypoint_frames

PERSON = np.array([[10 + i, 20 + i, 0.9] for i in range(25)], np.float32)


def frames(count=4, kind="video", stem="walk"):
    names = tuple(f"{stem}_{i:06d}" for i in range(count))
    content = tuple(f"{name}.jpg" for name in names)
    return FrameSource(f"{stem}.mp4", stem, names, 30.0, kind, content)


def people(folder, name, *persons):
    folder.mkdir(exist_ok=True)
    entries = [{"pose_keypoints_2d": person.ravel().tolist()} for person in persons]
    (folder / name).write_text(json.dumps({"people": entries}))


def places(found):
    return [None if isinstance(x, str) else round(float(x.array[0, 0, 0]) - 10) for x in found]


@pytest.mark.parametrize("first", [0, 1])
def test_openpose_numbers_are_frames(tmp_path, first):
    for i in (0, 1, 3):
        people(tmp_path, f"walk_{i + first:012d}_keypoints.json", PERSON + [i, 0, 0])
    people(tmp_path, f"walk_{2 + first:012d}_keypoints.json")
    found = read_keypoint_frames(tmp_path, frames())
    assert places(found) == [0, 1, None, 3] and found[2] == "nobody was detected"
    (tmp_path / f"walk_{1 + first:012d}_keypoints.json").unlink()
    found = read_keypoint_frames(tmp_path, frames())
    assert places(found) == [0, None, None, 3] and "no keypoint file" in found[1]


def test_the_video_named_in_the_files_is_meant(tmp_path):
    for i in range(4):
        people(tmp_path, f"walk_{i:012d}_keypoints.json", PERSON)
        people(tmp_path, f"run_{i:012d}_keypoints.json", PERSON + [5, 0, 0])
    assert places(read_keypoint_frames(tmp_path, frames(stem="run"))) == [5] * 4
    with pytest.raises(UserError, match="several videos .run, walk., none named as jump"):
        read_keypoint_frames(tmp_path, frames(stem="jump"))


def test_a_number_of_files_that_does_not_fit(tmp_path):
    for i in range(6):
        people(tmp_path, f"walk_{i:012d}_keypoints.json", PERSON)
    message = r"has 6 files, but walk\.mp4 has {} frames; give one file a frame"
    for count in (4, 9):
        with pytest.raises(UserError, match=message.format(count)):
            read_keypoint_frames(tmp_path, frames(count))
    images = frames(4, "folder", "a")
    with pytest.raises(UserError, match="has 6 files, walk|no name fits: a_000000_keypoints"):
        read_keypoint_frames(tmp_path, images)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no keypoint file"):
        read_keypoint_frames(empty, frames())


def test_images_go_by_name_or_else_by_order(tmp_path):
    images = frames(3, "folder", "a")
    named = tmp_path / "named"
    people(named, "a_000000_keypoints.json", PERSON)
    people(named, "a_000002_openpose.json", PERSON + [2, 0, 0])
    people(named, "other.json", PERSON + [9, 0, 0])
    assert places(read_keypoint_frames(named, images)) == [0, None, 2]
    ordered = tmp_path / "ordered"
    for i in range(3):
        people(ordered, f"pose{i + 8}.json", PERSON + [i, 0, 0])
    assert places(read_keypoint_frames(ordered, images)) == [0, 1, 2]


def test_arrays_have_a_leading_frame_axis(tmp_path):
    array = np.stack([PERSON + [i, 0, 0] for i in range(4)])
    array[2] = np.nan
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", keypoints=array[:, None], joint_set="openpose25")
    (tmp_path / "a.json").write_text(
        json.dumps({"keypoints": np.nan_to_num(array).tolist(), "joint_set": "openpose25"})
    )
    for source, joint_set in (
        (array, "openpose25"),
        (tmp_path / "a.npy", "openpose25"),
        (tmp_path / "a.npz", None),
        (tmp_path / "a.json", None),
        ([array[0], array[1, None], None, Keypoints("openpose25", array[3:])], "openpose25"),
    ):
        assert places(read_keypoint_frames(source, frames(), joint_set)) == [0, 1, None, 3]
    pairs = read_keypoint_frames(array[..., :2], frames(), "openpose25")
    assert places(pairs) == [0, 1, None, 3] and pairs[0].array[0, 0, 2] == 1


def test_faults_of_arrays(tmp_path):
    array = np.stack([PERSON] * 4)
    one = array.copy()
    one[1, 3, 0] = np.inf
    people(tmp_path, "photo.json", PERSON)
    for source, joint_set, message in (
        (array[:3], "openpose25", r"keypoints of 3 frames, but walk\.mp4 has 4"),
        (array, None, "name the joint set of its 25 joints"),
        (array[0], "openpose25", r"shape \(25, 3\)"),
        (one, "openpose25", "frame 1, person 0, joint 3 is not finite"),
        (-array, "openpose25", "frame 0 has a negative confidence"),
        ([array[0]] * 3, "openpose25", "keypoints of 3 frames"),
        (tmp_path / "photo.json", None, "keypoints of one picture, but .* has 4 frames"),
        (tmp_path / "absent.json", None, "no such keypoint file"),
    ):
        with pytest.raises(UserError, match=message):
            read_keypoint_frames(source, frames(), joint_set)


def test_a_coco_file_names_its_images(tmp_path):
    points = np.tile([[30.0, 40.0, 2.0]], (17, 1)).ravel().tolist()
    content = {
        "images": [{"id": 7, "file_name": "a_000001.jpg"}],
        "annotations": [{"image_id": 7, "keypoints": points, "num_keypoints": 17}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    found = read_keypoint_frames(tmp_path / "coco.json", frames(2, "folder", "a"))
    assert isinstance(found[0], str) and found[1].joint_set == "coco17"
