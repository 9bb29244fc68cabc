"""The public result, the same for every system: meshes in one camera, and what led to them."""

import dataclasses
import os
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxrecon import reconstruction_files
from jaxrecon.bodies.joints import JOINT_SETS, bones, index_map, joint_names
from jaxrecon.bodies.model import BodyModel, BodyOutput, body_forward, joints49
from jaxrecon.errors import UserError
from jaxrecon.geometry.rotations import matrix_to_axis_angle
from jaxrecon.io.images import encode_image
from jaxrecon.rendering.drawing import draw_keypoints
from jaxrecon.rendering.shading import PALETTE, PEOPLE, merge_meshes, render_overlay
from jaxrecon.rendering.views import view_mesh
from jaxrecon.report.page import render_page
from jaxrecon.report.viewer import Layer, Scene
from jaxrecon.typing import AnyArray

CONFIDENT = 0.2  # keypoints with less confidence are neither measured nor drawn
_OPENPOSE = ("openpose25", "coco18")


class KeypointError(NamedTuple):
    """How far the projected joints are from the 2D evidence; NaN without any."""

    pixels: float  # mean over `joints` joints
    fraction: float  # of the box's longer side
    joints: int


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole: u = focal x / z + center, pixels; x right, y down, z forward.

    Attributes:
      focal: pixels.
      center: principal point (x, y) in pixels.
      image_size: (height, width) in pixels.
    """

    focal: float
    center: tuple[float, float]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "focal", float(self.focal))
        x, y = (float(c) for c in self.center)
        object.__setattr__(self, "center", (x, y))
        height, width = (int(s) for s in self.image_size)
        object.__setattr__(self, "image_size", (height, width))
        if not np.isfinite([self.focal, x, y]).all() or self.focal <= 0:
            raise UserError(f"camera: focal {self.focal} and center {self.center} are unusable")
        if height < 1 or width < 1:
            raise UserError(f"camera: image_size {self.image_size} has no pixels")

    def project(self, points: Float[AnyArray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Pixels (x, y) of points in metres; NaN for what lies behind the camera."""
        points = np.asarray(points, np.float64)
        depth = np.where(points[:, 2:] > 0, points[:, 2:], np.nan)
        return points[:, :2] / depth * self.focal + np.array(self.center)


@dataclasses.dataclass(frozen=True)
class Instance:
    """One person, hand or object, in NumPy arrays.

    Attributes:
      vertices: (V, 3) metres in the camera frame, translation applied.
      faces: (F, 3) vertex indices, counter-clockwise seen from outside.
      joints: (J, 3) metres, like the vertices; None where the system knows none.
      joint_set: their names, a key of `jaxrecon.bodies.joints.JOINT_SETS`.
      parameters: of the model. For bodies `betas` (10,), `rotmats` (24, 3, 3), `global_orient`
        (3,) and `body_pose` (69,) axis-angle, `transl` (3,).
      keypoints2d: (K, 3) the evidence: pixels and confidence; or None.
      keypoint_set: the names of these.
      bbox: (x, y, width, height) in pixels; or None.
      history: name -> array with a leading axis (steps + 1): before test-time optimisation and
        after each step. `loss` and `keypoint_error` (pixels) are drawn where present.
      gender: "neutral", "male" or "female".
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    joints: Float[np.ndarray, "j 3"] | None = None
    joint_set: str | None = None
    parameters: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    keypoints2d: Float[np.ndarray, "k 3"] | None = None
    keypoint_set: str | None = None
    bbox: Float[np.ndarray, "4"] | None = None
    history: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    gender: str = "neutral"

    def __post_init__(self) -> None:
        def keep(name: str, shape: tuple[int | None, ...], dtype: Any) -> None:
            value = getattr(self, name)
            if value is None:
                return
            array = np.asarray(value, dtype)
            fits = array.ndim == len(shape) and all(
                want is None or want == got for want, got in zip(shape, array.shape)
            )
            if not fits:
                expected = ", ".join("n" if s is None else str(s) for s in shape)
                raise UserError(f"{name} of shape {array.shape}: ({expected}) expected")
            if name != "keypoints2d" and not np.isfinite(array).all():
                raise UserError(f"{name}: there are values that are not finite")
            object.__setattr__(self, name, array)

        keep("vertices", (None, 3), np.float32)
        keep("faces", (None, 3), np.int32)
        keep("joints", (None, 3), np.float32)
        keep("keypoints2d", (None, 3), np.float32)
        keep("bbox", (4,), np.float32)
        _check_names("joints", self.joints, self.joint_set)
        _check_names("keypoints2d", self.keypoints2d, self.keypoint_set)
        for name in ("parameters", "history"):
            arrays = {key: np.asarray(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, arrays)

    @classmethod
    def of_body(
        cls,
        body: BodyModel,
        betas: Float[AnyArray, "s"],
        rotmats: Float[AnyArray, "j 3 3"],
        transl: Float[AnyArray, "3"],
        posed: BodyOutput | None = None,
        **more: Any,
    ) -> "Instance":
        """A posed body of the SMPL family, with all its parameters filled in.

        Args:
          body: the model.
          betas: shape.
          rotmats: root orientation in the camera frame, and each joint relative to its parent.
          transl: metres, camera frame.
          posed: what `body_forward` says of them, where it is known already.
          more: other attributes; `parameters` are added to the body's own.
        """
        betas, rotmats, transl = (np.asarray(x, np.float32) for x in (betas, rotmats, transl))
        posed = body_forward(body, betas, rotmats) if posed is None else posed
        spin = body.vertex_ids is not None and body.J_regressor_extra is not None
        joints = joints49(body, posed) if spin else posed.joints
        angles = np.asarray(matrix_to_axis_angle(rotmats))
        parameters = {
            "betas": betas,
            "rotmats": rotmats,
            "global_orient": angles[0],
            "body_pose": angles[1:].reshape(-1),
            "transl": transl,
            **more.pop("parameters", {}),
        }
        known = spin or len(body.parents) == len(JOINT_SETS["smpl24"])
        return cls(
            vertices=np.asarray(posed.vertices) + transl,
            faces=np.asarray(body.faces),
            joints=np.asarray(joints) + transl if known else None,
            joint_set=("spin49" if spin else "smpl24") if known else None,
            parameters=parameters,
            **more,
        )


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """What a system recovered from its evidence.

    Attributes:
      instances: people, hands or objects; may be empty.
      camera: the one that sees them all.
      image: (height, width, 3) RGB, or None.
      system: the name of the system that made it.
      body: the model of the instances, where it is known; with it a single body is saved as a
        skinned .glb. It is never written to an .npz (it may be licensed).
    """

    instances: Sequence[Instance]
    camera: Camera
    image: UInt8[np.ndarray, "h w 3"] | None = None
    system: str = ""
    body: BodyModel | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "instances", tuple(self.instances))
        if self.image is not None and self.image.shape[:2] != self.camera.image_size:
            raise UserError(
                f"the image is {self.image.shape[0]} x {self.image.shape[1]}, but the camera's "
                f"image_size is {self.camera.image_size}"
            )

    def __len__(self) -> int:
        return len(self.instances)

    def __repr__(self) -> str:
        height, width = self.camera.image_size
        count = f"{len(self)} instance{'' if len(self) == 1 else 's'}"
        return f"Reconstruction({self.system or 'unnamed'}: {count}, {width} x {height} pixels)"

    def projected(self, index: int = 0) -> Float[np.ndarray, "j 2"]:
        """The joints of an instance in the image, pixels; NaN for those behind the camera."""
        instance = self.instances[index]
        if instance.joints is None:
            raise UserError(f"instance {index} has no joints to project")
        return self.camera.project(instance.joints)

    def keypoint_error(
        self, index: int | None = None, threshold: float | int = CONFIDENT
    ) -> KeypointError:
        """Mean distance of the projected joints to the 2D evidence.

        Joints are compared by name (OpenPose's with OpenPose's, where both kinds are there).

        Args:
          index: of the instance; None: the mean over all that have evidence.
          threshold: keypoints with at least this confidence count.
        """
        if index is None:
            errors = [self.keypoint_error(i, threshold) for i in range(len(self))]
            errors = [e for e in errors if e.joints]
            if not errors:
                return KeypointError(float("nan"), float("nan"), 0)
            return KeypointError(
                float(np.mean([e.pixels for e in errors])),
                float(np.mean([e.fraction for e in errors])),
                sum(e.joints for e in errors),
            )
        instance = self.instances[index]
        if instance.keypoints2d is None or instance.joints is None:
            return KeypointError(float("nan"), float("nan"), 0)
        assert instance.joint_set is not None and instance.keypoint_set is not None
        place, known = _counterparts(instance.joint_set, instance.keypoint_set)
        projected = self.projected(index)[place]
        seen = known & confident(instance.keypoints2d, threshold)
        if not seen.any():
            return KeypointError(float("nan"), float("nan"), 0)
        distance = np.linalg.norm(projected - instance.keypoints2d[:, :2], axis=-1)[seen]
        box = instance.bbox
        longer = (
            np.ptp(instance.keypoints2d[seen, :2], axis=0).max() if box is None else max(box[2:])
        )
        pixels = float(distance.mean())
        return KeypointError(pixels, pixels / max(float(longer), 1e-6), int(seen.sum()))

    def overlay(
        self,
        keypoints: bool = False,
        opacity: float | int = 0.9,
        colour: tuple[float, float, float] | None = None,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The meshes over the image (over a plain ground where there is none).

        Args:
          keypoints: also draw the 2D evidence.
          opacity: of the meshes.
          colour: RGB in 0..1 for all; by default one for each instance.
        """
        picture = self.image
        if picture is None:
            picture = np.full((*self.camera.image_size, 3), 244, np.uint8)
            opacity = 1.0
        if len(self):
            vertices, faces, colours = self.merged(colour)
            picture = render_overlay(
                picture, vertices, faces, self.camera.focal, self.camera.center, colours, opacity
            )
        return self.draw_evidence(picture) if keypoints else picture.copy()

    def draw_evidence(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """A copy of a picture of this camera with the 2D keypoints of all instances."""
        picture = picture.copy()
        for instance in self.instances:
            if instance.keypoints2d is not None and instance.keypoint_set is not None:
                picture = draw_keypoints(
                    picture,
                    instance.keypoints2d,
                    joint_names(instance.keypoint_set),
                    bones(instance.keypoint_set),
                    CONFIDENT,
                )
        return picture

    def side_view(
        self,
        yaw: float | int = 90,
        image_size: tuple[int, int] | None = None,
        colour: tuple[float, float, float] | None = None,
        height: float | None = None,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The meshes turned by `yaw` degrees, framed by a camera of their own.

        Args:
          yaw: 90 is the side, 180 the back.
          image_size: (height, width); by default the image's.
          height: metres that the shorter side shows; None fits the meshes.
        """
        size = self.camera.image_size if image_size is None else image_size
        vertices, faces, colours = self.merged(colour)
        return view_mesh(vertices, faces, yaw, size, colours=colours, height=height)

    def closeup(
        self, picture: UInt8[np.ndarray, "h w 3"], margin: float | int = 0.15
    ) -> UInt8[np.ndarray, "rows columns 3"]:
        """The part of a picture of this camera that holds all instances and their evidence.

        Where they fill most of it anyway, the whole picture.

        Args:
          margin: around them, as a share of their longer side.
        """
        points = [np.empty((0, 2)), *(self.camera.project(i.vertices) for i in self.instances)]
        points += [
            i.keypoints2d[confident(i.keypoints2d), :2]
            for i in self.instances
            if i.keypoints2d is not None
        ]
        found = np.concatenate([p[np.isfinite(p).all(-1)] for p in points])
        if len(found) == 0:
            return picture
        limit = np.array(picture.shape[1::-1])
        low, high = np.clip(found.min(0), 0, limit), np.clip(found.max(0), 0, limit)
        border = margin * (high - low).max()
        left, top = np.floor(np.clip(low - border, 0, limit)).astype(int)
        right, bottom = np.ceil(np.clip(high + border, 0, limit)).astype(int)
        shows = (right - left) * (bottom - top)
        if min(right - left, bottom - top) < 16 or shows > 0.5 * limit.prod():
            return picture
        return picture[top:bottom, left:right]

    def merged(
        self, colour: tuple[float, float, float] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All meshes as one: vertices, faces, and the colour of each vertex in 0..1.

        Raises:
          UserError: there is no instance.
        """
        self._need_one()
        colours = self._colours(colour)
        return merge_meshes([(i.vertices, i.faces, c) for i, c in zip(self.instances, colours)])

    def scene(self, caption: str = "") -> Scene:
        """The meshes as the interactive view of a page.

        Instances whose history has `vertices` (steps + 1, V, 3) follow a slider.
        """
        self._need_one()
        names = [f"{self.noun} {i + 1}" for i in range(len(self))]
        trails = [np.asarray(i.history.get("vertices", i.vertices)) for i in self.instances]
        layers = [
            Layer(name, trail, instance.faces, colour)
            for name, trail, instance, colour in zip(
                names, trails, self.instances, self._colours(None)
            )
        ]
        return Scene(layers, caption=caption)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it; the suffix chooses what. Whole or not at all.

        | suffix | what |
        | --- | --- |
        | .glb | the meshes; one body with its skeleton if `body` is known |
        | .obj .ply | the meshes, camera frame |
        | .npz | everything but `body`; `load` reads it; with AMASS's keys for bodies |
        | .png .jpg .webp | the overlay |
        | .html | one self-contained page with an interactive view |

        Raises:
          UserError: another suffix (the message names the valid ones), nothing to write, or a
            path that cannot be written.
        """
        reconstruction_files.save(self, Path(path))
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], body: BodyModel | None = None) -> "Reconstruction":
        """Read an .npz that `save` wrote.

        Raises:
          UserError: the file is missing, damaged, or not a reconstruction.
        """
        content = reconstruction_files.read(Path(path))
        return cls(
            instances=[Instance(**fields) for fields in content.instances],
            camera=Camera(**content.camera),
            image=content.image,
            system=content.system,
            body=body,
        )

    def page(self, title: str = "Reconstruction") -> str:
        """One self-contained HTML page: interactive view, pictures, numbers."""
        return render_page(reconstruction_files.page_of(self, title))

    def show(self) -> None:
        """Show it: in a notebook below the cell, else as a page in the browser."""
        page = self.page()
        if _in_notebook():
            from html import escape

            from IPython.display import HTML, display

            frame = 'style="width:100%;height:640px;border:0;border-radius:12px"'
            display(HTML(f'<iframe srcdoc="{escape(page)}" {frame}></iframe>'))
            return
        path = Path(mkdtemp(prefix="jaxrecon_")) / "reconstruction.html"
        path.write_text(page, encoding="utf-8")
        if not webbrowser.open(path.as_uri()):
            print(f"no browser to show it in; open {path}")

    def _repr_png_(self) -> bytes:
        return encode_image(self.overlay(), ".png")

    def _need_one(self) -> None:
        if not self.instances:
            raise UserError("the reconstruction is empty: there is no mesh to draw or write")

    def _colours(self, colour: Any) -> list[tuple[float, float, float]]:
        first = PALETTE["prediction" if self.noun == "body" else "object"]
        palette = [colour] if colour is not None else [first, *PEOPLE[1:]]
        return [palette[i % len(palette)] for i in range(len(self))]

    @property
    def noun(self) -> str:
        """What the instances are called: "body" or "mesh"."""
        person = self.instances and "body_pose" in self.instances[0].parameters
        return "body" if person else "mesh"


def confident(keypoints2d: np.ndarray, threshold: float | int = CONFIDENT) -> np.ndarray:
    """Which keypoints (..., 3) count as evidence: finite, and confident enough."""
    finite = np.isfinite(keypoints2d).all(-1)
    return finite & (np.nan_to_num(keypoints2d[..., 2]) >= max(threshold, 1e-6))


def _counterparts(joint_set: str, keypoint_set: str) -> tuple[np.ndarray, np.ndarray]:
    """Index of the joint that each keypoint shows, (K,) int, and whether there is one."""
    count = len(joint_names(keypoint_set))
    if joint_set == keypoint_set:
        return np.arange(count), np.ones(count, bool)
    if joint_set == "spin49" and keypoint_set in _OPENPOSE:
        # The first 25 of the 49 are OpenPose's own; the pelvis of the others lies lower.
        return index_map("openpose25", keypoint_set)
    return index_map(joint_set, keypoint_set)


def _check_names(name: str, points: np.ndarray | None, joint_set: str | None) -> None:
    if points is None:
        return
    if joint_set is None:
        raise UserError(f"{name} come without the name of their joint set")
    if len(joint_names(joint_set)) != len(points):
        raise UserError(
            f"{name}: {len(points)} points, but joint set {joint_set!r} has "
            f"{len(joint_names(joint_set))}"
        )


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")
