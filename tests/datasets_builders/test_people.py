"""Every builder of people on small made-up downloads, and on broken copies of them."""

import json
import shutil
import sys

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from jaxrecon.data.items import record_from_annotations
from jaxrecon.data.sources import find_builder
from jaxrecon.errors import MissingFiles, UserError
from tests.datasets_builders.people import fields, write_archive, write_photos

H36M = ["S1_Directions_1.54138969_000001.jpg", "S5_Sitting 1.60457274_000006.jpg"]
P1 = [
    "S9_Eating.60457274_000001.jpg",
    "S9_Eating.54138969_000001.jpg",
    "S11_Greeting_1.60457274_000011.jpg",
]
COCO = ["train2014/COCO_train2014_000000000036.jpg", "train2014/COCO_train2014_000000000049.jpg"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of data sets; manual downloads are in their usual place below it."""
    monkeypatch.delenv("JAXRECON_MANUAL", raising=False)
    return tmp_path


def manual(place, name):
    return place / "downloads" / "manual" / name


def build(place, name, **kwargs):
    builder = find_builder(name)(data_dir=place, **kwargs)
    builder.download_and_prepare()
    return builder


def rows(builder, split):
    keep = {"image": tfds.decode.SkipDecoding()}
    return list(builder.as_data_source(split, decoders=keep))


def assert_records(records, made, root, folder, dataset):
    """The records are the rows of the archive, as the loader's own reader takes them."""
    assert len(records) == len(made["imgname"])
    for row, record in enumerate(records):
        want = record_from_annotations(made, row, dataset)
        name = want["imgname"]
        assert record["imgname"].decode() == name and record["dataset"].decode() == dataset
        assert record["image"] == (root / folder / name.replace(" ", "_")).read_bytes()
        want["keypoints2d"] *= want["keypoints2d"][:, 2:] > 0
        want["joints3d"] = want["joints3d"] * (want["joints3d"][:, 3:] > 0)
        for key in set(want) - {"image", "imgname", "dataset"}:
            np.testing.assert_allclose(record[key], want[key], rtol=1e-6, err_msg=key)


def test_h36m(place):
    root = manual(place, "h36m")
    train = write_archive(root / "h36m_mosh_train_fixname.npz", H36M, 1, gender=None)
    test = write_archive(root / "h36m_mosh_val_p1.npz", P1, 2, S=None, gender=None, openpose=None)
    write_photos(root / "images", [name.replace(" ", "_") for name in H36M + P1])
    builder = build(place, "h36m")
    assert list(builder.info.splits) == ["train", "test_p1", "test_p2"]
    assert_records(rows(builder, "train"), train, root, "images", "h36m")
    assert_records(rows(builder, "test_p1"), test, root, "images", "h36m")
    frontal = [record["imgname"].decode() for record in rows(builder, "test_p2")]
    assert frontal == [P1[0], P1[2]]
    assert rows(builder, "test_p1")[0]["has_joints3d"] == 0


def test_h36m_refuses_the_files_of_other_splits(place):
    root = manual(place, "h36m")
    write_photos(root, H36M + P1)
    write_archive(root / "h36m_mosh_train.npz", P1)
    with pytest.raises(UserError, match="train.npz: S9_Eating.60457274.* is not of the subjects"):
        build(place, "h36m")
    (root / "h36m_mosh_train.npz").unlink()
    write_archive(root / "h36m_mosh_val_p2.npz", P1)
    with pytest.raises(UserError, match="S9_Eating.54138969.* from camera 60457274"):
        build(place, "h36m")
    write_archive(root / "h36m_mosh_val_p2.npz", COCO)
    with pytest.raises(UserError, match="is not like S1_Directions"):
        build(place, "h36m")


def test_coco_with_clifs_own_names(place):
    root = manual(place, "coco")
    made = fields(COCO, 3, gender=None, openpose=None)
    made["global_t"] = np.array([[0.1, 0.2, 5.0], [0.3, -0.1, 6.0]])
    made["focal_l"] = made.pop("focal_length") + 7
    made["has_smpl"] = np.array([1, 0])
    root.mkdir(parents=True)
    np.savez(root / "coco2014part_cliffGT.npz", **made)
    write_photos(root, COCO)
    records = rows(build(place, "coco"), "train")
    np.testing.assert_allclose([r["transl"] for r in records], made["global_t"], rtol=1e-6)
    np.testing.assert_allclose([r["focal_length"] for r in records], made["focal_l"])
    assert [r["has_smpl"] for r in records] == [1, 0]
    np.testing.assert_allclose(records[0]["pose"], made["pose"][0], rtol=1e-6)
    assert not records[1]["pose"].any() and not records[1]["betas"].any()
    assert [r["gender"] for r in records] == [-1, -1]


def coco_json(visible):
    points = np.random.RandomState(0).uniform(10, 100, (3, 17, 3)).round(1)
    points[..., 2] = visible
    points[1, 7, 2] = 0  # an elbow that is not labelled
    return {
        "images": [{"id": 5, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}],
        "annotations": [
            {"id": i, "image_id": [5, 5, 7][i], "bbox": [10, 20, 30, 60],
             "keypoints": points[i].ravel().tolist()} for i in range(3)
        ] + [{"id": 9, "image_id": 7, "bbox": [0, 0, 1, 1], "keypoints": []}],
    }  # fmt: skip


def test_coco_official(place):
    root = manual(place, "coco")
    content = coco_json(1)
    content["annotations"][0]["keypoints"][2] = 0  # the nose may be unlabelled
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/person_keypoints_train2014.json").write_text(json.dumps(content))
    write_photos(root / "train2014", ["a.jpg", "b.jpg"])
    records = rows(build(place, "coco", config="official"), "train")
    assert [r["imgname"] for r in records] == [b"a.jpg", b"b.jpg"]
    slots = [19, 20, 21, 22, 23, 9, 8, 10, 7, 11, 6, 3, 2, 4, 1, 5, 0]
    for record, row in zip(records, (0, 2)):
        points = np.array(content["annotations"][row]["keypoints"]).reshape(17, 3)
        points[:, :2] *= points[:, 2:] > 0
        np.testing.assert_allclose(record["keypoints2d"][25:][slots], points, rtol=1e-6)
        assert record["keypoints2d"][25:, 2].sum() == points[:, 2].sum()
        assert (record["has_smpl"], record["has_joints3d"]) == (0, 0)
        np.testing.assert_allclose(record["center"], [25, 50])
        np.testing.assert_allclose(record["scale"], 1.2 * 60 / 200)


def test_mpii(place):
    root = manual(place, "mpii")
    names = ["images/000001.jpg", "images/000002.jpg"]
    made = write_archive(root / "mpii_cliffGT.npz", names, gender=None, S=None)
    write_photos(root, names)
    builder = build(place, "mpii")
    assert_records(rows(builder, "train"), made, root, "", "mpii")


MPII_SLOTS = [0, 1, 2, 3, 4, 5, 14, 15, 12, 13, 6, 7, 8, 9, 10, 11]


def mpii_people():
    points = np.random.RandomState(4).uniform(10, 100, (2, 16, 2)).round()
    seen = np.ones((2, 16), int)
    seen[0, 5] = seen[1, 9] = 0
    return points, seen


def check_mpii(records, points, seen):
    for record, where, visible in zip(records, points, seen, strict=True):
        got = record["keypoints2d"][25:][MPII_SLOTS]
        np.testing.assert_array_equal(got[:, 2], visible)
        np.testing.assert_array_equal(got[:, :2], where * visible[:, None])
        assert (record["has_smpl"], record["has_joints3d"]) == (0, 0)


def test_mpii_official_json(place):
    root, (points, seen) = manual(place, "mpii"), mpii_people()
    people = [
        {"image": f"{i}.jpg", "center": [60.0, 50.0], "scale": 0.4, "joints": points[i].tolist(),
         "joints_vis": seen[i].tolist()} for i in range(2)
    ]  # fmt: skip
    (root / "annot").mkdir(parents=True)
    (root / "annot/train.json").write_text(json.dumps(people))
    write_photos(root / "images", ["0.jpg", "1.jpg"])
    check_mpii(rows(build(place, "mpii", config="official"), "train"), points, seen)
    people[1]["joints"].pop()
    (root / "annot/train.json").write_text(json.dumps(people))
    with pytest.raises(UserError, match="train.json: person 1 is not .*joints"):
        build(place / "again", "mpii", config="official", manual_dir=root.parent)


def test_mpii_official_release(place):
    root, (points, seen) = manual(place, "mpii"), mpii_people()

    def rect(i):
        chosen = np.flatnonzero(seen[i])
        values = [(points[i, j, 0], points[i, j, 1], j) for j in chosen]
        point = np.array(values, dtype=[("x", "f8"), ("y", "f8"), ("id", "O")])
        place = {"x": 60.0, "y": 50.0}
        return {"annopoints": {"point": point}, "objpos": place, "scale": 0.4}

    def image(name, *people):
        found = np.array(
            [(p.get("annopoints", []), p.get("objpos", []), p.get("scale", [])) for p in people],
            dtype=[("annopoints", "O"), ("objpos", "O"), ("scale", "O")],
        )
        return ({"name": name}, found)

    images = [image("0.jpg", rect(0)), image("9.jpg", rect(0)), image("1.jpg", {}, rect(1))]
    annolist = np.array(images, dtype=[("image", "O"), ("annorect", "O")])
    root.mkdir(parents=True)
    release = {"annolist": annolist, "img_train": np.array([1, 0, 1])}
    file = root / "mpii_human_pose_v1_u12_1.mat"
    scipy.io.savemat(file, {"RELEASE": release})
    write_photos(root / "images", ["0.jpg", "1.jpg"])
    records = rows(build(place, "mpii", config="official"), "train")
    assert [r["imgname"] for r in records] == [b"0.jpg", b"1.jpg"]
    check_mpii(records, points, seen)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="is not MPII's .* or is damaged"):
        build(place / "again", "mpii", config="official", manual_dir=root.parent)


STUDIO_SLOTS = [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6]
MPI = [f"S1/Seq{i}/imageFrames/video_0/frame_000001.jpg" for i in (1, 2)]


def test_mpi_inf_3dhp_with_the_fits_of_spin(place):
    root = manual(place, "mpi_inf_3dhp")
    made = write_archive(
        root / "mpi_inf_3dhp_train.npz", MPI, pose=None, shape=None, has_smpl=None, gender=None
    )
    fits = {k: v for k, v in fields(MPI, 8).items() if k in ("pose", "shape")}
    fits["has_smpl"] = np.array([0, 1])
    (root / "static_fits").mkdir()
    np.savez(root / "static_fits/mpi-inf-3dhp_mview_fits.npz", **fits)
    write_photos(root, MPI)
    records = rows(build(place, "mpi_inf_3dhp"), "train")
    fits["pose"][0] = fits["shape"][0] = 0
    assert_records(records, made | fits, root, "", "mpi_inf_3dhp")
    fits["pose"] = fits["pose"][:1]
    np.savez(root / "static_fits/mpi-inf-3dhp_mview_fits.npz", **fits)
    with pytest.raises(UserError, match="mview_fits.npz: field 'pose' has 1 rows.*has 2"):
        build(place / "again", "mpi_inf_3dhp", manual_dir=root.parent)


def test_mpi_inf_3dhp_official(place):
    root, random = manual(place, "mpi_inf_3dhp"), np.random.RandomState(0)
    names = []
    for subject, frames in ((1, 7), (2, 9)):
        annot2, annot3 = np.empty((14, 1), object), np.empty((14, 1), object)
        for camera in range(14):
            annot2[camera, 0] = random.uniform(0, 2000, (frames, 56))
            annot3[camera, 0] = random.uniform(-900, 900, (frames, 84))
        annot2[0, 0][2, 8] = 3000  # raw joint 4 of the third frame is outside
        (root / f"S{subject}/Seq1").mkdir(parents=True)
        scipy.io.savemat(root / f"S{subject}/Seq1/annot.mat", {"annot2": annot2, "annot3": annot3})
        for camera in (0, 1, 2, 4, 5, 6, 7, 8):
            for frame in range(frames):
                if (camera, frame) != (0, 2):
                    path = f"S{subject}/Seq1/imageFrames/video_{camera}/frame_{frame + 1:06d}.jpg"
                    names.append((path, annot2[camera, 0][frame], annot3[camera, 0][frame]))
    write_photos(root, [name for name, _, _ in names[::10]], 20, 20)
    records = rows(build(place, "mpi_inf_3dhp", config="official"), "train")
    raw = [4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]
    for record, (name, pixels, joints) in zip(records, names[::10], strict=True):
        assert record["imgname"].decode() == name
        got = record["keypoints2d"][25:][STUDIO_SLOTS]
        np.testing.assert_allclose(got[:, :2], pixels.reshape(28, 2)[raw], rtol=1e-6)
        joints = joints.reshape(28, 3) / 1000
        got = record["joints3d"][STUDIO_SLOTS]
        np.testing.assert_allclose(got[:, :3], joints[raw] - joints[4], atol=1e-6)
        assert record["joints3d"][:, 3].sum() == record["keypoints2d"][25:, 2].sum() == 17
        assert (record["has_smpl"], record["has_joints3d"]) == (0, 1)


def test_mpi_inf_3dhp_test_set(place):
    h5py = pytest.importorskip("h5py", reason="the test set's HDF5 files need h5py")
    root, random = manual(place, "mpi_inf_3dhp"), np.random.RandomState(0)
    folder = root / "mpi_inf_3dhp_test_set/TS1"
    pixels = random.uniform(0, 100, (5, 1, 17, 2))
    pixels[3, 0, 2, 1] = 101
    joints = random.uniform(-900, 900, (5, 1, 17, 3))
    folder.mkdir(parents=True)
    with h5py.File(folder / "annot_data.mat", "w") as file:
        file["annot2"], file["univ_annot3"] = pixels, joints
        file["valid_frame"] = np.array([0, 1, 0, 1, 1])[:, None]
    write_photos(folder / "imageSequence", [f"img_{i:06d}.jpg" for i in (2, 4, 5)], 101, 101)
    records = rows(build(place, "mpi_inf_3dhp"), "test")
    raw = [14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
    for record, frame in zip(records, (1, 4), strict=True):
        assert record["imgname"].decode().endswith(f"TS1/imageSequence/img_{frame + 1:06d}.jpg")
        got = record["keypoints2d"][25:][STUDIO_SLOTS]
        np.testing.assert_allclose(got[:, :2], pixels[frame, 0][raw], rtol=1e-6)
        want = joints[frame, 0] / 1000
        got = record["joints3d"][STUDIO_SLOTS]
        np.testing.assert_allclose(got[:, :3], want[raw] - want[14], atol=1e-6)


def test_the_test_set_of_mpi_inf_3dhp_says_that_it_needs_h5py(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    folder = manual(place, "mpi_inf_3dhp") / "mpi_inf_3dhp_test_set/TS1"
    folder.mkdir(parents=True)
    (folder / "annot_data.mat").write_bytes(b"x")
    with pytest.raises(UserError, match="is an HDF5 file: install h5py"):
        build(place, "mpi_inf_3dhp")


def test_spin_npz(place):
    root = manual(place, "spin_npz") / "street"
    train = write_archive(root / "train.npz", ["a b.png", "c.jpg", "a b.png"], 1, has_smpl=None)
    test = write_archive(root / "test.npz", ["d.jpg"], 2, pose=None, shape=None, has_smpl=None)
    write_photos(root / "images", ["a_b.png", "c.jpg", "d.jpg"])
    builder = build(place, "spin_npz", config="street")
    assert_records(rows(builder, "train"), train, root, "images", "spin_npz")
    assert_records(rows(builder, "test"), test, root, "images", "spin_npz")
    assert rows(builder, "train")[0]["has_smpl"] == 1 and rows(builder, "test")[0]["has_smpl"] == 0
    elsewhere = place / "elsewhere"
    (root / "images").rename(elsewhere)
    again = build(
        place / "b", "spin_npz", config="street", images=elsewhere, manual_dir=root.parent.parent
    )
    assert len(rows(again, "train")) == 3
    with pytest.raises(UserError, match='needs the name of a data set: "spin_npz/street"'):
        build(place, "spin_npz")


def test_openpose_files_give_the_other_half_of_the_keypoints(place):
    root = manual(place, "spin_npz") / "street"
    made = write_archive(root / "train.npz", ["x/a.jpg", "b.jpg", "c.jpg"], openpose=None)
    write_photos(root / "images", ["x/a.jpg", "b.jpg", "c.jpg"])
    # The annotated limbs in the order of BODY_25, nearly; and somebody else first.
    near = np.random.RandomState(0).uniform(0, 200, (25, 3))
    near[[11, 10, 9, 12, 13, 14, 4, 3, 2, 5, 6, 7], :2] = made["part"][0, :12, :2] + 1
    other = near + [50, 0, 0]
    people = [{"pose_keypoints_2d": points.ravel().tolist()} for points in (other, near)]
    (root / "openpose/x").mkdir(parents=True)
    (root / "openpose/x/a_keypoints.json").write_text(json.dumps({"people": people}))
    (root / "openpose/b_keypoints.json").write_text(json.dumps({"people": []}))
    found = rows(build(place, "spin_npz", config="street"), "train")
    np.testing.assert_allclose(found[0]["keypoints2d"][:25], near, rtol=1e-6)
    assert not found[1]["keypoints2d"][:25].any() and not found[2]["keypoints2d"][:25].any()
    shutil.rmtree(root / "openpose")
    (root / "openpose").mkdir()
    with pytest.raises(UserError, match="no detected joints .*a_keypoints.json is expected"):
        build(place / "b", "spin_npz", config="street", manual_dir=root.parent.parent)


def test_shards_follow_one_another(place, monkeypatch, capsys):
    from jaxrecon.datasets_builders.people import builder as people_builder

    monkeypatch.setattr(people_builder, "_SHARD_BYTES", 5000)
    root = manual(place, "spin_npz") / "street"
    made = write_archive(root / "train.npz", [f"{i}.jpg" for i in range(7)])
    write_photos(root / "images", made["imgname"].tolist())
    builder = build(place, "spin_npz", config="street")
    assert builder.info.splits["train"].num_shards > 2
    assert_records(rows(builder, "train"), made, root, "images", "spin_npz")


def test_where_manual_downloads_are(place, monkeypatch):
    made = write_archive(place / "elsewhere/coco/coco_2014_smpl_train.npz", COCO)
    write_photos(place / "elsewhere/coco", COCO)
    config = tfds.download.DownloadConfig(manual_dir=place / "elsewhere")
    builder = find_builder("coco")(data_dir=place / "a")
    builder.download_and_prepare(download_config=config)
    assert len(rows(builder, "train")) == len(made["imgname"])
    monkeypatch.setenv("JAXRECON_MANUAL", str(place / "elsewhere"))
    assert len(rows(build(place / "b", "coco"), "train")) == 2
    with pytest.raises(MissingFiles, match="'test' lacks coco_2014_smpl_val_openpose.npz"):
        build(place / "c", "coco", splits=("train", "test"))
