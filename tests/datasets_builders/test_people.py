"""Every builder of people on small made-up downloads, and on broken copies of them."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxrecon.data.items import record_from_annotations
from jaxrecon.data.sources import find_builder
from jaxrecon.errors import UserError
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
