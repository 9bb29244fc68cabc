"""Animated glTF: a skinned body with its skeleton, or vertices over time."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib as gltf
from jaxtyping import Float, Shaped
from scipy.spatial.transform import Rotation

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_bytes
from jaxrecon.io.meshes import Frame, checked_mesh, to_uint8, turn_upright, vertex_normals

_INFLUENCES = 4  # glTF viewers need support no more joints for a vertex


@dataclass(frozen=True)
class Rig:
    """A mesh in its rest pose with the skeleton that moves it.

    Attributes:
      vertices: (V, 3) metres, rest pose.
      faces: (F, 3) indices.
      weights: (V, J) skinning weights.
      joints: (J, 3) metres, rest pose.
      parents: J indices, -1 for the root, which comes first.
      names: J names.
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    parents: tuple[int, ...]
    names: tuple[str, ...]


def body_rig(body: Any, betas: Float[np.ndarray, "betas"], names: tuple[str, ...]) -> Rig:
    """The rig of one shape of a body model (any object with the fields of `BodyModel`).

    Pose corrections are left out: a skeleton cannot hold them (they are millimetres).

    Args:
      body: with v_template, shapedirs, J_template, J_shapedirs, weights, faces, parents.
      betas: (10,) shape coefficients.
      names: of the joints.
    """
    betas = np.asarray(betas)
    count = len(betas)
    shaped = np.asarray(body.v_template) + np.asarray(body.shapedirs)[..., :count] @ betas
    joints = np.asarray(body.J_template) + np.asarray(body.J_shapedirs)[..., :count] @ betas
    return Rig(
        vertices=shaped.astype(np.float32),
        faces=np.asarray(body.faces),
        weights=np.asarray(body.weights),
        joints=joints.astype(np.float32),
        parents=tuple(int(p) for p in body.parents),
        names=names,
    )


def write_skinned_glb(
    path: str | os.PathLike[str],
    rig: Rig,
    rotmats: Float[np.ndarray, "frames joints 3 3"] | None = None,
    transl: Float[np.ndarray, "frames 3"] | None = None,
    fps: float | int = 30,
    colours: Shaped[np.ndarray, "vertices 3"] | None = None,
    frame: Frame = "camera",
) -> None:
    """Write a skinned body as .glb: mesh, skeleton, weights and, for several frames, an animation.

    Args:
      path: ends in .glb.
      rig: the body in its rest pose.
      rotmats: (T, J, 3, 3) rotation of each joint relative to its parent (the root's is the global
        orientation). One frame is written as the pose itself, more as an animation. None: rest.
      transl: (T, 3) metres, added to all vertices.
      fps: frames a second.
      colours: (V, 3) RGB, uint8 or floats in 0..1.
      frame: of the posed body: "camera" (y down) or "y_up". glTF has y up, so a body in the
        camera frame hangs under a node that turns it by 180 degrees about x.

    Raises:
      UserError: another suffix, or a pose with values that are not finite.
    """
    _need_glb(path)
    vertices, faces = checked_mesh(rig.vertices, rig.faces)
    out = _Writer()
    joint_count = len(rig.joints)
    strongest = np.argsort(-rig.weights, axis=1, kind="stable")[:, :_INFLUENCES]
    weights = np.take_along_axis(rig.weights, strongest, 1).astype(np.float32)
    weights /= weights.sum(1, keepdims=True)
    strongest[weights == 0] = 0  # the standard asks joint 0 where the weight is 0

    attributes = out.mesh_attributes(vertices, faces, colours)
    attributes.JOINTS_0 = out.add(strongest.astype(np.uint16), gltf.VEC4, gltf.ARRAY_BUFFER)
    attributes.WEIGHTS_0 = out.add(weights, gltf.VEC4, gltf.ARRAY_BUFFER)
    out.add_mesh(attributes, faces)

    # Node 0 holds the mesh, 1 + j is joint j, the last one turns the skeleton upright.
    out.nodes = [gltf.Node(name="body", mesh=0, skin=0)]
    for joint, parent in enumerate(rig.parents):
        offset = rig.joints[joint] - (rig.joints[parent] if parent >= 0 else 0)
        children = [1 + c for c, p in enumerate(rig.parents) if p == joint]
        out.nodes.append(
            gltf.Node(name=rig.names[joint], translation=offset.tolist(), children=children)
        )
    turn = [1.0, 0.0, 0.0, 0.0] if frame == "camera" else None
    roots = [1 + j for j, parent in enumerate(rig.parents) if parent < 0]
    out.nodes.append(gltf.Node(name="camera_frame", rotation=turn, children=roots))
    inverse = np.tile(np.eye(4, dtype=np.float32), (joint_count, 1, 1))
    inverse[:, :3, 3] = -rig.joints
    columns = np.ascontiguousarray(inverse.transpose(0, 2, 1)).reshape(joint_count, 16)
    skin = gltf.Skin(
        inverseBindMatrices=out.add(columns, gltf.MAT4),
        joints=list(range(1, joint_count + 1)),
        skeleton=len(out.nodes) - 1,
    )
    if rotmats is not None:
        places = rig.joints[0] + (transl if transl is not None else np.zeros((len(rotmats), 3)))
        _pose(out, rotmats, places.astype(np.float32), float(fps))
    elif transl is not None:
        out.nodes[1].translation = (rig.joints[0] + transl[0]).tolist()
    out.save(path, scene_nodes=[0, len(out.nodes) - 1], skins=[skin])


def write_animated_glb(
    path: str | os.PathLike[str],
    vertices: Float[np.ndarray, "frames vertices 3"],
    faces: Shaped[np.ndarray, "faces 3"],
    fps: float | int = 30,
    colours: Shaped[np.ndarray, "vertices 3"] | None = None,
    frame: Frame = "camera",
) -> None:
    """Write vertices that move over time as .glb, one morph target a frame.

    For shapes that no skeleton explains, such as the steps of an optimisation.

    Args:
      path: ends in .glb.
      vertices: (T, V, 3) metres.
      faces: (F, 3) indices, the same in all frames.
      fps: frames a second.
      colours: (V, 3) RGB, uint8 or floats in 0..1.
      frame: of the vertices: "camera" (y down) or "y_up".
    """
    _need_glb(path)
    frames = len(vertices)
    flat, faces = checked_mesh(vertices.reshape(-1, 3), faces)
    moving = (turn_upright(flat) if frame == "camera" else flat).reshape(vertices.shape)
    out = _Writer()
    targets = []
    for t in range(1, frames):
        change = out.add(moving[t] - moving[0], gltf.VEC3, gltf.ARRAY_BUFFER, bounds=True)
        targets.append({"POSITION": change})
    out.add_mesh(out.mesh_attributes(moving[0], faces, colours), faces, targets)
    out.nodes = [gltf.Node(name="mesh", mesh=0)]
    if frames > 1:
        strengths = np.eye(frames, dtype=np.float32)[:, 1:].reshape(-1, 1)
        out.animate(0, "weights", out.times(frames, float(fps)), out.add(strengths, gltf.SCALAR))
    out.save(path, scene_nodes=[0])


def _pose(out: "_Writer", rotmats: np.ndarray, places: np.ndarray, fps: float) -> None:
    frames, joints = rotmats.shape[:2]
    if not (np.isfinite(rotmats).all() and np.isfinite(places).all()):
        raise UserError("the pose has values that are not finite; the animation was not written")
    turns = Rotation.from_matrix(rotmats.reshape(-1, 3, 3)).as_quat().reshape(frames, joints, 4)
    # q and -q are the same rotation; viewers interpolate the short way only between like signs.
    flips = np.sign((turns[1:] * turns[:-1]).sum(-1))
    turns[1:] *= np.cumprod(np.where(flips == 0, 1, flips), axis=0)[..., None]
    for joint in range(joints):
        out.nodes[1 + joint].rotation = turns[0, joint].tolist()
    out.nodes[1].translation = places[0].tolist()
    if frames == 1:
        return
    times = out.times(frames, fps)
    for joint in range(joints):
        turn = np.ascontiguousarray(turns[:, joint], np.float32)
        out.animate(1 + joint, "rotation", times, out.add(turn, gltf.VEC4))
    out.animate(1, "translation", times, out.add(places, gltf.VEC3))


def _need_glb(path: str | os.PathLike[str]) -> None:
    if Path(path).suffix.lower() != ".glb":
        raise UserError(f"an animated mesh is written as .glb, not as {Path(path).name!r}")


_COMPONENTS = {
    np.dtype(np.float32): gltf.FLOAT,
    np.dtype(np.uint32): gltf.UNSIGNED_INT,
    np.dtype(np.uint16): gltf.UNSIGNED_SHORT,
    np.dtype(np.uint8): gltf.UNSIGNED_BYTE,
}


@dataclass(repr=False)
class _Writer:
    """Collects arrays in one binary buffer and the glTF objects that refer to them."""

    blob: bytearray = field(default_factory=bytearray)
    views: list[gltf.BufferView] = field(default_factory=list)
    accessors: list[gltf.Accessor] = field(default_factory=list)
    nodes: list[gltf.Node] = field(default_factory=list)
    meshes: list[gltf.Mesh] = field(default_factory=list)
    animation: gltf.Animation = field(
        default_factory=lambda: gltf.Animation(name="motion", samplers=[], channels=[])
    )

    def add(
        self, array: np.ndarray, kind: str, target: int | None = None, bounds: bool = False
    ) -> int:
        """The index of an accessor of `array` (count, components)."""
        data = np.ascontiguousarray(array)
        self.blob += b"\0" * (-len(self.blob) % 4)
        self.views.append(
            gltf.BufferView(
                buffer=0, byteOffset=len(self.blob), byteLength=data.nbytes, target=target
            )
        )
        self.blob += data.astype(data.dtype.newbyteorder("<")).tobytes()
        self.accessors.append(
            gltf.Accessor(
                bufferView=len(self.views) - 1,
                componentType=_COMPONENTS[data.dtype],
                normalized=data.dtype == np.uint8,
                count=len(data),
                type=kind,
                min=data.min(0).tolist() if bounds else None,
                max=data.max(0).tolist() if bounds else None,
            )
        )
        return len(self.accessors) - 1

    def mesh_attributes(
        self, vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray | None
    ) -> gltf.Attributes:
        attributes = gltf.Attributes(
            POSITION=self.add(vertices, gltf.VEC3, gltf.ARRAY_BUFFER, bounds=True),
            NORMAL=self.add(vertex_normals(vertices, faces), gltf.VEC3, gltf.ARRAY_BUFFER),
        )
        if colours is not None:
            # Four bytes a vertex: the standard aligns every element to 4.
            rgba = np.concatenate([to_uint8(colours), np.full((len(colours), 1), 255, np.uint8)], 1)
            attributes.COLOR_0 = self.add(rgba, gltf.VEC4, gltf.ARRAY_BUFFER)
        return attributes

    def add_mesh(self, attributes: gltf.Attributes, faces: np.ndarray, targets: Any = None) -> None:
        indices = self.add(
            faces.astype(np.uint32).reshape(-1, 1), gltf.SCALAR, gltf.ELEMENT_ARRAY_BUFFER
        )
        primitive = gltf.Primitive(
            attributes=attributes, indices=indices, material=0, targets=targets or []
        )
        self.meshes.append(gltf.Mesh(primitives=[primitive], weights=[0.0] * len(targets or [])))

    def times(self, frames: int, fps: float) -> int:
        seconds = (np.arange(frames, dtype=np.float32) / np.float32(fps))[:, None]
        return self.add(seconds, gltf.SCALAR, bounds=True)

    def animate(self, node: int, what: str, times: int, values: int) -> None:
        sampler = gltf.AnimationSampler(input=times, output=values, interpolation="LINEAR")
        self.animation.samplers.append(sampler)
        target = gltf.AnimationChannelTarget(node=node, path=what)
        self.animation.channels.append(
            gltf.AnimationChannel(sampler=len(self.animation.samplers) - 1, target=target)
        )

    def save(
        self,
        path: str | os.PathLike[str],
        scene_nodes: list[int],
        skins: list[gltf.Skin] | None = None,
    ) -> None:
        plain = gltf.PbrMetallicRoughness(
            baseColorFactor=[0.8, 0.8, 0.8, 1.0], metallicFactor=0.0, roughnessFactor=0.7
        )
        if self.meshes[0].primitives[0].attributes.COLOR_0 is not None:
            plain.baseColorFactor = [1.0, 1.0, 1.0, 1.0]  # it multiplies the vertex colours
        document = gltf.GLTF2(
            asset=gltf.Asset(version="2.0", generator="jaxrecon"),
            scene=0,
            scenes=[gltf.Scene(nodes=scene_nodes)],
            nodes=self.nodes,
            meshes=self.meshes,
            skins=skins or [],
            animations=[self.animation] if self.animation.channels else [],
            materials=[gltf.Material(pbrMetallicRoughness=plain)],
            accessors=self.accessors,
            bufferViews=self.views,
            buffers=[gltf.Buffer(byteLength=len(self.blob))],
        )
        document.set_binary_blob(bytes(self.blob))
        write_bytes(path, b"".join(document.save_to_bytes()))
