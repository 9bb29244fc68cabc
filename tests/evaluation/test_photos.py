"""Scores of fits to real photographs."""

import numpy as np
import pytest

from jaxrecon.bodies.load import load_body
from jaxrecon.errors import UserError
from jaxrecon.evaluation import photos
from tests.conftest import needs_shared


def write(folder, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "image": np.array(["a.jpg", "b.jpg"]),
        "K": np.tile(np.diag([1000.0, 1000.0, 1.0]), (2, 1, 1)),
        "keypoints2d": np.ones((2, 17, 3), np.float32),
        "joints3d": rng.normal(size=(2, 17, 4)).astype(np.float32),
    }
    arrays.update(changes)
    (folder / "h36m").mkdir(parents=True)
    np.savez(
        folder / "h36m" / "annotations.npz", **{k: v for k, v in arrays.items() if v is not None}
    )
    return arrays


def test_frames_are_read_by_data_set(tmp_path):
    arrays = write(tmp_path)
    frames = photos.read_frames(tmp_path)
    assert [frame.name for frame in frames] == ["a.jpg", "b.jpg"]
    assert {frame.joint_set for frame in frames} == {"h36m17"}
    np.testing.assert_array_equal(frames[1].joints3d, arrays["joints3d"][1])


@pytest.mark.parametrize(
    ("changes", "words"), [({"K": None}, "lacks a field"), ({"joints3d": np.ones(3)}, "cannot be")]
)
def test_damaged_annotations_are_told(tmp_path, capsys, changes, words):
    write(tmp_path, **changes)
    assert photos.main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert words in message and "annotations.npz" in message and message.count("\n") == 1


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        photos.read_frames(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds none of"):
        photos.read_frames(tmp_path)


def test_score_ignores_similarity_and_invalid_joints():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(17, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    moved = 1.3 * truth @ turn.T + (1.0, 2.0, 3.0)
    valid = np.ones((17, 1))
    valid[3] = 0
    moved[3] += 5.0
    points = np.concatenate([rng.uniform(0, 100, (17, 2)), np.ones((17, 1))], 1)
    frame = photos.Frame("x", "h36m17", np.eye(3), points, np.concatenate([truth, valid], 1))
    score = photos._score(frame, moved, np.full(17, 2.0))
    assert score.limbs_mm < 0.01 and score.all_mm < 0.01 and score.pixels == 2.0
    moved[1] += 0.1
    assert photos._score(frame, moved, np.full(17, 2.0)).limbs_mm > 1


@needs_shared
@pytest.mark.slow
def test_real_photographs_within_the_bound(shared_dir):
    frames = photos.read_frames(shared_dir / "data" / "photos")
    scores = photos.score_frames(load_body(), frames)
    assert len(scores) == 4
    assert np.mean([score.limbs_mm for score in scores]) < 110
    assert np.mean([score.all_mm for score in scores]) < 110
    assert max(score.fraction for score in scores) < 0.03
    assert "mean PA-MPJPE" in photos.table(scores)
