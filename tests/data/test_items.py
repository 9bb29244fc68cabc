import numpy as np
import pytest

from jaxrecon.data import crops, items
from jaxrecon.data.augment import (
    Augmentation,
    AugmentationConfig,
    draw_augmentation,
    flip_joints,
    flip_keypoints,
    flip_pose,
    rotate_axis_angle,
    scale_channels,
)
from jaxrecon.errors import UserError
from tests.data.people import make_record, photograph

DRAWS = [draw_augmentation(np.random.RandomState(seed)) for seed in range(12)]


def person(**changes):
    return items.person_from_record(make_record(5) | changes)


def assert_same_items(first, second):
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)


@pytest.mark.parametrize("box_scale", [0.2, 0.5, 1.5])
@pytest.mark.parametrize("place", [(70, 60), (3, 110)])
def test_a_cached_region_gives_the_very_same_items(box_scale, place):
    whole = person(
        center=np.float32(place),
        scale=np.float32(box_scale),
        keypoints2d=np.zeros((49, 3), np.float32),
    )
    part = items.crop_region(whole, 64, 48, margin=1.25)
    assert part.image.size <= whole.image.size
    for draw in DRAWS:
        assert_same_items(items.make_item(part, 64, 48, draw), items.make_item(whole, 64, 48, draw))


def test_a_small_box_keeps_a_small_region():
    region = items.crop_region(
        person(scale=np.float32(0.1), keypoints2d=np.zeros((49, 3), np.float32)), 64, 48, 1.25
    )
    assert max(region.image.shape[:2]) < 45


def test_a_box_outside_the_photograph_is_black():
    far = person(
        center=np.float32([500, 500]), scale=np.float32(0.2), keypoints2d=np.zeros((49, 3), "f")
    )
    assert not items.make_item(far, 64, 48)["image"].any()
    assert_same_items(
        items.make_item(items.crop_region(far, 64, 48, 1.25), 64, 48),
        items.make_item(far, 64, 48),
    )


def test_flip_twice_is_nothing():
    record = make_record(1)
    keypoints, joints, pose = record["keypoints2d"], record["joints3d"], record["pose"]
    np.testing.assert_allclose(
        flip_keypoints(flip_keypoints(keypoints, 140), 140), keypoints, atol=1e-4
    )
    np.testing.assert_array_equal(flip_joints(flip_joints(joints)), joints)
    np.testing.assert_array_equal(flip_pose(flip_pose(pose)), pose)


def test_keypoints_follow_the_pixels_through_flip_and_rotation():
    # One white dot on black, a keypoint on it: it must be under the keypoint in every crop.
    record = make_record(2)
    image = np.zeros((120, 140, 3), np.uint8)
    image[49:52, 69:72] = 255
    keypoints = record["keypoints2d"].copy()
    keypoints[30] = (70, 50, 1)
    record |= {"image": image, "keypoints2d": keypoints}
    where = items.person_from_record(record)
    for draw in DRAWS:
        item = items.make_item(where, 128, 96, Augmentation(draw.flip, rotation=draw.rotation))
        y, x = np.argwhere(item["image"][..., 0] > 128).mean(axis=0)
        slot = np.flatnonzero(np.abs(item["keypoints2d"][:, :2] - [x, y]).max(axis=1) < 1.0)
        mirrored = flip_keypoints(np.arange(49.0)[:, None].repeat(3, 1), 1)[:, 2].tolist()
        assert (mirrored.index(30) if draw.flip else 30) in slot


def test_strength_of_the_augmentation():
    config = AugmentationConfig(
        flip_probability=0.0, noise=0.1, rotation=10.0, scale=0.1, upright_probability=0.0
    )
    random = np.random.RandomState(0)
    draws = [draw_augmentation(random, config) for _ in range(300)]
    assert not any(draw.flip for draw in draws)
    assert 15 < max(abs(draw.rotation) for draw in draws) <= 20
    assert {min(draw.scale for draw in draws), max(draw.scale for draw in draws)} == {0.9, 1.1}
    gains = np.array([draw.gains for draw in draws])
    assert gains.min() >= 0.9 and gains.max() <= 1.1 and np.ptp(gains) > 0.19


def test_gains_are_cut_not_rounded():
    image = np.array([[[100, 200, 3]]], np.uint8)
    assert scale_channels(image, (0.999, 1.4, 0.5)).ravel().tolist() == [99, 255, 1]


def test_root_turns_within_the_image_plane():
    turned = rotate_axis_angle(np.zeros(3), 90)
    np.testing.assert_allclose(turned, [0, 0, -np.pi / 2], atol=1e-12)


def test_halved_photographs():
    full = person()
    half = person(
        dataset="3dpw", focal_length=np.float32(500), keypoints2d=make_record(5)["keypoints2d"]
    )
    assert half.image.shape == (60, 70, 3)
    np.testing.assert_allclose(half.keypoints2d[:, :2], full.keypoints2d[:, :2] / 2)
    np.testing.assert_allclose([half.scale, half.focal_length], [full.scale / 2, 250])
    assert full.focal_length == pytest.approx(np.hypot(120, 140))


def test_no_confident_keypoint_takes_the_box_of_the_file():
    hidden = make_record(5)["keypoints2d"] * [1, 1, 0]
    got = person(keypoints2d=hidden, center=np.float32([40, 50]), scale=np.float32(0.3))
    np.testing.assert_allclose([*got.center, got.scale], [40, 50, 0.3], rtol=1e-6)
    with pytest.raises(UserError, match="0005.jpg: no box in the record"):
        person(keypoints2d=hidden, scale=np.float32(0))


def test_box_of_the_file_on_request():
    record = make_record(5)
    got = items.person_from_record(record, "file")
    np.testing.assert_allclose(got.center, record["center"])
    with pytest.raises(UserError, match="'guess' is unknown"):
        items.person_from_record(record, "guess")


def test_keypoints_that_are_not_finite():
    with pytest.raises(UserError, match="0005.jpg: a 2D keypoint is not finite"):
        person(keypoints2d=make_record(5)["keypoints2d"] * np.nan)


def test_without_smpl_labels_pose_and_shape_are_zero():
    item = items.make_item(person(has_smpl=0), 64, 48)
    assert not item["betas"].any() and not item["pose"].any() and not item["has_smpl"]


def test_annotations_with_optional_arrays_missing():
    arrays = {"imgname": np.array(["a.png"]), "part": np.ones((1, 24, 3))}
    record = items.record_from_annotations(arrays, 0, "coco", photograph(0))
    assert (record["has_smpl"], record["has_joints3d"], record["gender"]) == (0, 0, -1)
    assert not record["keypoints2d"][:25].any()
    full = arrays | {"pose": np.ones((1, 72)), "shape": np.ones((1, 12)), "gender": np.array(["f"])}
    record = items.record_from_annotations(full, 0, "coco", photograph(0))
    assert (record["has_smpl"], record["gender"], record["betas"].shape) == (1, 1, (10,))


def test_box_rules():
    with pytest.raises(UserError, match="none has a confidence above 0"):
        crops.box_from_keypoints(np.zeros((24, 3)))
    wide = np.array([[0.0, 0.0, 1.0], [90.0, 100.0, 0.5], [500.0, 0.0, 0.0]])
    center, scale = crops.box_from_keypoints(wide)
    assert (*center, scale) == (45, 50, pytest.approx(1.2 * 120 / 200))


@pytest.mark.parametrize("rotation", [0, 37, -120])
def test_crop_matrix_turns_about_the_box(rotation):
    matrix = crops.crop_matrix(np.array([310.0, 220.0]), 1.3, 256, 192, rotation)
    points = np.array([[310.0, 220.0], [310.0, 220.0 - 130.0]])
    middle, top = crops.apply_affine(matrix, points)
    np.testing.assert_allclose(middle, [96, 128], atol=1e-3)
    angle = np.deg2rad(-rotation)
    np.testing.assert_allclose(
        top - middle, 128 * np.array([np.sin(angle), -np.cos(angle)]), atol=1e-3
    )
    back = crops.apply_affine(crops.invert_affine(matrix), np.array([middle, top]))
    np.testing.assert_allclose(back, points, atol=1e-3)


@pytest.mark.parametrize("corners", [None, [np.nan, 0, 1, 1], [9, 9, 9, 9]])
def test_without_a_usable_box_the_whole_photograph_is_taken(corners):
    image = photograph(0, 90, 60)
    corners = None if corners is None else np.array(corners, np.float64)
    crop = crops.crop_single_image(image, corners)
    np.testing.assert_array_equal(crop.center, [30, 45])
    assert crop.scale == pytest.approx(90 / 200)
    assert crop.image.shape == (256, 192, 3)


def test_names_of_data_sets():
    names = {
        "h36m-p2": "h36m",
        "MPI-INF-3DHP": "mpi_inf_3dhp",
        "pw3d": "3dpw",
        "open_body": "open_body",
    }
    assert {name: items.canonical_name(name) for name in names} == names
