"""The public result: what it measures, what it draws, and what comes back from its files."""

import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from pygltflib import GLTF2

from jaxrecon.bodies import body_forward, load_body
from jaxrecon.bodies.joints import JOINT_SETS
from jaxrecon.errors import UserError
from jaxrecon.geometry.rotations import axis_angle_to_matrix
from jaxrecon.io.images import read_image
from jaxrecon.reconstruction import Camera, Instance, Reconstruction
from jaxrecon.reconstruction_files import SUFFIXES

CAMERA = Camera(200.0, (60.0, 80.0), (160, 120))


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def person(body):
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.2, (24, 3)).astype(np.float32)
    pose[0] = [np.pi, 0, 0]
    return Instance.of_body(
        body,
        rng.normal(size=10).astype(np.float32),
        axis_angle_to_matrix(jnp.asarray(pose)),
        np.array([0.1, 0.2, 4.0], np.float32),
        history={"loss": np.array([3.0, 2.0, 1.5])},
    )


def _box(x=0.0, **more):
    box = trimesh.creation.box((0.5, 1.0, 0.5))
    return Instance(np.asarray(box.vertices) + [x, 0, 3], np.asarray(box.faces), **more)


def _evidenced(person, shift, joint_set="spin49", confidence=1.0):
    """The person with its own projections as keypoints, moved by some pixels."""
    plain = Reconstruction([person], CAMERA)
    pixels = plain.projected(0)[: len(JOINT_SETS[joint_set])] + shift
    keypoints = np.concatenate([pixels, np.full((len(pixels), 1), confidence)], 1)
    return _replace(person, keypoints2d=keypoints, keypoint_set=joint_set)


def _replace(instance, **changes):
    fields = {name: getattr(instance, name) for name in instance.__dataclass_fields__}
    return Instance(**{**fields, **changes})


def test_of_body_is_the_body_model_moved(body, person):
    parameters = person.parameters
    posed = body_forward(body, parameters["betas"], parameters["rotmats"])
    np.testing.assert_allclose(person.vertices, posed.vertices + parameters["transl"], atol=1e-6)
    assert person.joint_set == "spin49" and person.joints.shape == (49, 3)
    angles = np.concatenate([parameters["global_orient"], parameters["body_pose"]])
    rotmats = axis_angle_to_matrix(jnp.asarray(angles.reshape(24, 3)))
    np.testing.assert_allclose(rotmats, parameters["rotmats"], atol=1e-5)


def test_camera_projects_and_hides_what_is_behind():
    points = np.array([[0.3, -0.4, 2.0], [0, 0, -1.0]])
    pixels = CAMERA.project(points)
    np.testing.assert_allclose(pixels[0], [60 + 30, 80 - 40])
    assert np.isnan(pixels[1]).all()


@pytest.mark.parametrize("joint_set", ["spin49", "openpose25"])
def test_keypoint_error_in_pixels_and_of_the_box(person, joint_set):
    found = Reconstruction([_evidenced(person, [3.0, 4.0], joint_set)], CAMERA)
    error = found.keypoint_error()
    np.testing.assert_allclose(error.pixels, 5.0, rtol=1e-4)
    assert error.joints == len(JOINT_SETS[joint_set])
    extent = np.ptp(found.instances[0].keypoints2d[:, :2], axis=0).max()
    np.testing.assert_allclose(error.fraction, 5.0 / extent, rtol=1e-4)
    boxed = _replace(found.instances[0], bbox=np.array([0.0, 0, 50, 100]))
    np.testing.assert_allclose(Reconstruction([boxed], CAMERA).keypoint_error().fraction, 0.05)


def test_keypoint_error_counts_confident_finite_joints_only(person):
    moved = _evidenced(person, [3.0, 4.0])
    keypoints = np.array(moved.keypoints2d)
    keypoints[:10, 2] = 0.1
    keypoints[:10, 0] += 1000
    keypoints[10, 0] = np.nan
    error = Reconstruction([_replace(moved, keypoints2d=keypoints)], CAMERA).keypoint_error()
    assert error.joints == 38
    np.testing.assert_allclose(error.pixels, 5.0, rtol=1e-4)
    both = Reconstruction([moved, person, _evidenced(person, [0.0, 1.0])], CAMERA)
    np.testing.assert_allclose(both.keypoint_error().pixels, 3.0, rtol=1e-4)
    none = Reconstruction([person], CAMERA).keypoint_error()
    assert none.joints == 0 and np.isnan(none.pixels)


def test_overlay_draws_all_instances_where_they_are(person):
    image = np.full((160, 120, 3), 30, np.uint8)
    left, right = _box(-0.5), _box(0.5)
    picture = Reconstruction([left, right], CAMERA, image).overlay()
    for box in (left, right):
        x, y = CAMERA.project(box.vertices.mean(0)[None])[0].astype(int)
        assert picture[y, x].min() > 60
    x, y = CAMERA.project(left.vertices.mean(0)[None])[0].astype(int)
    assert (picture[y, x] != picture[y, 120 - x]).any(), "instances differ in colour"
    assert (picture[0, 0] == 30).all() and (image == 30).all()
    drawn = Reconstruction([_evidenced(person, 0.0)], CAMERA, image).overlay(keypoints=True)
    assert (drawn != Reconstruction([person], CAMERA, image).overlay()).any()


def test_an_empty_result_still_shows_its_image():
    image = np.full((160, 120, 3), 30, np.uint8)
    nothing = Reconstruction([], CAMERA, image, "meta_hmr")
    np.testing.assert_array_equal(nothing.overlay(), image)
    assert "0 instances" in repr(nothing) and "<h1>" in nothing.page()
    with pytest.raises(UserError, match="empty"):
        nothing.side_view()


def test_npz_gives_everything_back(tmp_path, person):
    image = np.random.default_rng(1).integers(0, 255, (160, 120, 3)).astype(np.uint8)
    full = _replace(_evidenced(person, 2.0), bbox=np.array([1.0, 2, 30, 40]), gender="female")
    saved = Reconstruction([full, _box()], CAMERA, image, "meta_hmr")
    path = saved.save(tmp_path / "result.npz")
    loaded = Reconstruction.load(path)
    assert loaded.system == "meta_hmr" and loaded.camera == CAMERA
    np.testing.assert_array_equal(loaded.image, image)
    assert len(loaded) == 2 and loaded.instances[1].joints is None
    for got, want in zip(loaded.instances, saved.instances):
        for name in want.__dataclass_fields__:
            a, b = getattr(got, name), getattr(want, name)
            if isinstance(b, dict):
                assert a.keys() == b.keys()
                assert all(np.array_equal(a[k], b[k]) for k in b)
            else:
                assert np.array_equal(a, b) if isinstance(b, np.ndarray) else a == b
    assert loaded.keypoint_error() == saved.keypoint_error()


def test_npz_of_a_body_reads_as_amass(tmp_path, body, person):
    Reconstruction([person], CAMERA).save(tmp_path / "body.npz")
    with np.load(tmp_path / "body.npz") as data:
        assert data["poses"].shape == (1, 72) and data["trans"].shape == (1, 3)
        assert data["betas"].shape == (10,) and str(data["gender"]) == "neutral"
        assert float(data["mocap_frame_rate"]) > 0
        rotmats = axis_angle_to_matrix(jnp.asarray(data["poses"][0].reshape(24, 3)))
        vertices = body_forward(body, data["betas"], rotmats).vertices + data["trans"][0]
    np.testing.assert_allclose(vertices, person.vertices, atol=1e-4)


def test_meshes_by_suffix(tmp_path, body, person):
    two = Reconstruction([person, _box()], CAMERA, body=body)
    for suffix in (".obj", ".ply"):
        mesh = trimesh.load(two.save(tmp_path / f"two{suffix}"), process=False)
        np.testing.assert_allclose(mesh.bounds, [
            np.minimum(person.vertices.min(0), _box().vertices.min(0)),
            np.maximum(person.vertices.max(0), _box().vertices.max(0)),
        ], atol=1e-4)  # fmt: skip
    assert not GLTF2().load_binary(str(two.save(tmp_path / "two.glb"))).skins
    skinned = Reconstruction([person], CAMERA, body=body).save(tmp_path / "one.glb")
    assert len(GLTF2().load_binary(str(skinned)).skins[0].joints) == 24
    unknown = Reconstruction([person], CAMERA).save(tmp_path / "static.glb")
    assert not GLTF2().load_binary(str(unknown)).skins


def test_pictures_and_pages_by_suffix(tmp_path, person):
    image = np.full((160, 120, 3), 30, np.uint8)
    found = Reconstruction([_evidenced(person, 1.0)], CAMERA, image, "meta_hmr")
    np.testing.assert_array_equal(read_image(found.save(tmp_path / "a.PNG")), found.overlay())
    text = found.save(tmp_path / "a.html").read_text()
    assert "meta_hmr" in text and "Loss" in text and 'class="viewer' in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    assert found._repr_png_().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.PNG", "a.html"]


def test_wrong_names_name_the_right_ones(tmp_path):
    with pytest.raises(UserError, match=r"a\.stl.*" + r".*\.".join(s[1:] for s in SUFFIXES)):
        Reconstruction([_box()], CAMERA).save(tmp_path / "a.stl")
    with pytest.raises(UserError, match="empty"):
        Reconstruction([], CAMERA).save(tmp_path / "a.obj")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_reconstruction(tmp_path):
    (tmp_path / "text.npz").write_text("no zip")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    whole = Reconstruction([_box()], CAMERA).save(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with np.load(tmp_path / "whole.npz") as data:
        np.savez(tmp_path / "less.npz", **{k: v for k, v in data.items() if k != "0/faces"})
    for name, message in (
        ("none.npz", "no such reconstruction"),
        ("text.npz", "damaged"),
        ("cut.npz", "damaged"),
        ("other.npz", "no reconstruction of this version"),
        ("less.npz", "lacks the array '0/faces'"),
    ):
        with pytest.raises(UserError, match=message):
            Reconstruction.load(tmp_path / name)


def test_bad_parts_are_named():
    box = _box()
    with pytest.raises(UserError, match="vertices: .* not finite"):
        Instance(np.full((3, 3), np.nan), np.array([[0, 1, 2]]))
    with pytest.raises(UserError, match="without the name"):
        _box(joints=np.zeros((24, 3)))
    with pytest.raises(UserError, match="24 points, but joint set 'lsp14' has 14"):
        _box(joints=np.zeros((24, 3)), joint_set="lsp14")
    with pytest.raises(UserError, match="'nonsense' is unknown"):
        _box(joints=np.zeros((24, 3)), joint_set="nonsense")
    with pytest.raises(UserError, match="no pixels"):
        Camera(100.0, (1.0, 1.0), (0, 4))
    with pytest.raises(UserError, match="focal"):
        Camera(0.0, (1.0, 1.0), (4, 4))
    with pytest.raises(UserError, match="image is 4 x 5"):
        Reconstruction([box], CAMERA, np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(UserError, match="no joints"):
        Reconstruction([box], CAMERA).projected(0)


def test_closeup_holds_the_instances_and_their_evidence():
    camera = Camera(100.0, (200.0, 150.0), (300, 400))
    keypoints = np.array([[230.0, 110.0, 1.0], [10.0, 10.0, 0.0]] + [[np.nan, 0, 1]] * 12)
    box = _box(keypoints2d=keypoints, keypoint_set="lsp14")
    y, x = np.mgrid[:300, :400]
    picture = np.stack([x % 256, y % 256, x * 0], -1).astype(np.uint8)
    part = Reconstruction([box], camera).closeup(picture, margin=0)
    # The box's near face: 0.25 x 0.5 m at 2.75 m; the keypoint lies above and to the right of it.
    left, top = np.floor(200 - 25 / 2.75), 110
    right, bottom = 230, np.ceil(150 + 50 / 2.75)
    assert part.shape == (bottom - top, right - left, 3)
    np.testing.assert_array_equal(part[0, 0], [left, top, 0])
    near = Reconstruction([_box()], Camera(1000.0, (200.0, 150.0), (300, 400)))
    assert near.closeup(picture) is picture, "what fills the picture is shown whole"
    assert Reconstruction([], camera).closeup(picture) is picture
