"""The files beside the numbers: predictions, overlays and meshes, of who knows the answer."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrecon.bodies import body_forward, h36m_joints, load_body, lsp14_centred
from jaxrecon.config import load_config
from jaxrecon.data.pipeline import DataConfig, eval_batches
from jaxrecon.errors import UserError
from jaxrecon.evaluation.outputs import OutputSettings, outputs_of
from jaxrecon.evaluation.protocol import Result
from jaxrecon.geometry.rotations import axis_angle_to_matrix
from jaxrecon.io.images import read_image
from jaxrecon.systems.base import Prediction
from jaxrecon.training.parallel import join_hosts
from tests.data.people import make_records

ROOT = Path(__file__).resolve().parents[2]
RECORDS = [
    record | {"imgname": f"im/{i:02d} a.jpg", "gender": i % 3 - 1}
    for i, record in enumerate(make_records(6))
]


posed = jax.jit(body_forward)


def truth(batch) -> Result:
    """The labels themselves as a prediction, of the neutral body, 5 m away."""
    body = load_body()
    rotmats = np.asarray(axis_angle_to_matrix(batch["pose"].reshape(-1, 24, 3)))
    count = len(rotmats)
    prediction = Prediction(
        vertices=np.asarray(posed(body, batch["betas"], rotmats).vertices),
        joints3d=np.zeros((count, 49, 3), np.float32),
        keypoints2d=np.zeros((count, 49, 2), np.float32),
        rotmats=rotmats,
        betas=batch["betas"],
        cam=np.tile(np.float32([0.9, 0.1, 0.2]), (count, 1)),
        transl=np.tile(np.float32([0, 0, 5]), (count, 1)),
        focal_length=batch["focal_length"],
    )
    metrics = {"mpjpe": np.arange(count, dtype=np.float32)}
    return Result(prediction, np.full(count, 3), metrics)


def write(folder, **fields):
    config = load_config("metahmr:tiny", {f"evaluation.{k}": v for k, v in fields.items()})
    data = DataConfig(("people",), "test", height=32, width=32)
    batches = list(eval_batches(data, 4, sources=[RECORDS]))
    outputs = outputs_of(config, RECORDS, data.box, folder)
    assert outputs is not None
    for batch in batches[::-1]:  # the order of the rows is that of the data set all the same
        outputs(batch, truth(batch))
    return outputs.finish()


def test_predictions(tmp_path: Path) -> None:
    assert write(tmp_path, predictions="all.npz") == [tmp_path / "all.npz"]
    assert [p.name for p in tmp_path.iterdir()] == ["all.npz"]
    with np.load(tmp_path / "all.npz", allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    assert found["imgname"].tolist() == [record["imgname"] for record in RECORDS]
    assert found["dataset"].tolist() == ["tiny_people"] * 6
    for name, key in (("betas", "betas"), ("pose", "pose")):
        wanted = np.array([record[key] for record in RECORDS])
        np.testing.assert_allclose(found[name], wanted, atol=2e-5)
    assert found["pred_joints"].shape == (6, 17, 3) and found["pred_joints"].dtype == np.float32
    body = load_body()
    rotmats = np.asarray(axis_angle_to_matrix(found["pose"].reshape(-1, 24, 3)))
    joints = lsp14_centred(body, posed(body, found["betas"], rotmats).vertices)
    np.testing.assert_allclose(found["pred_joints"][:, :14], joints, atol=1e-4)
    np.testing.assert_allclose(found["camera"], [[0.9, 0.1, 0.2]] * 6)
    np.testing.assert_array_equal(found["step"], 3)
    np.testing.assert_array_equal(found["mpjpe"], [0, 1, 2, 3, 0, 1])
    assert found["transl"].shape == (6, 3) and (found["focal_length"] > 0).all()


def test_overlays_and_meshes_of_some(tmp_path: Path) -> None:
    written = write(tmp_path, overlay_every=4, mesh_every=3)
    assert written == [tmp_path / "overlays", tmp_path / "meshes"]
    names = [f"{i:06d}_im-{i:02d}_a" for i in range(6)]
    pictures = {p.name for p in (tmp_path / "overlays").iterdir()}
    assert pictures == {f"{names[i]}_{kind}.jpg" for i in (0, 4) for kind in ("input", "ours")}
    overlay = read_image(tmp_path / f"overlays/{names[0]}_ours.jpg")
    assert overlay.shape == (120, 140, 3)
    meshes = {p.name for p in (tmp_path / "meshes").iterdir() if p.suffix == ".obj"}
    assert meshes == {f"{names[i]}_{kind}.obj" for i in (0, 3) for kind in ("ours", "true")}
    # Record 0 and 3 have no gender: the label is a man's, the prediction's body is neutral.
    pelvis = []
    for kind, gender in (("ours", "neutral"), ("true", "male")):
        lines = (tmp_path / f"meshes/{names[3]}_{kind}.obj").read_text().splitlines()
        vertices = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], float)
        body = load_body(gender=gender)
        assert len(vertices) == len(body.v_template)
        pelvis.append(np.asarray(h36m_joints(body, vertices.astype(np.float32)))[0])
        extent = np.ptp(vertices, axis=0).max()
        assert 0.5 < extent < 2.5
    # Files may have another up, but both the same.
    np.testing.assert_allclose(pelvis[0], pelvis[1], atol=1e-3)


def test_nothing_is_made_unasked(tmp_path: Path) -> None:
    assert outputs_of(load_config("metahmr:tiny"), RECORDS, "keypoints", tmp_path) is None


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"predictions": "all.txt"}, "evaluation.predictions='all.txt' must end in .npz"),
        ({"overlay_every": -1}, "evaluation.overlay_every=-1; it must be 0 or more"),
    ],
)
def test_wrong_settings(fields, message) -> None:
    config = load_config("metahmr:tiny", fields)
    with pytest.raises(UserError, match=message):
        OutputSettings.from_config(config)


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "all.npz").mkdir()
    with pytest.raises(UserError, match="all.npz: it is a folder"):
        write(tmp_path, predictions="all.npz")


def test_rows_of_one_host_come_back() -> None:
    rows = {"index": np.arange(3), "valid": np.ones(3, bool)}
    assert {k: v.tolist() for k, v in join_hosts(rows).items()} == {
        "index": [0, 1, 2],
        "valid": [True] * 3,
    }


@pytest.mark.slow
def test_rows_of_two_hosts_are_joined() -> None:
    program = (
        "import numpy as np, jax\n"
        "from jaxrecon.training.parallel import *\n"
        "initialize_hosts(); first = 3 * host_index()\n"
        "rows = {'a': np.arange(first, first + 3, dtype=np.int32),\n"
        "        'b': np.full((3, 2), 0.5 + host_index(), np.float32),\n"
        "        'valid': np.arange(first, first + 3) % 2 == 0}\n"
        "found = join_hosts(rows)\n"
        "print([found[n].tolist() for n in sorted(found)], found['valid'].dtype)\n"
    )
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    common = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAXRECON_DISTRIBUTED": "1",
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAXRECON_PROCESS_COUNT": "2",
    }
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=common | {"JAXRECON_PROCESS_INDEX": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for host in hosts:
        out, err = host.communicate(timeout=300)
        assert host.returncode == 0, err
        wanted = [[0, 1, 2, 3, 4, 5], [[0.5] * 2] * 3 + [[1.5] * 2] * 3, [True, False] * 3]
        assert out.strip().splitlines()[-1] == f"{wanted} bool"
