import json

import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.io.keypoint_files import (
    keypoints_bbox,
    parse_bbox,
    read_bbox,
    read_keypoints,
    select_person,
)


def person(joints=25, at=(0.0, 0.0), confidence=0.5, seed=0):
    points = np.random.default_rng(seed).uniform(0, 50, (joints, 2)) + at
    return np.concatenate([points, np.full((joints, 1), confidence)], 1).astype(np.float32)


def openpose(tmp_path, *people, **more):
    content = {"people": [{"pose_keypoints_2d": p.ravel().tolist(), **more} for p in people]}
    path = tmp_path / "photo_keypoints.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("joints, name", [(25, "openpose25"), (18, "coco18")])
def test_openpose_people_and_hands(tmp_path, joints, name):
    people = person(joints), person(joints, seed=1)
    hand = person(21, seed=2)
    path = openpose(tmp_path, *people, hand_left_keypoints_2d=hand.ravel().tolist())
    got = read_keypoints(path)
    assert got.joint_set == name and got.array.dtype == np.float32
    np.testing.assert_array_equal(got.array, np.stack(people))
    np.testing.assert_array_equal(got.left_hand, np.stack([hand, hand]))
    assert got.right_hand is None


def coco_file(tmp_path):
    points = person(17, confidence=2)
    points[3, 2], points[4, 2] = 1, 0
    entry = {"id": 7, "num_keypoints": 16, "keypoints": points.ravel().tolist()}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [
            entry | {"image_id": 1},
            entry | {"image_id": 2},
            {"id": 8, "image_id": 2, "num_keypoints": 0, "keypoints": [0] * 51},
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    return path, points


def test_coco_annotations_of_one_picture(tmp_path):
    path, points = coco_file(tmp_path)
    for image in ("b.jpg", 2, "2"):
        got = read_keypoints(path, image=image)
        assert got.joint_set == "coco17" and got.array.shape == (1, 17, 3)
        np.testing.assert_array_equal(got.array[0, :, :2], points[:, :2])
        np.testing.assert_array_equal(got.array[0, :, 2], points[:, 2] > 0)
    with pytest.raises(UserError, match="has 2 images .a.jpg, b.jpg"):
        read_keypoints(path)
    with pytest.raises(UserError, match="no image 'c.jpg'; it has a.jpg"):
        read_keypoints(path, image="c.jpg")


def test_coco_results_keep_their_scores(tmp_path):
    path = tmp_path / "results.json"
    entry = {"image_id": 5, "keypoints": person(17).ravel().tolist(), "score": 0.9}
    path.write_text(json.dumps([entry]))
    np.testing.assert_array_equal(read_keypoints(path).array[0], person(17))


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".json"])
def test_plain_arrays(tmp_path, suffix):
    path = tmp_path / ("keypoints" + suffix)
    if suffix == ".npz":
        np.savez(path, keypoints=person(16)[None], joint_set="mpii16")
    elif suffix == ".npy":
        np.save(path, person(16)[:, :2])
    else:
        path.write_text(json.dumps({"keypoints": person(16).tolist(), "joint_set": "mpii16"}))
    got = read_keypoints(path, joint_set="mpii16" if suffix == ".npy" else None)
    assert got.joint_set == "mpii16" and got.array.shape == (1, 16, 3)
    np.testing.assert_allclose(got.array[0, :, :2], person(16)[:, :2], rtol=1e-6)
    assert got.array[0, 0, 2] == (1 if suffix == ".npy" else 0.5)


def with_nan():
    points = person()
    points[4, 1] = np.nan
    return points


@pytest.mark.parametrize(
    "content, message",
    [
        ("{}", "is empty"),
        ("[]", "is empty"),
        ("", r"is empty \(0 bytes\)"),
        ("{'people': []}", "not valid JSON"),
        ('{"people": []}', "holds no person"),
        ('{"people": 3}', "'people' is not a list"),
        ('{"people": [{}]}', "person 0 has no 'pose_keypoints_2d'"),
        (
            '{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}',
            "has 3 keypoint numbers; 75",
        ),
        ('{"people": [{"pose_keypoints_2d": ["a", 2, 3]}]}', "not a regular list of numbers"),
        ('[{"keypoints": []}, 3]', "'annotations' are not a list of objects"),
        ('{"version": 1}', "no keypoints of a known layout"),
        ('{"keypoints": [[1, 2, 3]]}', "does not name the joint set of its 1 joints"),
        ('{"keypoints": [[[[1]]]], "joint_set": "coco17"}', "shape .1, 1, 1, 1."),
    ],
)
def test_what_is_wrong_with_the_json_is_said(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_keypoints(path)
    assert "bad.json" in str(caught.value) and "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_placed(tmp_path):
    with pytest.raises(UserError, match="person 1, joint 4 has a y that is not a finite number"):
        read_keypoints(openpose(tmp_path, person(), with_nan()))
    with pytest.raises(UserError, match="person 0, joint 0 has a negative confidence"):
        read_keypoints(openpose(tmp_path, person(confidence=-1)))


def test_bad_paths(tmp_path):
    with pytest.raises(UserError, match="no such keypoint file"):
        read_keypoints(tmp_path / "absent.json")
    with pytest.raises(UserError, match="is a folder, not a keypoint file"):
        read_keypoints(tmp_path)
    path = tmp_path / "cut.npz"
    np.savez(path, keypoints=person(17), joint_set="coco17")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cut.npz is not a readable keypoint file"):
        read_keypoints(path)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="no array named keypoints .*; it has a"):
        read_keypoints(tmp_path / "other.npz")


def test_the_person_is_selected_by_box_annotation_or_confidence():
    people = np.stack(
        [person(at=(0, 0), confidence=0.4), person(at=(200, 0), confidence=0.9, seed=1)]
        + [person(at=(0, 200), confidence=0.0, seed=2)]
    )
    assert select_person(people) == 1
    assert select_person(people, bbox=np.array([-5.0, -5, 70, 70])) == 0
    near = people[1] + np.float32([3, 2, 0])
    assert select_person(people, near=near) == 1
    with pytest.raises(UserError, match="no detected person overlaps the box"):
        select_person(people, bbox=np.array([0.0, 200, 50, 50]))  # only the unseen one is there
    with pytest.raises(UserError, match="nobody was detected"):
        select_person(people[2:])
    with pytest.raises(UserError, match="shares a joint"):
        select_person(people, near=np.zeros((25, 3)))


def test_boxes(tmp_path):
    path = tmp_path / "box.json"
    for text in ("[1, 2, 30, 40]", '{"bbox": [1, 2, 30, 40]}'):
        path.write_text(text)
        assert read_bbox(path).tolist() == [1, 2, 30, 40]
    for text in ("[1, 2, 3]", '{"box": 1}', "[1, 2, NaN, 4]", '["a", 1, 2, 3]', "[[1], 2, 3, 4]"):
        path.write_text(text)
        with pytest.raises(UserError, match="box.json is not a box"):
            read_bbox(path)
    with pytest.raises(UserError, match="--bbox has no area: width 0"):
        parse_bbox((1, 2, 0, 4), "--bbox")
    points = np.array([[10.0, 20, 0.1], [40, 80, 1], [500, 0, 0]])
    assert keypoints_bbox(points).tolist() == [10, 20, 30, 60]
    with pytest.raises(UserError, match="fewer than two keypoints"):
        keypoints_bbox(points[2:])


def test_real_files(shared_dir):
    photos = shared_dir / "data" / "photos"
    demo = read_keypoints(photos / "spin" / "im1010_openpose.json")
    assert demo.joint_set == "openpose25" and demo.array.shape == (1, 25, 3)
    box = read_bbox(photos / "spin" / "im1010_bbox.json")
    assert select_person(demo.array, bbox=box) == 0
    annotations = photos / "coco" / "person_keypoints.json"
    assert read_keypoints(annotations, image="000000040083.jpg").array.shape == (2, 17, 3)
