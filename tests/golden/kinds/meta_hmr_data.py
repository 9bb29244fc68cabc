"""Meta-HMR's data pipeline: crops, augmentation, occlusion, mixing, whole items, flips."""

import random

import numpy as np

from jaxrecon.data import augment, crops, items, mixing, occlusion
from tests.golden.runner import Case, Check, kind

RELATIVE = 1e-6
# The crops for which `data_affine` and `geom_flips` keep matrices.
ASPECTS = {"rect": (256, 192), "square": (224, 224)}
LEGACY_CENTER, LEGACY_POINT = np.array([310.0, 220.0]), np.array([100.0, 57.0])
LEGACY = ((1.3, 0.0, (224, 224)), (0.8, 25.0, (224, 224)), (2.1, -40.0, (256, 192)))


def close(label, got, want) -> Check:
    return Check(label, got, want, rtol=RELATIVE)


def exact(label, got, want) -> Check:
    return Check(label, got, want)


@kind("meta_hmr", "data_item")
def data_item(case: Case) -> list[Check]:
    a = case.arrays
    dataset = str(a["in_dataset"])
    annotations = {
        key[3:]: value for key, value in a.items() if key.startswith("in_") and key != "in_images"
    }
    if case.words and case.words[-1] in ASPECTS and "out_crop_uint8" not in a:
        height, width = ASPECTS[case.words[-1]]
    else:
        height, width = a["out_crop_uint8"].shape[1:3]
    results, people = [], []
    for row, image in enumerate(a["in_images"]):
        record = items.record_from_annotations(annotations, row, dataset, image)
        draw = augment.NO_AUGMENTATION
        if "in_flip" in a:
            draw = augment.Augmentation(
                flip=bool(a["in_flip"][row]),
                gains=tuple(a["in_pn"][row].tolist()),
                rotation=float(a["in_rot"][row]),
                scale=float(a["in_scale_aug"][row]),
            )
        person = items.person_from_record(record)
        people.append(person)
        results.append(items.make_item(person, height, width, draw))

    def each(key):
        return np.array([result[key] for result in results])

    inverse = np.array([crops.invert_affine(result["crop_trans"]) for result in results])
    normalized = crops.normalize_image(each("image")).transpose(0, 3, 1, 2)
    step = height // a["out_img_sub"].shape[2]
    checks = [
        exact("crop", each("image"), a["out_crop_uint8"]),
        close("image", normalized[:, :, ::step, ::step], a["out_img_sub"]),
        exact("image_size", each("image_size"), a["out_orig_shape"]),
        exact("has_smpl", each("has_smpl"), a["out_has_smpl"]),
        exact("has_joints3d", each("has_joints3d"), a["out_has_pose_3d"]),
        exact("gender", each("gender"), a["out_gender"]),
        close("inv_trans", inverse, a["out_inv_trans"]),
    ]
    names = {
        "keypoints2d": "keypoints",
        "keypoints2d_full": "keypoints_full",
        "full_trans": "full_trans",
        "crop_trans": "crop_trans",
        "pose": "pose",
        "betas": "betas",
        "joints3d": "pose_3d",
        "scale": "scale",
        "center": "center",
        "bbox_info": "bbox_info",
        "focal_length": "focal_length",
    }
    checks += [close(ours, each(ours), a[f"out_{theirs}"]) for ours, theirs in names.items()]
    # What the training loop gets is the same, in float32.
    batch = items.collate(results)
    checks += [close(f"batch {key}", batch[key], each(key)) for key in names if key in batch]
    return checks


@kind("meta_hmr", "data_affine")
def data_affine(case: Case) -> list[Check]:
    a = case.arrays
    rows = range(len(a["in_scale"]))
    checks = []
    for name, (height, width) in ASPECTS.items():
        if f"out_trans_{name}" not in a:
            continue
        turned = [
            crops.crop_matrix(a["in_center"][i], a["in_scale"][i], height, width, a["in_rot"][i])
            for i in rows
        ]
        upright = [
            crops.crop_matrix(a["in_center"][i], a["in_scale"][i], height, width) for i in rows
        ]
        moved = crops.apply_affine(np.array(turned), a["in_points"])
        checks += [
            close(f"trans_{name}", turned, a[f"out_trans_{name}"]),
            close(f"inv_{name}", [crops.invert_affine(m) for m in upright], a[f"out_inv_{name}"]),
            close(f"points_{name}", moved, a[f"out_points_{name}"]),
        ]
    boxes = [crops.box_from_keypoints(keypoints) for keypoints in a["in_keypoints"]]
    estimated = np.array([crops.estimate_focal_length(h, w) for h, w in a["in_hw"].tolist()])

    def information(focal):
        return crops.box_information(a["in_center"], a["in_scale"], a["in_hw"], focal)

    return [
        *checks,
        close("box_center", [center for center, _ in boxes], a["out_box_center"]),
        close("box_scale", [scale for _, scale in boxes], a["out_box_scale"]),
        close("focal_est", estimated, a["out_focal_est"]),
        close("bbox_info", information(a["in_focal"]), a["out_bbox_info"]),
        close("bbox_info_est", information(estimated), a["out_bbox_info_est"]),
        close(
            "rotate_pose",
            [augment.rotate_pose(a["in_pose"][i], a["in_rot"][i]) for i in rows],
            a["out_rotate_pose"],
        ),
        close("flip_pose", [augment.flip_pose(pose) for pose in a["in_pose"]], a["out_flip_pose"]),
        close(
            "rotate_joints",
            [augment.rotate_joints(a["in_S"][i], a["in_rot"][i]) for i in rows],
            a["out_rotate_joints"],
        ),
    ]


@kind("meta_hmr", "data_augm_params")
def data_augm_params(case: Case) -> list[Check]:
    a = case.arrays
    seeds, count = a["out_rot"].shape
    generators = [np.random.RandomState(int(seed)) for seed in a["in_seeds"]]
    draws = [[augment.draw_augmentation(g) for _ in range(count)] for g in generators]
    assert len(draws) == seeds

    def each(field):
        return np.array([[getattr(draw, field) for draw in row] for row in draws])

    return [
        exact("flip", each("flip"), a["out_flip"]),
        close("gains", each("gains"), a["out_pn"]),
        close("rotation", each("rotation"), a["out_rot"]),
        close("scale", each("scale"), a["out_scale"]),
    ]


@kind("meta_hmr", "data_occlusion")
def data_occlusion(case: Case) -> list[Check]:
    a = case.arrays
    count = sum(key.startswith("in_occluder_") for key in a)
    occluders = [a[f"in_occluder_{i}"] for i in range(count)]
    checks = []
    for run in sorted(key[len("out_occluded_") :] for key in a if key.startswith("out_occluded_")):
        seed = int(a[f"in_seed_{run}"])
        got = occlusion.occlude(
            a["in_image"], occluders, np.random.RandomState(seed), random.Random(seed)
        )
        checks.append(exact(f"occluded_{run}", got, a[f"out_occluded_{run}"]))
    pasted = a["in_image"].copy()
    occlusion.paste_occluder(pasted, occluders[0], a["in_paste_center"])
    return [
        *checks,
        exact("pasted", pasted, a["out_pasted"]),
        exact("0.6", occlusion.resize_occluder(occluders[1], 0.6), a["out_resized_06"]),
        exact("1.37", occlusion.resize_occluder(occluders[2], 1.37), a["out_resized_137"]),
    ]


@kind("meta_hmr", "data_mixing")
def data_mixing(case: Case) -> list[Check]:
    a = case.arrays
    names = ("h36m", "coco", "mpii", "mpi_inf_3dhp", "3dpw")
    lengths = dict(zip(names, a["in_lengths_h36m_coco_mpii_mpi_3dpw"].tolist()))
    checks = []
    for word in ("with_3dpw", "without_3dpw"):
        mix = mixing.published_mixture(lengths, with_3dpw=word == "with_3dpw")
        draws = np.random.RandomState(int(a["in_seed"])).uniform(size=len(a[f"out_which_{word}"]))
        got = [mix.locate(index, p) for index, p in enumerate(draws)]
        checks += [
            close(f"partition_{word}", mix.partition, a[f"out_partition_{word}"]),
            exact(f"which_{word}", [which for which, _ in got], a[f"out_which_{word}"]),
            exact(f"index_{word}", [index for _, index in got], a[f"out_index_{word}"]),
            exact(f"len_{word}", len(mix), a[f"out_len_{word}"]),
        ]
    return checks


@kind("meta_hmr", "data_demo_crop")
def data_demo_crop(case: Case) -> list[Check]:
    a = case.arrays
    checks = []
    for row, corners in enumerate(a["in_bbox"]):
        want = a[f"out_norm_sub_{row}"]
        crop = crops.crop_single_image(a["in_image"], corners)
        step = crop.image.shape[0] // want.shape[1]
        normalized = crops.normalize_image(crop.image).transpose(2, 0, 1)[:, ::step, ::step]
        checks += [
            close(f"image_{row}", normalized, want),
            close(f"center_{row}", crop.center, a[f"out_center_{row}"]),
            close(f"scale_{row}", crop.scale, a[f"out_scale_{row}"]),
            exact(f"ul_{row}", crop.low, a[f"out_ul_{row}"]),
            exact(f"br_{row}", crop.high, a[f"out_br_{row}"]),
        ]
    return checks


@kind("meta_hmr", "geom_flips")
def geom_flips(case: Case) -> list[Check]:
    a = case.arrays
    width = int(a["in_width"])
    root = a["in_pose"][:3]
    checks = [
        close("k24", augment.flip_keypoints(a["in_k24"], width), a["out_flip_k24"]),
        close("k49", augment.flip_keypoints(a["in_k49"], width), a["out_flip_k49"]),
        close("s24", augment.flip_joints(a["in_s24"]), a["out_flip_s24"]),
        close("pose", augment.flip_pose(a["in_pose"]), a["out_flip_pose"]),
    ]
    for key in a:
        if key.startswith("out_rot_aa_"):
            word = key[len("out_rot_aa_") :]
            degrees = float(word.replace("m", "-"))
            checks.append(close(key[4:], augment.rotate_axis_angle(root, degrees), a[key]))
    for row, (scale, rotation, size) in enumerate(LEGACY):
        if f"out_get_transform_{row}" not in a:
            continue
        matrix = crops.legacy_transform(LEGACY_CENTER, scale, size, rotation)
        inverse = crops.legacy_transform_point(LEGACY_POINT, matrix, inverse=True)
        checks += [
            close(f"transform_{row}", matrix, a[f"out_get_transform_{row}"]),
            exact(
                f"point_{row}",
                crops.legacy_transform_point(LEGACY_POINT, matrix),
                a[f"out_transform_{row}"],
            ),
            exact(f"inverse_{row}", inverse, a[f"out_transform_inv_{row}"]),
        ]
    return checks
