import numpy as np
import pytest
import trimesh

from jaxrecon.errors import UserError
from jaxrecon.io.meshes import turn_upright, vertex_normals, write_mesh

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3.0]], np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], np.uint8)


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".PLY"])
@pytest.mark.parametrize("coloured", [None, "uint8", "float"])
def test_round_trip(tmp_path, suffix, coloured):
    path = tmp_path / ("mesh" + suffix)
    colours = {None: None, "uint8": COLOURS, "float": COLOURS / 255.0}[coloured]
    write_mesh(path, VERTICES, FACES, colours)
    got = trimesh.load(path, process=False, force="mesh")
    want = turn_upright(VERTICES) if suffix == ".glb" else VERTICES
    np.testing.assert_allclose(got.vertices, want, atol=1e-6)
    np.testing.assert_array_equal(got.faces, FACES)
    assert got.is_watertight and got.volume > 0
    if coloured:
        np.testing.assert_array_equal(got.visual.vertex_colors[:, :3], COLOURS)


def test_y_up_is_kept_in_glb(tmp_path):
    write_mesh(tmp_path / "mesh.glb", VERTICES, FACES, frame="y_up")
    got = trimesh.load(tmp_path / "mesh.glb", process=False, force="mesh")
    np.testing.assert_allclose(got.vertices, VERTICES)


def test_normals_point_outwards():
    sphere = trimesh.creation.icosphere(subdivisions=2)
    vertices = np.asarray(sphere.vertices, np.float32)
    normals = vertex_normals(vertices, np.asarray(sphere.faces))
    np.testing.assert_allclose((normals * vertices).sum(1), 1, atol=2e-3)
    lonely = vertex_normals(np.zeros((3, 3), np.float32), np.zeros((0, 3), int))
    np.testing.assert_allclose(np.linalg.norm(lonely, axis=1), 1)


def test_mistakes_are_named_and_leave_nothing(tmp_path):
    with pytest.raises(UserError, match="'mesh.stl': the name must end in .obj, .ply, .glb"):
        write_mesh(tmp_path / "mesh.stl", VERTICES, FACES)
    with pytest.raises(UserError, match="not finite"):
        write_mesh(tmp_path / "mesh.obj", VERTICES * np.nan, FACES)
    with pytest.raises(UserError, match="beyond its 4"):
        write_mesh(tmp_path / "mesh.obj", VERTICES, FACES + 1)
    with pytest.raises(UserError, match="no vertices"):
        write_mesh(tmp_path / "mesh.obj", VERTICES[:0], FACES[:0])
    assert list(tmp_path.iterdir()) == []
