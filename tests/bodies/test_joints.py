"""Joint sets by name: maps between them, and mirror images."""

import numpy as np
import pytest

from jaxrecon.bodies import joints
from jaxrecon.errors import UserError


@pytest.mark.parametrize("name", list(joints.JOINT_SETS))
def test_mirror_is_an_involution_that_swaps_sides(name):
    names = joints.joint_names(name)
    mirror = joints.mirror_permutation(name)
    assert sorted(mirror) == list(range(len(names)))
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(names)))
    for i, j in enumerate(mirror):
        if names[i].startswith("l_"):
            assert names[j] == "r_" + names[i][2:]


def test_published_permutations():
    """The lists of the published flip (spec meta_hmr 5.4)."""
    assert joints.mirror_permutation("gt24").tolist() == [
        5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, *range(12, 20), 21, 20, 23, 22
    ]  # fmt: skip
    assert joints.mirror_permutation("openpose25").tolist() == [
        0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24, 19, 20, 21
    ]  # fmt: skip
    assert joints.mirror_permutation("smpl24").tolist() == [
        0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22
    ]  # fmt: skip


def test_published_slots_of_the_data_sets():
    """Slots of the 24 that COCO, MPII and Human3.6M joints fill (spec meta_hmr section 7)."""
    slots = {
        "coco17": [19, 20, 21, 22, 23, 9, 8, 10, 7, 11, 6, 3, 2, 4, 1, 5, 0],
        "mpii16": [0, 1, 2, 3, 4, 5, 14, 15, 12, 13, 6, 7, 8, 9, 10, 11],
    }
    for name, want in slots.items():
        place = {joint: i for i, joint in enumerate(joints.GT24)}
        assert [place[joint] for joint in joints.JOINT_SETS[name]] == want


def test_evaluation_rows_are_the_published_ones():
    assert joints.evaluation_rows().tolist() == [
        6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10, 0, 7, 9
    ]  # fmt: skip


def test_49_joints_name_their_sources():
    """Each of the 49 takes a source of the same meaning among SMPL's 54."""
    sources = (*joints.SMPL24, *joints.VERTEX_JOINTS, *joints.EXTRA_JOINTS)
    assert len(sources) == 54
    for target, index in zip(joints.JOINT_SETS["spin49"], joints.SPIN49_FROM_54, strict=True):
        assert sources[index] == target


def test_conversion_marks_missing_joints():
    coco = np.ones((2, 17, 3))
    got = joints.convert_keypoints(coco, "coco17", "openpose25")
    names = joints.joint_names("openpose25")
    assert got[0, names.index("r_knee"), 2] == 1
    assert got[0, names.index("neck"), 2] == 0


def test_wrong_sets_and_shapes_are_named():
    with pytest.raises(UserError, match="coco17"):
        joints.joint_names("coco-17")
    with pytest.raises(UserError, match="17 joints"):
        joints.convert_keypoints(np.ones((2, 18, 3)), "coco17", "gt24")


def test_every_set_has_bones_to_draw():
    for name in joints.JOINT_SETS:
        pairs = joints.bones(name)
        assert len(pairs) > 5 and pairs.max() < len(joints.joint_names(name))
