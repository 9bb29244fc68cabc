"""Made-up person records: structured noise with labels that fit the contract."""

import cv2
import numpy as np


def photograph(seed, height=120, width=140):
    """RGB noise that survives JPEG, so that two photographs are never alike."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (12, 14, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def make_record(number, dataset="tiny_people", height=120, width=140):
    random = np.random.RandomState(1000 + number)
    encoded = cv2.imencode(".jpg", photograph(number, height, width)[:, :, ::-1])[1].tobytes()
    keypoints = np.concatenate(
        [random.uniform(0.2, 0.8, (49, 2)) * (width, height), np.ones((49, 1))], axis=1
    )
    joints3d = np.concatenate([random.normal(0, 0.4, (24, 3)), np.ones((24, 1))], axis=1)
    return {
        "image": encoded,
        "imgname": f"{number:04d}.jpg",
        "dataset": dataset,
        "keypoints2d": keypoints.astype(np.float32),
        "pose": random.normal(0, 0.3, 72).astype(np.float32),
        "betas": random.normal(0, 1, 10).astype(np.float32),
        "joints3d": joints3d.astype(np.float32),
        "has_smpl": 1,
        "has_joints3d": 1,
        "gender": -1,
        "center": keypoints[0, :2].astype(np.float32),
        "scale": np.float32(0.4),
        "focal_length": np.float32(0.0),
        "transl": np.zeros(3, np.float32),
    }


def make_records(count, dataset="tiny_people"):
    return [make_record(number, dataset) for number in range(count)]
