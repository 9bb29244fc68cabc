"""MHR-Net's training step as published, batch 128, against PyTorch; epochs on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.systems.mhr_net import MHRNet, Noise
from jaxrecon.training.epochs import epoch_function
from jaxrecon.training.parallel import step_function
from jaxrecon.training.state import create_state
from tests.benchmarks.pairs import race

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

BATCH, JOINTS, PAIRS = 128, 17, 64
EPOCH = 40 * BATCH


def poses(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = (0.08 * rng.normal(size=(count, JOINTS, 2))).astype(np.float32)
    return points - points[:, :1]


def one_batch() -> tuple[np.ndarray, Noise]:
    rng = np.random.default_rng(1)
    noise = Noise(
        z=rng.normal(size=(3 * BATCH, 4)).astype(np.float32),
        axis=rng.normal(size=(4 * BATCH, 3)).astype(np.float32),
        angle=rng.uniform(0, np.pi, 4 * BATCH).astype(np.float32),
        permutation=rng.permutation(BATCH),
    )
    return poses(BATCH), noise


@pytest.mark.parametrize("dense", [False, True], ids=["convolutions", "linear"])
def test_training_step(benchmark, dense):
    from tests.benchmarks.torch_mhr_net import MHRNet as Theirs
    from tests.benchmarks.torch_mhr_net import trainer

    keypoints, noise = one_batch()
    system = MHRNet(pairs=PAIRS)
    optimizer = system.optimizer()
    state = create_state(system, optimizer, system.example(), 0)
    step = jax.jit(step_function(system, optimizer, None), donate_argnums=0)
    batch = jax.device_put({"keypoints2d": keypoints, "noise": noise})
    held = {"state": state}

    def ours():
        held["state"], metrics = step(held["state"], {}, batch)
        return metrics

    torch.manual_seed(0)
    theirs = trainer(Theirs(pairs=PAIRS, dense=dense).train())
    same = [torch.from_numpy(np.array(a)) for a in (keypoints, *jax.tree.leaves(noise))]

    race(
        benchmark,
        ours,
        lambda: theirs(*same),
        what=f"MHR-Net training step, 1024 wide, 6 blocks, batch {BATCH}",
        against=f"PyTorch {torch.__version__}, "
        + ("linear layers" if dense else "1x1 convolutions"),
        rounds=15,
        at_least_faster=3.0,
    )


@pytest.mark.parametrize("width, blocks", [(256, 2), (1024, 6)], ids=["default", "published"])
def test_epoch_on_the_device(benchmark, width, blocks):
    """Poses/s of an epoch as one scan, against a loop of compiled steps fed by the host."""
    system = MHRNet(width=width, blocks=blocks, pairs=PAIRS)
    optimizer = system.optimizer()
    data = poses(EPOCH)
    epoch = epoch_function(system, optimizer, BATCH, False)
    step = jax.jit(step_function(system, optimizer, None), donate_argnums=0)
    on_device = jax.device_put({"keypoints2d": data})
    flags = {"align": jnp.asarray(True), "procrust": jnp.asarray(1.0)}
    held = {
        "scan": create_state(system, optimizer, system.example(), 0),
        "loop": create_state(system, optimizer, system.example(), 0),
    }
    order = np.random.default_rng(0)

    def scan():
        held["scan"], metrics = epoch(held["scan"], {}, on_device, flags, jax.random.PRNGKey(0))
        return metrics

    def loop():
        metrics = None
        for rows in order.permutation(EPOCH).reshape(-1, BATCH):
            held["loop"], metrics = step(held["loop"], {}, {"keypoints2d": data[rows], **flags})
        return metrics

    race(
        benchmark,
        scan,
        loop,
        what=f"MHR-Net, {EPOCH:,} poses of an epoch on the device, {width} wide, {blocks} blocks",
        against="the same steps one by one from the host",
        rounds=5,
    )
    rate = EPOCH / (benchmark.extra_info["ours_ms"] / 1000)
    benchmark.extra_info["what"] += f": {rate:,.0f} poses/s"
    print(f"{rate:,.0f} poses/s")
