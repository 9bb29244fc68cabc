"""A short film of the open body walking, with its true keypoints and poses."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from jaxrecon.bodies import body_forward, joints49, load_body
from jaxrecon.bodies.joints import SMPL24
from jaxrecon.io.video import write_video
from jaxrecon.rendering import render_mesh

_INDEX = {name: i for i, name in enumerate(SMPL24)}


@dataclass(frozen=True)
class Walk:
    """T frames: rotmats (T, 24, 3, 3), betas (10,), transl (T, 3), keypoints (T, 25, 3)."""

    rotmats: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    keypoints: np.ndarray
    vertices: np.ndarray
    faces: np.ndarray
    image_size: tuple[int, int]
    focal: float

    def pictures(self, supersample: int = 1) -> list[np.ndarray]:
        height, width = self.image_size
        rows, columns = np.mgrid[:height, :width]
        ground = np.stack(
            [170 - rows / height * 60, 180 - columns / width * 30, 160 + 0 * rows], -1
        )
        return [
            render_mesh(
                vertices,
                self.faces,
                self.focal,
                (width / 2, height / 2),
                self.image_size,
                colours=(0.85, 0.62, 0.5),
                background=ground.astype(np.uint8),
                supersample=supersample,
            )
            for vertices in self.vertices
        ]


def walk(count: int, image_size: tuple[int, int] = (96, 128), steps: float = 1.0) -> Walk:
    """A body that walks across the picture; `steps` pairs of steps over the frames."""
    body = load_body()
    phase = np.linspace(0, 2 * np.pi * steps, count)
    local = np.tile(np.eye(3), (count, 24, 1, 1))

    def turn(name: str, *parts: tuple[str, np.ndarray | float]) -> None:
        for axis, angle in parts:
            angles = np.broadcast_to(angle, count)
            local[:, _INDEX[name]] @= Rotation.from_euler(axis, angles[:, None]).as_matrix()

    for side, sign, shift in (("l", 1.0, 0.0), ("r", -1.0, np.pi)):
        swing = np.sin(phase + shift)
        turn(f"{side}_hip", ("X", -0.45 * swing))
        turn(f"{side}_knee", ("X", 0.15 + 0.55 * np.maximum(0, np.cos(phase + shift))))
        turn(f"{side}_shoulder", ("X", 0.4 * swing), ("Z", -1.2 * sign))
        turn(f"{side}_elbow", ("Y", -0.35 * sign))
    upright = Rotation.from_euler("X", np.pi).as_matrix()
    local[:, 0] = upright @ Rotation.from_euler("Y", np.deg2rad(55.0)).as_matrix()
    betas = np.zeros(10, np.float32)
    betas[:2] = (0.6, -0.5)
    share = np.linspace(-1, 1, count)
    bob = 0.02 * np.cos(2 * phase)
    transl = np.stack([0.75 * share, 0.1 + bob, 4.2 - 0.3 * share], -1).astype(np.float32)
    rotmats = local.astype(np.float32)
    posed = body_forward(body, np.tile(betas, (count, 1)), rotmats)
    joints = np.asarray(joints49(body, posed))[:, :25] + transl[:, None]
    height, width = image_size
    focal = float(np.hypot(*image_size))
    pixels = joints[..., :2] / joints[..., 2:] * focal + (width / 2, height / 2)
    keypoints = np.concatenate([pixels, np.full((count, 25, 1), 0.9)], -1).astype(np.float32)
    vertices = np.asarray(posed.vertices) + transl[:, None]
    faces = np.asarray(body.faces)
    return Walk(rotmats, betas, transl, keypoints, vertices, faces, image_size, focal)


def write_walk_video(path: str | Path, film: Walk, fps: float = 10.0) -> None:
    with write_video(path, film.image_size, fps, "mp4v") as video:
        for picture in film.pictures():
            video.add(picture)


def write_people(path: Path, people: list[np.ndarray]) -> None:
    """An OpenPose file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"pose_keypoints_2d": person.ravel().tolist()} for person in people]
    path.write_text(json.dumps({"people": entries}))


def write_openpose_folder(
    folder: Path, stem: str, film: Walk, nobody: tuple[int, ...] = ()
) -> None:
    """`folder/stem_000000000000_keypoints.json` ...; frames in `nobody` have no people."""
    for number, person in enumerate(film.keypoints):
        people = [] if number in nobody else [person]
        write_people(folder / f"{stem}_{number:012d}_keypoints.json", people)
