"""3DPW from archives and from sequence files, whose labels must fit what the world saw."""

import pickle

import numpy as np
import pytest

from jaxrecon.bodies import body_forward, joints49, load_body
from jaxrecon.data.sources import open_source
from jaxrecon.errors import MissingFiles, UserError
from jaxrecon.geometry.rotations import axis_angle_to_matrix
from tests.datasets_builders.people import write_archive, write_photos, write_smpl

FRAMES = 4


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXRECON_MANUAL", raising=False)
    return tmp_path / "downloads/manual/pw3d"


def read(root, split="test"):
    source = open_source("3dpw", split, root.parents[2])
    return [source[i] for i in range(len(source))]


def test_archives(root):
    names = [f"imageFiles/street_00/image_0000{i}.jpg" for i in range(3)]
    file = root / "3dpw_test_w2d_smpl3d_gender_openpose.npz"
    made = write_archive(file, names, gender=np.array(["m", "f", "m"]))
    write_photos(root, names)
    records = read(root)
    assert [r["gender"] for r in records] == [0, 1, 0]
    assert {r["dataset"] for r in records} == {b"3dpw"}
    np.testing.assert_allclose([r["focal_length"] for r in records], made["focal_length"])
    # What was not there when the data set was built is asked for, not built silently later.
    with pytest.raises(MissingFiles, match="'3dpw', split 'train' lacks 3dpw_train_w2d"):
        read(root, "train")
    write_archive(root / "3dpw_train_w2d_smpl3d_gender.npz", names)
    with pytest.raises(UserError, match="no split 'train'; .*there now: remove .*pw3d"):
        read(root, "train")


def test_spins_own_archive_has_a_box_and_no_joints(root):
    names = ["imageFiles/street_00/image_00000.jpg"]
    unknown = dict.fromkeys(("part", "openpose", "S", "focal_length", "has_smpl"))
    made = write_archive(root / "3dpw_test.npz", names, **unknown)
    write_photos(root, names)
    (record,) = read(root)
    assert not record["keypoints2d"].any() and record["has_joints3d"] == 0
    np.testing.assert_allclose(record["center"], made["center"][0], rtol=1e-6)


def sequence():
    """Two people before a camera that turns, in the layout of the sequence files."""
    random = np.random.RandomState(3)
    extrinsics = np.tile(np.eye(4), (FRAMES, 1, 1))
    turn = random.normal(0, 0.3, (FRAMES, 3)) + [np.pi, 0, 0]  # world y up, camera y down
    extrinsics[:, :3, :3] = axis_angle_to_matrix(turn.astype(np.float32))
    extrinsics[:, :3, 3] = random.normal(0, 0.2, (FRAMES, 3)) + [0, 0, 5]
    people = range(2)
    poses2d = random.uniform(0, 100, (2, FRAMES, 3, 18))
    return {
        "sequence": "street_00",
        "poses": [random.normal(0, 0.3, (FRAMES, 72)) for _ in people],
        "betas": [random.normal(0, 1, 10 + 290 * p) for p in people],
        "trans": [random.normal(0, 0.3, (FRAMES, 3)) for _ in people],
        "poses2d": list(poses2d),
        "cam_poses": extrinsics,
        "cam_intrinsics": np.array([[1960.0, 0, 540], [0, 1960.0, 960], [0, 0, 1]]),
        "genders": ["m", "f"],
        "campose_valid": [np.array([1, 1, 0, 1]), np.array([0, 1, 1, 1])],
    }


def write_sequence(root, content, split="test"):
    folder = root / "sequenceFiles" / split
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "street_00.pkl").write_bytes(pickle.dumps(content, 2))


def test_sequence_files(root):
    content = sequence()
    write_sequence(root, content)
    write_smpl(root.parent / "smpl")
    names = [f"imageFiles/street_00/image_{i:05d}.jpg" for i in range(FRAMES)]
    write_photos(root, names)
    records = read(root)
    expected = [(0, 0), (0, 1), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert [r["imgname"].decode() for r in records] == [names[frame] for _, frame in expected]
    for record, (person, frame) in zip(records, expected):
        body = load_body(gender=("male", "female")[person])
        betas = content["betas"][person][:10].astype(np.float32)
        # What the world saw: the body placed there, then the camera's eyes.
        pose = content["poses"][person][frame].astype(np.float32).reshape(24, 3)
        posed = body_forward(body, betas, axis_angle_to_matrix(pose))
        world = np.asarray(joints49(body, posed))[25:] + content["trans"][person][frame]
        extrinsics = content["cam_poses"][frame]
        camera = world @ extrinsics[:3, :3].T + extrinsics[:3, 3]
        pixels = camera @ content["cam_intrinsics"].T
        pixels = pixels[:, :2] / pixels[:, 2:]
        np.testing.assert_allclose(record["keypoints2d"][25:, :2], pixels, atol=0.02)
        assert (record["keypoints2d"][25:, 2] == 1).all() and (record["joints3d"][:, 3] == 1).all()
        np.testing.assert_allclose(record["joints3d"][:, :3], camera - camera[14], atol=1e-5)
        # The label: the same body in the camera's frame.
        pose = record["pose"].reshape(24, 3)
        posed = body_forward(body, record["betas"], axis_angle_to_matrix(pose))
        label = np.asarray(joints49(body, posed))[25:] + record["transl"]
        np.testing.assert_allclose(label, camera, atol=1e-4)
        assert record["gender"] == person and record["focal_length"] == 1960
        detected = content["poses2d"][person][frame].T
        np.testing.assert_allclose(record["keypoints2d"][:8], detected[:8], rtol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"campose_valid": None}, "street_00.pkl has no campose_valid"),
        ({"genders": ["m", "x"]}, "street_00.pkl: gender 'x' of person 1"),
        ({"poses": [np.zeros((3, 72))] * 2}, r"poses of person 0 is not \(4, ...\)"),
        ({"trans": [np.zeros((4, 3))]}, "trans of person 1 is not"),
        ({"cam_poses": np.zeros((4, 3, 4))}, "cam_poses .4, 3, 4. and cam_intrinsics"),
        ({"campose_valid": [np.zeros(4)] * 2}, "have no frame with a valid camera"),
    ],
)
def test_broken_sequence_files(root, change, message):
    content = {k: v for k, v in (sequence() | change).items() if v is not None}
    write_sequence(root, content)
    write_smpl(root.parent / "smpl")
    with pytest.raises(UserError, match=message):
        read(root)


def test_smpl_files_alone_leave_both_ways_open(root):
    write_smpl(root.parent / "smpl")
    with pytest.raises(MissingFiles) as caught:
        read(root)
    (missing,) = caught.value.missing
    assert missing.files.startswith("3dpw_test_w2d_smpl3d_gender_openpose.npz (or ")
    assert "sequenceFiles/test/*.pkl with ../smpl/SMPL_MALE.*" in missing.files


def test_sequence_files_without_what_they_need(root):
    write_sequence(root, sequence())
    with pytest.raises(MissingFiles, match=r"lacks \.\./smpl/SMPL_MALE.*beside sequenceFiles/test"):
        read(root)
    write_smpl(root.parent / "smpl")
    with pytest.raises(UserError, match="4 of the 4 images .* are not in .*image_00000.jpg"):
        read(root)
    (root / "sequenceFiles/test/street_00.pkl").write_bytes(pickle.dumps(sequence(), 2)[:500])
    with pytest.raises(UserError, match="street_00.pkl is not a readable 3DPW sequence"):
        read(root)
