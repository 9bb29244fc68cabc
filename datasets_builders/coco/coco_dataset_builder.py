"""TFDS builder of COCO 2014 with the pseudo ground truth of CLIFF.

Source: spec of Meta-HMR, section 7. See the README beside this file.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxrecon.datasets_builders.people.annotations import Annotations, checked
from jaxrecon.datasets_builders.people.builder import (
    CONFIGS,
    Guide,
    Origin,
    PeopleBuilder,
    archive,
)
from jaxrecon.datasets_builders.people.joints import from_set

from jaxrecon.errors import UserError
from jaxrecon.io.keypoint_files import read_json

_FIRST_LIMB = 5  # of the 17: shoulders to ankles follow
_BOX_MARGIN = 1.2


def read_official(root: Path, files: tuple[Path, ...]) -> Annotations:
    """Keypoints of COCO's own JSON, without SMPL labels.

    Takes the people all of whose twelve limb joints are labelled, hidden or not; confidence 1
    where labelled.

    Raises:
      UserError: no JSON, or not of COCO's layout.
    """
    file = files[0]
    content = read_json(file, "COCO annotation")
    images = _rows(file, content, "images", ("id", "file_name"))
    people = _rows(file, content, "annotations", ("image_id",))
    names = {image["id"]: str(image["file_name"]) for image in images}
    points, boxes, kept = [], [], []
    for person in people:
        values = person.get("keypoints")
        if not values:
            continue  # a box without points
        where = f"{file}: annotation {person.get('id', '?')}"
        if len(values) != 51 or len(person.get("bbox", ())) != 4:
            raise UserError(f"{where} needs 51 numbers of keypoints and 4 of bbox")
        joints = np.array(values, np.float32).reshape(17, 3)
        joints[:, 2] = joints[:, 2] > 0
        if not joints[_FIRST_LIMB:, 2].all():
            continue
        if person["image_id"] not in names:
            raise UserError(f"{where} is of image {person['image_id']}, which is not in the file")
        points.append(joints)
        boxes.append(person["bbox"])
        kept.append(names[person["image_id"]])
    if not kept:
        raise UserError(f"{file} has nobody whose twelve limb joints are all labelled")
    box = np.array(boxes, np.float32)
    return checked(
        {
            "imgname": np.array(kept),
            "part": from_set(np.stack(points), "coco17"),
            "center": box[:, :2] + box[:, 2:] / 2,
            "scale": box[:, 2:].max(1) * _BOX_MARGIN / 200,
        },
        str(file),
    )


def _rows(file: Path, content: Any, name: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and all(key in row for key in keys) for row in rows
    ):
        raise UserError(
            f"{file} has no list {name!r} of objects with {', '.join(keys)}; is it COCO's "
            "person_keypoints file?"
        )
    return rows


class Builder(PeopleBuilder):
    """COCO 2014: splits `train` and `test` (the validation images)."""

    name = "coco"
    BUILDER_CONFIGS = CONFIGS
    GUIDE = Guide(
        fetch=(
            "images train2014.zip, val2014.zip: https://cocodataset.org (CC-BY 4.0 annotations, "
            "Flickr terms for images); pseudo ground truth coco2014part_cliffGT.npz: the release "
            "of CLIFF, https://github.com/huawei-noah/noah-research/tree/master/CLIFF "
            "(non-commercial) (datasets_builders/coco/README.md)"
        ),
        licence="annotations CC-BY 4.0; images under Flickr's terms; CLIFF labels non-commercial",
        homepage="https://cocodataset.org",
        citation=(
            "Lin et al.: Microsoft COCO: Common Objects in Context. ECCV 2014. "
            "Li et al.: CLIFF: Carrying Location Information in Full Frames. ECCV 2022"
        ),
        description="People in photographs from the web, with keypoints and pseudo SMPL labels.",
        image_folders=("train2014", "val2014", "images", "images/train2014", "images/val2014"),
    )
    SPLITS = {
        "train": archive(
            "coco_2014_smpl_train.npz", "coco2014part_cliffGT.npz", needs=("pose", "shape")
        ),
        "test": archive(
            "coco_2014_smpl_val_openpose.npz", "coco_2014_smpl_val.npz", needs=("pose", "shape")
        ),
    }
    OFFICIAL = {
        "train": (Origin(("annotations/person_keypoints_train2014.json",), read_official),),
        "test": (Origin(("annotations/person_keypoints_val2014.json",), read_official),),
    }
