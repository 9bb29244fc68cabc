"""A few real photographs of each data set, put into the layout of its download, and built."""

import json
import shutil

import numpy as np
import pytest
import scipy.io

from jaxrecon.bodies.joints import JOINT_SETS
from jaxrecon.data.items import make_item, person_from_record
from jaxrecon.data.sources import open_source
from tests.conftest import needs_shared

pytestmark = needs_shared

# The studio data sets call the upper neck thorax; it is the neck of the annotated 24.
H36M = [{"thorax": "neck"}.get(name, name) for name in JOINT_SETS["h36m17"]]
MPI_TRAIN = (
    "head", "neck", "r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow", "l_wrist",
    "r_hip", "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle", "pelvis", "spine", "jaw",
)  # fmt: skip


@pytest.fixture
def photos(shared_dir):
    return shared_dir / "data" / "photos"


@pytest.fixture
def manual(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRECON_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("JAXRECON_MANUAL", str(tmp_path / "manual"))
    return tmp_path / "manual"


def people(name, split="train", **kwargs):
    source = open_source(name, split, **kwargs)
    return [person_from_record(source[i]) for i in range(len(source))]


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def assert_usable(person):
    """The box is in the photograph, and so are the joints of the crop that is cut from it."""
    height, width = person.image_size
    assert person.image.std() > 10
    assert (person.center > 0).all() and (person.center < (width, height)).all()
    item = make_item(person, 256, 192)
    seen = item["keypoints2d"][25:, 2] > 0
    assert seen.sum() >= 12
    assert (item["keypoints2d"][25:, :2][seen] > 0).all()
    assert (item["keypoints2d"][25:, :2][seen] < (192, 256)).all()


def test_coco(photos, manual):
    file = photos / "coco" / "person_keypoints.json"
    copy(file, manual / "coco/annotations/person_keypoints_train2014.json")
    for image in (photos / "coco").glob("*.jpg"):
        copy(image, manual / "coco/train2014" / image.name)
    found = people("coco", config="official")
    rows = json.loads(file.read_text())["annotations"]
    points = [np.array(row["keypoints"]).reshape(17, 3) for row in rows if row["keypoints"]]
    whole = [p for p in points if (p[5:, 2] > 0).all()]
    assert 0 < len(found) == len(whole)
    nose = JOINT_SETS["gt24"].index("nose")
    for person, want in zip(found, whole):
        assert_usable(person)
        if want[0, 2]:
            np.testing.assert_array_equal(person.keypoints2d[25 + nose, :2], want[0, :2])


def test_mpii(photos, manual):
    copy(photos / "mpii/mpii.json", manual / "mpii/annot/train.json")
    for image in (photos / "mpii").glob("*.jpg"):
        copy(image, manual / "mpii/images" / image.name)
    found = people("mpii", config="official")
    rows = json.loads((photos / "mpii/mpii.json").read_text())
    assert len(found) == len(rows)
    for person, row in zip(found, rows):
        assert_usable(person)
        assert (person.keypoints2d[25:, 2] > 0).sum() == sum(row["joints_vis"])


def reprojected(joints3d, camera, root):
    points = joints3d[:, :3] + root
    pixels = points @ camera.T
    return pixels[:, :2] / pixels[:, 2:]


def in_slots(points, names):
    slots = [JOINT_SETS["gt24"].index(name) for name in names]
    placed = np.zeros((len(points), 24, points.shape[-1]))
    placed[:, slots] = points
    return placed, slots


def test_h36m(photos, manual):
    sample = np.load(photos / "h36m/annotations.npz")
    mosh = np.load(photos / "mosh/smpl_poses.npz")
    count = len(sample["image"])
    part, slots = in_slots(sample["keypoints2d"], H36M)
    joints = sample["joints3d"].copy()
    root = joints[:, :1, :3].copy()
    joints[..., :3] -= root
    for image in sample["image"].tolist():
        copy(photos / "h36m" / image, manual / "h36m/images" / image)
    np.savez(
        manual / "h36m/h36m_mosh_train_fixname.npz",
        imgname=np.char.add("images/", sample["image"]),
        part=part,
        S=in_slots(joints, H36M)[0],
        pose=mosh["pose"][:count],
        shape=mosh["shape"][:count],
        focal_length=sample["K"][:, 0, 0],
    )
    found = people("h36m")
    assert len(found) == count
    for i, person in enumerate(found):
        assert_usable(person)
        pixels = reprojected(person.joints3d[slots], sample["K"][i], root[i])
        # The lens is not quite a pinhole.
        np.testing.assert_allclose(pixels, person.keypoints2d[25:][slots, :2], atol=2)
        np.testing.assert_allclose(person.pose, mosh["pose"][i], rtol=1e-6)


def test_mpi_inf_3dhp_training_frame(photos, manual):
    sample = np.load(photos / "mpi_inf_3dhp/train.npz")
    frames, frame = 1033, 1032  # S4_Seq2_Cam0_001033: all other frames are outside of the image
    raw = [4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]
    names = (
        "pelvis", "l_hip", "l_knee", "l_ankle", "r_hip", "r_knee", "r_ankle", "spine", "neck",
        "jaw", "head", "l_shoulder", "l_elbow", "l_wrist", "r_shoulder", "r_elbow", "r_wrist",
    )  # fmt: skip
    order = [MPI_TRAIN.index(name) for name in names]
    annot2, annot3 = np.empty((14, 1), object), np.empty((14, 1), object)
    for camera in range(14):
        points = np.full((frames, 28, 2), -1.0)
        joints = np.zeros((frames, 28, 3))
        if camera == 0:
            points[frame, raw] = sample["keypoints2d"][order, :2]
            joints[frame, raw] = sample["joints3d"][order, :3] * 1000
        annot2[camera, 0], annot3[camera, 0] = (
            points.reshape(frames, -1),
            joints.reshape(frames, -1),
        )
    folder = manual / "mpi_inf_3dhp/S4/Seq2"
    copy(
        photos / "mpi_inf_3dhp/S4_Seq2_Cam0_001033.jpg",
        folder / "imageFrames/video_0/frame_001033.jpg",
    )
    scipy.io.savemat(folder / "annot.mat", {"annot2": annot2, "annot3": annot3})
    (person,) = people("mpi_inf_3dhp", config="official")
    assert_usable(person)
    slots = [JOINT_SETS["gt24"].index(name) for name in names]
    root = sample["joints3d"][MPI_TRAIN.index("pelvis"), :3]
    pixels = reprojected(person.joints3d[slots], sample["K"], root)
    np.testing.assert_allclose(pixels, person.keypoints2d[25:][slots, :2], atol=2)


def test_mpi_inf_3dhp_test_frame(photos, manual):
    h5py = pytest.importorskip("h5py", reason="the test set's HDF5 files need h5py")
    sample = np.load(photos / "mpi_inf_3dhp/test.npz")
    frames, frame = 2001, 2000
    folder = manual / "mpi_inf_3dhp/mpi_inf_3dhp_test_set/TS1"
    copy(photos / "mpi_inf_3dhp/TS1_002001.jpg", folder / "imageSequence/img_002001.jpg")
    points, joints = np.zeros((frames, 1, 17, 2)), np.zeros((frames, 1, 17, 3))
    points[frame, 0] = sample["keypoints2d"][:, :2]
    joints[frame, 0] = sample["joints3d"][:, :3] * 1000
    with h5py.File(folder / "annot_data.mat", "w") as file:
        file["annot2"], file["univ_annot3"] = points, joints
        file["valid_frame"] = (np.arange(frames) == frame)[:, None].astype(float)
    (person,) = people("mpi_inf_3dhp", "test")
    assert_usable(person)
    assert person.joints3d[:, 3].sum() == 17 and not person.has_smpl


def test_the_classic_photograph_by_its_box_and_detected_joints(photos, manual):
    x, y, width, height = json.loads((photos / "spin/im1010_bbox.json").read_text())["bbox"]
    folder = manual / "spin_npz/classic"
    copy(photos / "spin/im1010.jpg", folder / "images/im1010.jpg")
    copy(photos / "spin/im1010_openpose.json", folder / "openpose/im1010_keypoints.json")
    np.savez(
        folder / "test.npz",
        imgname=np.array(["im1010.jpg"]),
        center=np.array([[x + width / 2, y + height / 2]]),
        scale=np.array([max(width, height) / 200]),
    )
    (person,) = people("spin_npz", "test", config="classic")
    assert (person.keypoints2d[:25, 2] > 0).sum() > 15 and not person.keypoints2d[25:].any()
    low, high = (x, y), (x + width, y + height)
    seen = person.keypoints2d[:25][person.keypoints2d[:25, 2] > 0.5, :2]
    assert ((seen >= low) & (seen <= high)).mean() > 0.9
