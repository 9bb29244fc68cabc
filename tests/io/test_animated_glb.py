"""The written files are played back here by the rules of glTF 2.0, section 3.7.3."""

import numpy as np
import pygltflib as gltf
import pytest
from scipy.spatial.transform import Rotation

from jaxrecon.bodies import load_body
from jaxrecon.bodies.joints import SMPL24
from jaxrecon.errors import UserError
from jaxrecon.io.animated_glb import Rig, body_rig, write_animated_glb, write_skinned_glb
from jaxrecon.io.meshes import turn_upright

_TYPES = {5126: "<f4", 5125: "<u4", 5123: "<u2", 5121: "u1"}
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Played:
    """A .glb file and its arrays."""

    def __init__(self, path):
        self.doc = gltf.GLTF2().load_binary(str(path))
        self.blob = self.doc.binary_blob()

    def array(self, index):
        accessor = self.doc.accessors[index]
        view = self.doc.bufferViews[accessor.bufferView]
        dtype = np.dtype(_TYPES[accessor.componentType])
        count = accessor.count * _WIDTHS[accessor.type]
        assert view.byteOffset % dtype.itemsize == 0
        assert view.byteLength == count * dtype.itemsize
        return np.frombuffer(self.blob, dtype, count, view.byteOffset).reshape(accessor.count, -1)

    def local(self, node, time):
        move, turn = np.array(node.translation or [0, 0, 0]), node.rotation or [0, 0, 0, 1]
        for animation in self.doc.animations:
            for channel in animation.channels:
                if self.doc.nodes[channel.target.node] is not node:
                    continue
                sampler = animation.samplers[channel.sampler]
                at = int(np.argmin(np.abs(self.array(sampler.input)[:, 0] - time)))
                value = self.array(sampler.output)[at]
                if channel.target.path == "rotation":
                    turn = value
                else:
                    move = value
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat(turn).as_matrix()
        matrix[:3, 3] = move
        return matrix

    def skinned(self, time=0.0):
        nodes, skin = self.doc.nodes, self.doc.skins[0]
        world = {}

        def visit(index, parent):
            world[index] = parent @ self.local(nodes[index], time)
            for child in nodes[index].children or []:
                visit(child, world[index])

        for root in self.doc.scenes[0].nodes:
            visit(root, np.eye(4))
        inverse = self.array(skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        bones = np.stack([world[j] for j in skin.joints]) @ inverse
        attributes = self.doc.meshes[0].primitives[0].attributes
        points = np.c_[self.array(attributes.POSITION), np.ones(self.doc.accessors[0].count)]
        blend = np.einsum(
            "vk,vkab->vab", self.array(attributes.WEIGHTS_0), bones[self.array(attributes.JOINTS_0)]
        )
        return np.einsum("vab,vb->va", blend, points)[:, :3]


def skin_plainly(rig, rotmats, transl):
    """Linear blend skinning, joint after joint."""
    world = np.zeros((len(rig.joints), 4, 4))
    for j, parent in enumerate(rig.parents):
        local = np.eye(4)
        local[:3, :3] = rotmats[j]
        local[:3, 3] = rig.joints[j] - (rig.joints[parent] if parent >= 0 else 0)
        world[j] = local if parent < 0 else world[parent] @ local
    bones = world.copy()
    bones[:, :3, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], rig.joints)
    blend = np.einsum("vj,jab->vab", rig.weights, bones)
    return np.einsum("vab,vb->va", blend[:, :3, :3], rig.vertices) + blend[:, :3, 3] + transl


@pytest.fixture(scope="module")
def rig() -> Rig:
    betas = np.random.default_rng(0).normal(size=10)
    return body_rig(load_body(), betas, SMPL24)


@pytest.mark.parametrize("frame", ["camera", "y_up"])
def test_a_skinned_animation_plays_what_was_posed(tmp_path, rig, frame):
    rng = np.random.default_rng(1)
    rotmats = Rotation.from_rotvec(rng.normal(0, 0.5, (3 * 24, 3))).as_matrix().reshape(3, 24, 3, 3)
    transl = rng.normal(size=(3, 3))
    path = tmp_path / "body.glb"
    colours = np.full((len(rig.vertices), 3), 0.5)
    write_skinned_glb(path, rig, rotmats, transl, fps=10, colours=colours, frame=frame)
    played = Played(path)
    assert [n.name for n in played.doc.nodes[1:25]] == list(SMPL24)
    for t in range(3):
        want = skin_plainly(rig, rotmats[t], transl[t])
        want = turn_upright(want) if frame == "camera" else want
        # The open body has up to five joints a vertex, glTF four.
        np.testing.assert_allclose(played.skinned(t / 10), want, atol=3e-3)


def test_one_frame_is_a_pose_and_none_is_the_rest(tmp_path, rig):
    write_skinned_glb(tmp_path / "rest.glb", rig, frame="y_up")
    np.testing.assert_allclose(Played(tmp_path / "rest.glb").skinned(), rig.vertices, atol=1e-5)
    rotmats = np.tile(np.eye(3), (1, 24, 1, 1))
    rotmats[0, 16] = Rotation.from_rotvec([0, 0, 1.0]).as_matrix()
    write_skinned_glb(tmp_path / "pose.glb", rig, rotmats, frame="y_up")
    played = Played(tmp_path / "pose.glb")
    assert not played.doc.animations
    np.testing.assert_allclose(played.skinned(), skin_plainly(rig, rotmats[0], 0), atol=3e-3)


def test_quaternions_take_the_short_way(tmp_path, rig):
    angles = np.linspace(0, 2 * np.pi * 1.5, 40)
    rotmats = np.tile(np.eye(3), (40, 24, 1, 1))
    rotmats[:, 0] = Rotation.from_rotvec(angles[:, None] * [0, 1, 0]).as_matrix()
    write_skinned_glb(tmp_path / "spin.glb", rig, rotmats)
    played = Played(tmp_path / "spin.glb")
    turn = played.array(played.doc.animations[0].samplers[0].output)
    assert ((turn[1:] * turn[:-1]).sum(1) > 0.9).all()


def test_moving_vertices_are_morph_targets(tmp_path):
    frames = np.random.default_rng(2).normal(size=(4, 5, 3)).astype(np.float32)
    faces = np.array([[0, 1, 2], [2, 3, 4]])
    write_animated_glb(tmp_path / "steps.glb", frames, faces, fps=5, frame="y_up")
    played = Played(tmp_path / "steps.glb")
    primitive = played.doc.meshes[0].primitives[0]
    base = played.array(primitive.attributes.POSITION)
    changes = np.stack([played.array(t["POSITION"]) for t in primitive.targets])
    sampler = played.doc.animations[0].samplers[0]
    strengths = played.array(sampler.output).reshape(4, 3)
    np.testing.assert_allclose(
        base + np.einsum("tk,kva->tva", strengths, changes), frames, atol=1e-6
    )
    np.testing.assert_allclose(played.array(sampler.input)[:, 0], np.arange(4) / 5)


def test_mistakes_are_named(tmp_path, rig):
    with pytest.raises(UserError, match="written as .glb, not as 'body.obj'"):
        write_skinned_glb(tmp_path / "body.obj", rig)
    with pytest.raises(UserError, match="not finite"):
        write_skinned_glb(tmp_path / "body.glb", rig, np.full((2, 24, 3, 3), np.nan))
    assert list(tmp_path.iterdir()) == []
