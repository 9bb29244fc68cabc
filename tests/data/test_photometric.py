"""Changes of the picture alone: uint8, the same for the same draw, and as strong as asked."""

import numpy as np
import pytest

from jaxrecon.data import items, photometric
from jaxrecon.data.augment import Augmentation, AugmentationConfig, draw_augmentation
from jaxrecon.data.photometric import GROUPS, Change, change_image, draw_changes
from tests.data.people import make_record, photograph
from tests.data.test_pipeline import assert_same, different, train

NAMES = [name for group in GROUPS for name in group]


def picture(seed=0, height=96, width=72):
    return photograph(seed, height, width)


@pytest.mark.parametrize("name", NAMES)
def test_each_changes_the_picture_and_is_fixed_by_its_seed(name):
    image = picture(0, 256, 192)
    kept = image.copy()
    made = [change_image(image, (Change(name, seed),)) for seed in (5, 5, 6, 7, 8)]
    np.testing.assert_array_equal(image, kept)
    np.testing.assert_array_equal(made[0], made[1])
    for changed in made:
        assert changed.dtype == np.uint8 and changed.shape == image.shape
        assert changed.flags.c_contiguous
        assert (changed != image).mean() > 0.05, name
    if name not in ("grey", "posterise", "equalise"):  # these have no strength
        assert any((made[0] != other).any() for other in made[2:])


def test_draws_are_as_often_as_published_and_of_equal_length():
    counts, hits = dict.fromkeys(NAMES, 0), 0
    random = np.random.RandomState(0)
    for _ in range(4000):
        before = random.get_state()[2]
        changes = draw_changes(random)
        assert (random.get_state()[2] - before) % 624 == 10  # however many strike
        hits += len(changes)
        for change in changes:
            counts[change.name] += 1
    assert hits / 8000 == pytest.approx(0.3, abs=0.02)
    for group in GROUPS:
        share = [counts[name] / 4000 for name in group]
        assert share == pytest.approx([0.3 / len(group)] * len(group), abs=0.015)


def test_the_other_draws_stay_what_they_were():
    plain, more = (
        draw_augmentation(np.random.RandomState(4), AugmentationConfig(photometric=on))
        for on in (False, True)
    )
    assert plain.changes == () and plain.gains == more.gains and plain.scale == more.scale


def test_strengths():
    image = picture()
    np.testing.assert_array_equal(photometric.scale_levels(image, 1.0), image)
    np.testing.assert_array_equal(photometric.gamma(image, 1.0), image)
    np.testing.assert_array_equal(photometric.shift_hue(image, 0, 0, 0).shape, image.shape)
    half = photometric.scale_levels(image, 0.5)
    assert np.abs(half.astype(int) - image / 2).max() <= 0.5
    lighter = photometric.scale_levels(image, 1.0, 0.2)
    np.testing.assert_array_equal(lighter, np.minimum(255, image.astype(int) + 51))
    assert set(np.unique(photometric.posterise(image, 4)).tolist()) <= set(range(0, 256, 16))
    plain = photometric.grey(image)
    assert (plain[..., 0] == plain[..., 1]).all() and (plain[..., 0] == plain[..., 2]).all()
    weak, strong = (photometric.compress(image, quality) for quality in (95, 20))
    errors = [np.abs(x.astype(int) - image).mean() for x in (weak, strong)]
    assert errors[0] < 0.5 * errors[1] < 20
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    assert photometric.compress(red, 90)[..., 0].mean() > 190  # channels are not swapped
    assert photometric.shift_hue(red, 60, 0, 0)[0, 0].tolist() == [0, 200, 0]
    assert (photometric.gamma(image, 2.0) <= image).all()
    assert photometric.snow(image, 0.3).mean() > image.mean()
    assert len(np.unique(photometric.downscale(image, 0.5)[::2, ::2].reshape(-1, 3), axis=0)) > 10


def test_motion_blur_goes_along_its_angle():
    image = np.zeros((31, 31, 3), np.uint8)
    image[15, 15] = 255
    across, down = (photometric.motion_blur(image, 9, angle) for angle in (0.0, np.pi / 2))
    assert (across[15, 11:20] > 20).all() and np.count_nonzero(across[..., 0]) == 9
    assert (down[11:20, 15] > 20).all() and np.count_nonzero(down[..., 0]) == 9


def test_blur_shrinks_with_the_crop():
    widths = []
    for height in (64, 512):
        image = np.zeros((height, height, 3), np.uint8)
        image[height // 2, height // 2] = 255
        changed = change_image(image, (Change("blur", 3),))
        widths.append(np.count_nonzero(changed[height // 2, :, 0]))
    assert widths[0] == 3 and 3 < widths[1] < 22


def test_a_cached_region_gives_the_very_same_items():
    whole = items.person_from_record(make_record(5))
    part = items.crop_region(whole, 64, 48, margin=1.25)
    for seed, name in enumerate(NAMES):
        draw = Augmentation(flip=bool(seed % 2), changes=(Change(name, seed),))
        made = [items.make_item(person, 64, 48, draw) for person in (part, whole)]
        np.testing.assert_array_equal(made[0]["image"], made[1]["image"])
        plain = items.make_item(whole, 64, 48, Augmentation(flip=draw.flip))
        np.testing.assert_array_equal(made[0]["keypoints2d"], plain["keypoints2d"])


def test_batches_with_it_are_fixed_by_their_seed():
    config = {"photometric": True}
    assert_same(train(4, config), train(4, config | {"threads": 3, "cache_mb": 0}))
    assert different(train(4, config), train(4))
    # Everything but the pictures is what it is without.
    for changed, plain in zip(train(4, config), train(4)):
        np.testing.assert_array_equal(changed["keypoints2d"], plain["keypoints2d"])
        np.testing.assert_array_equal(changed["pose"], plain["pose"])
