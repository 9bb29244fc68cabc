"""Human3.6M from its own CDF files: made-up poses before the real cameras, whole and broken."""

import sys

import cv2
import numpy as np
import pytest

from jaxrecon.data.sources import open_source
from jaxrecon.errors import MissingFiles, UserError
from jaxrecon.io.h36m_archives import cameras
from tests.datasets_builders.people import write_photos
from tests.datasets_builders.test_videos import write_video

SLOTS = [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6]
OF_32 = [11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]
FRONTAL, SIDE = "60457274", "54138969"


def lens(camera):
    return next(c for c in cameras()["intrinsics"] if c["id"] == camera)


def take(camera, frames, seed):
    """(frames, 32, 3) millimetres in a camera's frame, and their pixels through its real lens."""
    random, c = np.random.RandomState(seed), lens(camera)
    joints = random.uniform(-900, 900, (frames, 32, 3)) + [0, 0, 5000]
    k, p = c["radial_distortion"], c["tangential_distortion"]
    matrix = np.diag([*c["focal_length"], 1.0])
    matrix[:2, 2] = c["center"]
    distortion = np.array([k[0], k[1], p[0], p[1], k[2]])
    points, _ = cv2.projectPoints(
        joints.reshape(-1, 3), np.zeros(3), np.zeros(3), matrix, distortion
    )
    return joints, points.reshape(frames, 32, 2)


def write_cdf(path, pose, variable="Pose"):
    cdflib = pytest.importorskip("cdflib", reason="the CDF files of Human3.6M need cdflib")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    flat = pose.reshape(1, len(pose), -1)
    file = cdflib.cdfwrite.CDF(path, cdf_spec={"rDim_sizes": []})
    spec = {
        "Variable": variable,
        "Data_Type": 45,  # CDF_DOUBLE
        "Num_Elements": 1,
        "Rec_Vary": True,
        "Dim_Sizes": list(flat.shape[1:]),
        "Compress": 6,
    }
    file.write_var(spec, var_data=flat)
    file.close()


def write_take(root, subject, action, camera, frames=7, seed=0):
    joints, points = take(camera, frames, seed)
    paths = [
        root / f"S{subject}/MyPoseFeatures/{kind}/{action}.{camera}.cdf"
        for kind in ("D3_Positions_mono", "D2_Positions")
    ]
    for path, pose in zip(paths, (joints, points)):
        write_cdf(path, pose)
    return joints, points, paths


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRECON_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("JAXRECON_MANUAL", str(tmp_path / "manual"))
    return tmp_path / "manual" / "h36m"


def write_test_subjects(root):
    """S9 and S11; returns what was written of the takes that count, in the order of the rows."""
    made = [
        (name, write_take(root, subject, action, camera, frames, seed))
        for seed, (name, subject, action, camera, frames) in enumerate(
            [
                ("S9_Eating 1.54138969", 9, "Eating 1", SIDE, 7),
                ("S9_Eating 1.60457274", 9, "Eating 1", FRONTAL, 5),
                ("S11_Posing.60457274", 11, "Posing", FRONTAL, 11),
            ]
        )
    ]
    write_take(root, 11, "Directions", FRONTAL)  # its video is damaged
    for name, (joints, _, _) in made:
        frames = [f"{name}_{i + 1:06d}.jpg".replace(" ", "_") for i in range(0, len(joints), 5)]
        write_photos(root / "images", frames)
    return made


def test_the_test_subjects(root):
    made = write_test_subjects(root)
    for split, takes in (("h36m-p1", made), ("h36m-p2", made[1:])):
        source = open_source(split, "test", config="official")
        rows = [
            (name, i, joints[i], points[i])
            for name, (joints, points, _) in takes
            for i in range(0, len(joints), 5)
        ]
        assert len(source) == len(rows)
        for record, (name, frame, joints, points) in zip(
            [source[i] for i in range(len(rows))], rows
        ):
            assert record["imgname"].decode() == f"{name}_{frame + 1:06d}.jpg"
            assert (record["has_smpl"], record["has_joints3d"], record["gender"]) == (0, 1, -1)
            got = record["joints3d"][SLOTS]
            wanted = (joints[OF_32] - joints[11]) / 1000
            np.testing.assert_allclose(got[:, :3], wanted, atol=1e-5)
            seen = record["keypoints2d"][25:]
            np.testing.assert_allclose(seen[SLOTS, :2], points[OF_32], rtol=1e-5)
            assert record["joints3d"][:, 3].sum() == seen[:, 2].sum() == 17
            assert not record["keypoints2d"][:25].any()
            camera = lens(name[-8:])
            assert record["focal_length"] == pytest.approx(np.mean(camera["focal_length"]))


def test_the_training_subjects_and_frames_of_videos(root):
    for subject in (1, 5, 6, 7, 8):
        write_take(root, subject, "Directions 1", SIDE, 6, seed=subject)
        write_video(root / f"S{subject}/Videos/Directions 1.54138969.mp4")
    source = open_source("h36m", "train", config="official")
    assert len(source) == 10
    names = [source[i]["imgname"].decode() for i in range(3)]
    assert names == [
        "S1_Directions 1.54138969_000001.jpg",
        "S1_Directions 1.54138969_000006.jpg",
        "S5_Directions 1.54138969_000001.jpg",
    ]


def test_missing_files_are_listed(root):
    write_test_subjects(root)
    for path in (root / "S11/MyPoseFeatures/D2_Positions").iterdir():
        path.unlink()
    with pytest.raises(MissingFiles) as caught:
        open_source("h36m-p1", "test", config="official")
    assert "S11/MyPoseFeatures/D2_Positions/*.cdf" in str(caught.value)
    with pytest.raises(MissingFiles, match="S1/MyPoseFeatures/D3_Positions_mono"):
        open_source("h36m", "train", config="official")


def fault(message):
    with pytest.raises(UserError, match=message) as caught:
        open_source("h36m-p1", "test", config="official")
    assert "\n" not in str(caught.value)


def test_broken_copies(root):
    made = write_test_subjects(root)
    joints, points, (file3, file2) = made[0][1]
    whole = file3.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", b"no CDF" * 100):
        file3.write_bytes(content)
        fault(r"Eating 1.54138969.cdf is (not a pose file of Human3.6M, or is damaged|empty)")
    write_cdf(file3, joints, "Position")
    fault("D3_Positions_mono/Eating 1.54138969.cdf is not a pose file .*'?Pose'? not found")
    write_cdf(file3, points)
    fault(r"Pose is float64 \(1, 7, 64\), not \(1, frames, 96\)")
    write_cdf(file3, joints[:6])
    fault("54138969.cdf has 6 frames and .*D2_Positions.* has 7")
    write_cdf(file3, joints[::-1])
    fault("do not belong together: .* are [0-9]+ pixels from those of the other")
    write_cdf(file3, joints * np.nan)
    fault("do not belong together: .* are nan pixels")
    write_cdf(file3, joints)
    file2.unlink()
    fault("no such annotation file: .*D2_Positions/Eating 1.54138969.cdf")
    write_cdf(file2, points)
    for path in (file3, file2):
        path.rename(path.with_name("Eating 1.12345678.cdf"))
    fault("is not named like 'Directions 1.54138969.cdf'")
    for path in (file3, file2):
        path.with_name("Eating 1.12345678.cdf").rename(path)
    (root / "images/S9_Eating_1.54138969_000006.jpg").unlink()
    fault("1 of the 6 images .* names are not in .*S9_Eating 1.54138969_000006.jpg")


def test_it_says_that_it_needs_cdflib(root, monkeypatch):
    for subject in (9, 11):
        for kind in ("D3_Positions_mono", "D2_Positions"):
            path = root / f"S{subject}/MyPoseFeatures/{kind}/Eating.{FRONTAL}.cdf"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "cdflib", None)
    fault(r"is a CDF file: install cdflib \(pip install 'jaxrecon\[h36m\]'\)")
