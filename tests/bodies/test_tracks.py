"""Gaps and jitter of a track, on a walk whose truth is known."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxrecon.bodies import load_body
from jaxrecon.bodies.tracks import Track, fill_gaps, joint_places, shared_shape, smooth_track
from jaxrecon.errors import UserError
from tests.walking import walk

FILM = walk(30)


def track_of(film, rows=slice(None)):
    frames = np.arange(len(film.transl))[rows]
    return Track(
        frames=frames,
        rotmats=film.rotmats[rows],
        betas=np.tile(film.betas, (len(frames), 1)),
        transl=film.transl[rows],
        observed=np.ones(len(frames), bool),
    )


def angles(a, b):
    relative = np.swapaxes(a, -1, -2) @ b
    return Rotation.from_matrix(relative.reshape(-1, 3, 3)).magnitude().reshape(a.shape[:2])


def pixels(track):
    places = joint_places(load_body(), track.betas, track.rotmats) + track.transl[:, None]
    return places[..., :2] / places[..., 2:] * FILM.focal


def jittery(seed=0):
    random = np.random.default_rng(seed)
    whole = track_of(FILM)
    shake = Rotation.from_rotvec(random.normal(0, 0.08, (30 * 24, 3))).as_matrix()
    depth = np.exp(random.normal(0, 0.05, (30, 1)))
    return dataclasses.replace(
        whole,
        rotmats=(whole.rotmats @ shake.reshape(30, 24, 3, 3)).astype(np.float32),
        betas=(whole.betas + random.normal(0, 0.5, (30, 10))).astype(np.float32),
        transl=(whole.transl * depth).astype(np.float32),
    )


def test_a_gap_is_filled_evenly():
    rows = np.r_[0:10, 13:30]
    filled = fill_gaps(track_of(FILM, rows))
    np.testing.assert_array_equal(filled.frames, np.arange(30))
    np.testing.assert_array_equal(np.flatnonzero(~filled.observed), [10, 11, 12])
    np.testing.assert_array_equal(filled.rotmats[rows], FILM.rotmats[rows])
    assert angles(filled.rotmats[10:13], FILM.rotmats[10:13]).max() < 0.12
    # Even turning: the angle from the last frame before the gap grows in equal parts.
    ends = angles(filled.rotmats[[9]].repeat(5, 0), filled.rotmats[9:14])
    np.testing.assert_allclose(ends, np.linspace(0, 1, 5)[:, None] * ends[-1], atol=2e-3)
    np.testing.assert_allclose(filled.transl[11], (FILM.transl[9] + FILM.transl[13]) / 2, atol=1e-5)


def test_smoothing_takes_out_jitter_and_keeps_the_motion():
    body, rough = load_body(), jittery()
    smooth = smooth_track(rough, body, fps=30)
    truth = track_of(FILM)
    assert (
        angles(smooth.rotmats, truth.rotmats).mean()
        < 0.6 * angles(rough.rotmats, truth.rotmats).mean()
    )
    # A clean walk comes through nearly as it was: its swings are not flattened.
    assert angles(smooth_track(truth, body, fps=30).rotmats, truth.rotmats).max() < 0.12
    assert np.ptp(smooth.betas, axis=0).max() == 0
    np.testing.assert_array_equal(smooth.betas[0], shared_shape(rough))
    np.testing.assert_allclose(np.linalg.det(smooth.rotmats), 1, atol=1e-4)
    # Jumps in depth go, and the body is nearer to its true place in the picture.
    jumps = [np.abs(np.diff(np.log(t.transl[:, 2]), 2)).mean() for t in (rough, smooth)]
    assert jumps[1] < 0.3 * jumps[0]
    off = [np.linalg.norm(pixels(t) - pixels(truth), axis=-1).mean() for t in (rough, smooth)]
    assert off[1] < 0.8 * off[0], off


def test_the_shared_shape_changes_depth_not_place():
    """Where a body was made smaller, the taller one that replaces it is set farther away."""
    body = load_body()
    rough = track_of(FILM)
    betas = rough.betas.copy()
    betas[:3, 0] -= 3.0
    rough = dataclasses.replace(rough, betas=betas)
    smooth = smooth_track(rough, body, fps=30)
    away = smooth.transl[:, 2] - rough.transl[:, 2]
    assert np.abs(away[:2]).min() > 0.1 and np.abs(away[15:]).max() < 0.02
    off = np.linalg.norm(pixels(smooth) - pixels(rough), axis=-1)
    assert off[:2].mean() < 1.0, off.mean(-1)


def test_short_tracks_and_wrong_spans():
    body = load_body()
    few = smooth_track(track_of(FILM, slice(0, 3)), body, fps=30)
    assert len(few) == 3 and np.isfinite(few.transl).all()
    np.testing.assert_array_equal(few.rotmats, FILM.rotmats[:3])
    one = smooth_track(track_of(FILM, slice(0, 1)), body, fps=30)
    np.testing.assert_allclose(one.transl, FILM.transl[:1], atol=1e-4)
    with pytest.raises(UserError, match="smoothing over 0 seconds"):
        smooth_track(track_of(FILM), body, fps=30, seconds=0)
