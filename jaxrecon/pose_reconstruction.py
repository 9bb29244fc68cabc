"""What a network that lifts 2D keypoints says about them: 3D hypotheses, frame by frame."""

import dataclasses
import io
import os
import webbrowser
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from jaxtyping import Float, UInt8

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_bytes, write_text
from jaxrecon.io.files import existing_file
from jaxrecon.io.images import write_image
from jaxrecon.io.meshes import write_mesh
from jaxrecon.rendering.shading import PEOPLE
from jaxrecon.rendering.skeletons import (
    VIEWS,
    draw_points2d,
    draw_points3d,
    skeleton_mesh,
    turntable_of_points,
)
from jaxrecon.report.animation import encode_animation
from jaxrecon.report.page import RunPage, Sample, render_page
from jaxrecon.report.viewer import Layer, Scene

FORMAT = "jaxrecon.poses.1"
SUFFIXES = (".npz", ".html", ".png", ".jpg", ".webp", ".glb", ".obj", ".ply")
_ARRAYS = ("joints3d", "hypotheses", "errors", "keypoints2d", "visible", "rotations")
_IN_SCENE = 300  # frames of the page's viewer, at most
_GALLERY = 6


@dataclasses.dataclass(frozen=True)
class PoseReconstruction:
    """Shapes of N frames with H hypotheses each, in NumPy arrays.

    Lengths are in units of the network: from one view of unknown scale there are no metres. The
    camera frame has x right, y down, z forward; points are relative to joint 0.

    Attributes:
      joints3d: (N, J, 3) the best hypothesis, with the observed 2D where there is some.
      hypotheses: (N, H, J, 3) all of them, the best first.
      errors: (N, H) root mean square distance in pixels of each from the observed 2D.
      keypoints2d: (N, J, 2) pixels as given; missing ones at 0.
      visible: (N, J) 1 where seen.
      rotations: (N, 3, 3) from the canonical frame to the camera's; rows are points.
      joint_names: of the J points.
      bones: pairs of points that pictures join.
    """

    joints3d: Float[np.ndarray, "n j 3"]
    hypotheses: Float[np.ndarray, "n h j 3"]
    errors: Float[np.ndarray, "n h"]
    keypoints2d: Float[np.ndarray, "n j 2"]
    visible: Float[np.ndarray, "n j"]
    rotations: Float[np.ndarray, "n 3 3"]
    joint_names: tuple[str, ...]
    bones: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.joints3d)

    def save(self, path: str | os.PathLike[str], frame: int = 0) -> Path:
        """Writes by suffix: all frames (.npz, .html), or pictures and meshes of one.

        .npz every array above; .html a page with the moving skeleton; .png, .jpg the evidence
        and the hypotheses side by side; .webp a turntable; .glb, .obj, .ply the skeleton as mesh.

        Raises:
          UserError: another suffix, no such frame, a place that cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise UserError(
                f"cannot save poses as {path.name!r}: the name must end in {', '.join(SUFFIXES)}"
            )
        if not -len(self) <= frame < len(self):
            raise UserError(f"there is no frame {frame}: the reconstruction has {len(self)}")
        if suffix == ".npz":
            stream = io.BytesIO()
            arrays = {name: getattr(self, name) for name in _ARRAYS}
            bones = np.array(self.bones, np.int32).reshape(-1, 2)
            names = np.array(self.joint_names)
            np.savez_compressed(stream, format=FORMAT, joint_names=names, bones=bones, **arrays)
            write_bytes(path, stream.getvalue())
        elif suffix == ".html":
            write_text(path, self.page())
        elif suffix == ".webp":
            write_bytes(path, encode_animation(self.turntable(frame)))
        elif suffix in (".glb", ".obj", ".ply"):
            write_mesh(path, *skeleton_mesh(self.joints3d[frame], self.bones))
        else:
            write_image(path, np.concatenate(list(self.pictures(frame).values()), axis=1))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "PoseReconstruction":
        """Reads what `save` wrote as .npz.

        Raises:
          UserError: no such file, or another one.
        """
        file = existing_file(path, "pose reconstruction")
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as data:
                if str(data["format"]) != FORMAT:
                    raise KeyError("format")
                return cls(
                    **{name: data[name] for name in _ARRAYS},
                    joint_names=tuple(map(str, data["joint_names"])),
                    bones=tuple((int(a), int(b)) for a, b in data["bones"]),
                )
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{file} is no pose reconstruction of this version; write it with save(...)"
            ) from error

    def pictures(self, frame: int = 0) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """Caption -> picture: the 2D, then each hypothesis from the front and the side."""
        names, bones = self.joint_names, self.bones
        seen = self.visible[frame]
        found = {"2D": draw_points2d(self.keypoints2d[frame], names, bones, visible=seen)}
        for k, points in enumerate(self.hypotheses[frame][:3]):
            for label in ("three quarters", "side"):
                picture = draw_points3d(points, names, bones, VIEWS[label])
                found[f"hypothesis {k + 1}, {label}"] = picture
        return found

    def turntable(self, frame: int = 0, frames: int = 24) -> list[UInt8[np.ndarray, "h w 3"]]:
        """The hypotheses of one frame beside each other, turning once round."""
        shown = self.hypotheses[frame][:3]
        return turntable_of_points(shown, self.joint_names, self.bones, frames)

    def scene(self) -> Scene:
        """All frames for the viewer, one layer for each hypothesis."""
        every = max(-(-len(self) // _IN_SCENE), 1)
        rows = range(0, len(self), every)
        return Scene(
            hypothesis_layers(self.hypotheses[::every], self.bones),
            [f"frame {row}" for row in rows],
            "3D from the keypoints of one view; the other hypotheses on their buttons",
        )

    def page(self) -> str:
        """A self-contained HTML page."""
        shown = min(_GALLERY, len(self))
        rows = [round(row) for row in np.linspace(0, len(self) - 1, shown).tolist()]
        samples = [
            Sample(
                f"Frame {row}",
                self.pictures(row),
                {"2D errors, pixels": ", ".join(f"{e:.1f}" for e in self.errors[row])},
            )
            for row in rows
        ]
        page = RunPage(
            title="MHR-Net",
            subtitle=f"{len(self):,} frames, {len(self.joint_names)} points",
            samples=samples,
            scene=self.scene(),
            turntable=self.turntable(0),
        )
        return render_page(page)

    def show(self) -> Path:
        """Opens the page in a browser; returns where it is."""
        path = Path(mkdtemp(prefix="jaxrecon-")) / "poses.html"
        self.save(path)
        webbrowser.open(path.as_uri())
        return path


def hypothesis_layers(
    hypotheses: Float[np.ndarray, "n h j 3"], bones: Sequence[tuple[int, int]], most: int = 3
) -> list[Layer]:
    """Layers of a scene, one for each hypothesis; all but the first wait for their button."""
    return [
        Layer(
            "best hypothesis" if k == 0 else f"hypothesis {k + 1}",
            *skeleton_mesh(hypotheses[:, k], bones),
            PEOPLE[k % len(PEOPLE)],
            hidden=k > 0,
        )
        for k in range(min(hypotheses.shape[1], most))
    ]
