"""Small made-up downloads of the data sets of people: archives and photographs."""

from pathlib import Path

import cv2
import numpy as np

from jaxrecon.bodies.open_body import assets_path
from jaxrecon.io.atomic import write_bytes
from tests.data.people import photograph


def fields(names, seed=0, **changes):
    """All fields of an archive for these image names; None as a change leaves one out."""
    random = np.random.RandomState(seed)
    count = len(names)

    def joints(number, low, high, size):
        points = random.uniform(low, high, (count, number, size))
        return np.concatenate([points, random.randint(0, 2, (count, number, 1))], axis=2)

    made = {
        "imgname": np.array(names),
        "center": random.uniform(40, 80, (count, 2)),
        "scale": random.uniform(0.3, 0.5, count),
        "part": joints(24, 20, 100, 2),
        "openpose": joints(25, 20, 100, 2),
        "pose": random.normal(0, 0.3, (count, 72)),
        "shape": random.normal(0, 1, (count, 10)),
        "has_smpl": np.ones(count),
        "S": joints(24, -0.5, 0.5, 3),
        "gender": np.array(["m", "f"] * count)[:count],
        "focal_length": np.full(count, 900.0),
    }
    made["part"][:, :3, 2] = 1  # whoever is annotated has a box
    return {name: value for name, value in (made | changes).items() if value is not None}


def write_archive(path, names, seed=0, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = fields(names, seed, **changes)
    np.savez(path, **made)
    return made


def write_photos(root, names, height=120, width=140):
    """A photograph for each name, unlike all others."""
    for number, name in enumerate(dict.fromkeys(names)):
        pixels = photograph(number, height, width)
        encoded = cv2.imencode(Path(name).suffix, pixels[:, :, ::-1])[1].tobytes()
        write_bytes(root / name, encoded)


def write_smpl(folder):
    """The open body in place of SMPL's files, in their layout."""
    folder.mkdir(parents=True)
    with np.load(assets_path() / "open_body.npz") as data:
        arrays = {name: data[name] for name in data.files}
    men, women = arrays["gender_betas"]
    for gender, betas in (("NEUTRAL", 0 * men), ("MALE", men), ("FEMALE", women)):
        shaped = arrays | {"v_template": arrays["v_template"] + arrays["shapedirs"] @ betas}
        np.savez(folder / f"SMPL_{gender}.npz", **shaped)
    for name in ("J_regressor_extra", "J_regressor_h36m"):
        np.save(folder / f"{name}.npy", arrays[name])


# The published archives of every data set: split, file, an image name that fits, where images are.
DOWNLOADS = {
    "h36m": ("train", "h36m_mosh_train_fixname.npz", "S1_Eating.54138969_{:06d}.jpg", "images"),
    "coco": ("train", "coco_2014_smpl_train.npz", "COCO_train2014_{:012d}.jpg", "train2014"),
    "mpii": ("train", "mpii_smpl_w3d_train.npz", "images/{:09d}.jpg", ""),
    "mpi_inf_3dhp": (
        "train",
        "mpi_inf_3dhp_train_name_revised.npz",
        "S1/Seq1/imageFrames/video_0/frame_{:06d}.jpg",
        "",
    ),
    "3dpw": (
        "train",
        "3dpw_train_w2d_smpl3d_gender.npz",
        "imageFiles/street_00/image_{:05d}.jpg",
        "",
    ),
    "spin_npz/street": ("train", "train.npz", "{:04d}.jpg", "images"),
}
FOLDERS = {"3dpw": "pw3d"}


def write_download(manual, dataset, count=4, seed=0):
    """A whole made-up download of one data set; returns its folder, archive and image files."""
    _, file, pattern, folder = DOWNLOADS[dataset]
    root = manual / FOLDERS.get(dataset, dataset)
    names = [pattern.format(number) for number in range(1, count + 1)]
    write_archive(root / file, names, seed)
    write_photos(root / folder, names)
    return root, root / file, [root / folder / name for name in names]
