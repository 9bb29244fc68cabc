import json

import cv2
import numpy as np
import pytest

from jaxrecon.bodies.joints import JOINT_SETS
from jaxrecon.data.crops import apply_affine
from jaxrecon.data.items import BATCH_TYPES
from jaxrecon.data.photos import photo_batch, photo_folder_batches, read_photo
from jaxrecon.errors import UserError
from jaxrecon.io.images import write_image
from jaxrecon.io.keypoint_files import read_keypoints
from tests.conftest import needs_shared
from tests.data.people import photograph

IMAGE = photograph(0, 200, 300)


def openpose(points):
    return {"version": 1.3, "people": [{"pose_keypoints_2d": np.ravel(p).tolist()} for p in points]}


def someone(x=150.0, y=100.0, confidence=0.8):
    points = np.random.RandomState(2).uniform(-40, 40, (25, 2)) + (x, y)
    return np.concatenate([points, np.full((25, 1), confidence)], axis=1)


@pytest.fixture
def files(tmp_path):
    write_image(tmp_path / "a.png", IMAGE)
    (tmp_path / "a_keypoints.json").write_text(json.dumps(openpose([someone()])))
    return tmp_path


def test_keypoints_fill_both_halves_of_the_49_slots(files):
    photo = read_photo(files / "a.png", files / "a_keypoints.json")
    np.testing.assert_array_equal(photo.image, IMAGE)
    np.testing.assert_allclose(photo.keypoints2d[:25], someone(), rtol=1e-6)
    names = JOINT_SETS["gt24"]
    by_name = dict(zip(JOINT_SETS["openpose25"], someone()))
    for name, row in zip(names, photo.keypoints2d[25:]):
        np.testing.assert_allclose(row, by_name.get(name, np.zeros(3)), rtol=1e-6)
    assert photo.focal_length == pytest.approx(np.hypot(200, 300))


def test_box_around_the_keypoints_and_from_a_file(files):
    photo = read_photo(files / "a.png", files / "a_keypoints.json")
    low, high = someone()[:, :2].min(0), someone()[:, :2].max(0)
    np.testing.assert_allclose(photo.center, (low + high) / 2, rtol=1e-6)
    width, height = high - low
    assert photo.scale == pytest.approx(1.2 * max(4 / 3 * width, height) / 200)
    (files / "box.json").write_text('{"bbox": [100, 50, 60, 120]}')
    photo = read_photo(files / "a.png", bbox=files / "box.json")
    np.testing.assert_allclose(photo.center, [130, 110])
    assert photo.scale == pytest.approx(1.1 * 120 / 200)
    assert not photo.keypoints2d.any()


def test_the_box_chooses_among_people(files):
    both = openpose([someone(60, 60, 0.9), someone(230, 120, 0.5)])
    (files / "a_keypoints.json").write_text(json.dumps(both))
    most_confident = read_photo(files / "a.png", files / "a_keypoints.json")
    boxed = read_photo(files / "a.png", files / "a_keypoints.json", [190, 80, 80, 80])
    assert most_confident.keypoints2d[0, 2] == pytest.approx(0.9)
    assert boxed.keypoints2d[0, 2] == pytest.approx(0.5)


def test_batch_holds_crop_and_keypoints_that_agree():
    photo = read_photo(IMAGE, someone(), joint_set="openpose25", focal_length=500)
    batch = photo_batch([photo, photo], 64, 48)
    assert {key: value.dtype for key, value in batch.items()} == BATCH_TYPES
    assert batch["image"].shape == (2, 64, 48, 3)
    moved = apply_affine(batch["crop_trans"], batch["keypoints2d_full"][..., :2])
    seen = batch["keypoints2d"][..., 2] > 0
    np.testing.assert_allclose(batch["keypoints2d"][..., :2][seen], moved[seen], atol=1e-4)
    assert (batch["keypoints2d"][0, :25, :2] >= 0).all()
    assert (batch["keypoints2d"][0, :25, :2] <= [48, 64]).all()
    np.testing.assert_array_equal(batch["focal_length"], [500, 500])
    # The pixel under a keypoint is that of the photograph.
    x, y = batch["keypoints2d_full"][0, 3, :2]
    u, v = batch["keypoints2d"][0, 3, :2]
    want = cv2.getRectSubPix(IMAGE, (1, 1), (float(x), float(y)))[0, 0].astype(int)
    got = cv2.getRectSubPix(batch["image"][0], (1, 1), (float(u), float(v)))[0, 0].astype(int)
    assert abs(got - want).max() < 40


def nan_keypoints():
    points = someone()
    points[3, 1] = np.nan
    return points


@pytest.mark.parametrize(
    "keypoints, bbox, message",
    [
        (None, None, "a picture: .* give 2D keypoints .* or a box"),
        (nan_keypoints(), None, "a picture: keypoint 3 is not finite"),
        (someone(confidence=0), None, "a picture: no keypoint has a confidence above 0"),
        (someone(confidence=0), [10, 10, 50, 50], "no keypoint has a confidence above 0"),
        (someone(), [900, 10, 50, 50], "no detected person overlaps the box"),
        (None, [900, 10, 50, 50], r"the box around \(925, 35\) lies outside .* 300 x 200"),
        (someone(-500, 60), None, "the keypoints around .* lies outside"),
        (None, [10, 10, 0, 50], "the box of a picture has no area"),
        (None, [10, 10, 50], "the box of a picture is not a box"),
        (None, [10, 10, np.nan, 50], "is not a box"),
        (someone()[:24], None, "not of joint set 'openpose25'"),
        (np.eye(25, 3) * 0 + [5, 5, 1], None, "in one place; give a box"),
    ],
)
def test_faults_are_one_clear_line(keypoints, bbox, message):
    with pytest.raises(UserError, match=message) as caught:
        read_photo(IMAGE, keypoints, bbox, joint_set="openpose25", name="a picture")
    assert "\n" not in str(caught.value)


def test_faults_of_files(files):
    with pytest.raises(UserError, match="no such image"):
        read_photo(files / "none.png", files / "a_keypoints.json")
    with pytest.raises(UserError, match="no such keypoint file"):
        read_photo(files / "a.png", files / "none.json")
    with pytest.raises(UserError, match="no such box file"):
        read_photo(files / "a.png", bbox=files / "none.json")
    with pytest.raises(UserError, match="is no picture"):
        read_photo(IMAGE.astype(np.float32), someone(), joint_set="openpose25")
    with pytest.raises(UserError, match="focal length -3"):
        read_photo(IMAGE, someone(), joint_set="openpose25", focal_length=-3.0)


@pytest.fixture
def folder(tmp_path):
    for name in "abcde":
        write_image(tmp_path / "photos" / f"{name}.jpg", IMAGE)
        people = [] if name == "d" else [someone(100 + 10 * ord(name) % 50)]
        path = tmp_path / "keypoints" / f"{name}_keypoints.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(openpose(people)))
    (tmp_path / "keypoints" / "b_bbox.json").write_text("[100, 50, 100, 100]")
    return tmp_path


def test_folders_make_batches_of_one_size(folder):
    faults = []
    batches = photo_folder_batches(
        folder / "photos",
        folder / "keypoints",
        32,
        24,
        3,
        on_fault=lambda path, error: faults.append((path.name, str(error))),
    )
    (first, one), (second, two) = batches
    assert [photo.name for photo in first + second] == ["a.jpg", "b.jpg", "c.jpg", "e.jpg"]
    np.testing.assert_allclose(first[1].center, [150, 100])
    assert one["image"].shape == two["image"].shape == (3, 32, 24, 3)
    assert one["valid"].tolist() == [True] * 3
    assert two["valid"].tolist() == [True, False, False]
    assert [name for name, _ in faults] == ["d.jpg"]
    assert "nobody was detected" in faults[0][1]


def test_faults_of_folders(folder):
    photos, keypoints = folder / "photos", folder / "keypoints"
    with pytest.raises(UserError, match="nobody was detected"):
        list(photo_folder_batches(photos, keypoints, 32, 24, 2))
    with pytest.raises(UserError, match="no such folder of photographs"):
        photo_folder_batches(folder / "none", keypoints, 32, 24, 2)
    with pytest.raises(UserError, match="holds no photograph"):
        photo_folder_batches(keypoints, keypoints, 32, 24, 2)
    with pytest.raises(UserError, match="no such folder of keypoints"):
        photo_folder_batches(photos, folder / "none", 32, 24, 2)
    (keypoints / "a_keypoints.json").unlink()
    with pytest.raises(UserError, match="a.jpg has no keypoints: a_keypoints.json is not in"):
        list(photo_folder_batches(photos, keypoints, 32, 24, 2))
    with pytest.raises(UserError, match="none of the 5 photographs"):
        list(photo_folder_batches(photos, photos, 32, 24, 2, on_fault=lambda *_: None))


@needs_shared
def test_the_classic_demo_photograph(shared_dir):
    photos = shared_dir / "data" / "photos" / "spin"
    keypoints = read_keypoints(photos / "im1010_openpose.json")
    photo = read_photo(photos / "im1010.jpg", keypoints, photos / "im1010_bbox.json")
    batch = photo_batch([photo, read_photo(photos / "im1010.jpg", keypoints)], 256, 192)
    for row in batch["keypoints2d"]:
        inside = row[row[:, 2] > 0]
        assert len(inside) > 20
        assert (inside[:, :2] > 0).all() and (inside[:, :2] < [192, 256]).all()
