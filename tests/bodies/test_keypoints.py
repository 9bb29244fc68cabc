import numpy as np
import pytest

from jaxrecon.bodies.joints import JOINT_SETS
from jaxrecon.bodies.keypoints import to_spin49
from jaxrecon.errors import UserError

SPIN = JOINT_SETS["spin49"]


def numbered(joint_set):
    """Joint j at (j + 1, 10 (j + 1)) with confidence 0.5."""
    j = np.arange(1, len(JOINT_SETS[joint_set]) + 1, dtype=np.float32)
    return np.stack([j, 10 * j, np.full_like(j, 0.5)], -1)


def test_openpose_fills_its_own_slots_and_the_shared_annotated_ones():
    source = numbered("openpose25")
    got = to_spin49(source, "openpose25")
    np.testing.assert_array_equal(got[:25], source)
    filled = {SPIN[25 + i] for i in np.flatnonzero(got[25:, 2])}
    joints = ["ankle", "knee", "hip", "wrist", "elbow", "shoulder", "eye", "ear"]
    limbs = {f"{side}_{joint}" for side in "lr" for joint in joints}
    assert filled == limbs | {"neck", "nose"}
    for i in np.flatnonzero(got[25:, 2]):
        np.testing.assert_array_equal(
            got[25 + i], source[JOINT_SETS["openpose25"].index(SPIN[25 + i])]
        )


def test_annotations_fill_the_annotated_slots_and_feet():
    got = to_spin49(numbered("coco17")[None], "coco17")
    assert got.shape == (1, 49, 3) and not got[0, :25].any()
    assert (got[0, 25:, 2] > 0).sum() == 17
    whole = to_spin49(numbered("coco_wholebody133"), "coco_wholebody133")
    assert {SPIN[i] for i in np.flatnonzero(whole[:25, 2])} == set(JOINT_SETS["openpose25"][19:])
    lsp = to_spin49(numbered("lsp14"), "lsp14")
    np.testing.assert_array_equal(lsp[25:39], numbered("lsp14"))


def test_spin49_is_kept_and_wrong_sets_are_named():
    np.testing.assert_array_equal(to_spin49(numbered("spin49"), "spin49"), numbered("spin49"))
    with pytest.raises(UserError, match="joint set 'coco' is unknown"):
        to_spin49(numbered("coco17"), "coco")
    with pytest.raises(UserError, match="which has 17 joints"):
        to_spin49(numbered("coco18"), "coco17")
