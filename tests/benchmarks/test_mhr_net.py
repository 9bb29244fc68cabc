"""MHR-Net's training step, batch 128, against PyTorch; epochs on the device."""

import jax
import numpy as np
import pytest

from jaxrecon.config import load_config
from jaxrecon.systems.mhr_net import MHRNet, Noise
from jaxrecon.systems.mhr_net.likelihood import fit_views
from jaxrecon.systems.mhr_net.published import to_state_dict
from jaxrecon.training.epochs import epoch_function
from jaxrecon.training.parallel import step_function
from jaxrecon.training.state import create_state, variables_of
from tests.benchmarks.pairs import race

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

BATCH, STEPS = 128, 10
PRESETS = ["mhrnet", "mhrnet:paper"]
ON = {"align": np.bool_(True), "procrust": np.float32(1)}  # both losses, as in any epoch


def system_of(preset: str) -> MHRNet:
    return MHRNet.from_config(load_config(preset))


def named(system: MHRNet) -> str:
    return f"{system.width} wide, {system.blocks} blocks, {system.optimizer_name}"


def poses(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = (0.08 * rng.normal(size=(count, 17, 2))).astype(np.float32)
    return points - points[:, :1]


def noises(system: MHRNet, count: int) -> list[Noise]:
    draw = jax.jit(lambda key: system.draw(key, BATCH))
    return [jax.device_get(draw(jax.random.PRNGKey(number))) for number in range(count)]


def to_torch(noise: Noise) -> list["torch.Tensor"]:
    fields = (noise.z, noise.axis, noise.angle, noise.permutation, noise.view)
    return [torch.from_numpy(np.array(field)) for field in fields if field is not None]


@pytest.mark.parametrize("dense", [False, True], ids=["convolutions", "linear"])
@pytest.mark.parametrize("preset", PRESETS)
def test_training_step(benchmark, preset, dense):
    """Ours as training runs it: the steps of an epoch as one compiled scan, noise drawn in it.

    PyTorch's step is given its noise for nothing.
    """
    from tests.benchmarks.torch_mhr_net import MHRNet as Theirs
    from tests.benchmarks.torch_mhr_net import trainer

    system = system_of(preset)
    optimizer = system.optimizer()
    data = poses(STEPS * BATCH)
    epoch = epoch_function(system, optimizer, BATCH, False)
    on_device = jax.device_put({"keypoints2d": data})
    constants = {"views": fit_views(poses(7000))} if system.w_likely else {}
    held = {"state": create_state(system, optimizer, system.example(), 0)}
    variables = jax.tree.map(np.array, variables_of(held["state"], constants))

    def ours():
        held["state"], metrics = epoch(
            held["state"], constants, on_device, ON, jax.random.PRNGKey(0)
        )
        return metrics

    module = Theirs(system, dense).load(to_state_dict(variables)).train()
    module.views = jax.tree.map(torch.from_numpy, variables["constants"].get("views", {}))
    theirs = trainer(module)
    drawn = noises(system, STEPS)
    batches = [
        [torch.from_numpy(rows), *to_torch(noise)]
        for rows, noise in zip(data.reshape(STEPS, BATCH, 17, 2), drawn, strict=True)
    ]

    # It is the same network with the same objective.
    given = jax.device_put({"keypoints2d": data[:BATCH], "noise": drawn[0], **ON})
    want = jax.jit(lambda v: system.loss(v, given, jax.random.PRNGKey(0), True)[0])(variables)
    assert float(module(*batches[0]).detach()) == pytest.approx(float(want), rel=1e-4)

    race(
        benchmark,
        ours,
        lambda: [theirs(*batch) for batch in batches],
        what=f"MHR-Net, {STEPS} training steps of {BATCH} poses, {named(system)}",
        against=f"PyTorch {torch.__version__}, "
        + ("written with linear layers" if dense else "1x1 convolutions as published"),
        rounds=5,
        at_least_faster=3.0,
        strict=False,
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_epoch_on_the_device(benchmark, preset):
    """Poses/s of an epoch as one scan, against a loop of compiled steps fed by the host."""
    system = system_of(preset)
    optimizer = system.optimizer()
    count = (40 if system.width < 1024 else 8) * BATCH
    data = poses(count)
    epoch = epoch_function(system, optimizer, BATCH, False)
    step = jax.jit(step_function(system, optimizer, None), donate_argnums=0)
    on_device = jax.device_put({"keypoints2d": data})
    held = {
        "scan": create_state(system, optimizer, system.example(), 0),
        "loop": create_state(system, optimizer, system.example(), 0),
    }
    order = np.random.default_rng(0)

    def scan():
        held["scan"], metrics = epoch(held["scan"], {}, on_device, ON, jax.random.PRNGKey(0))
        return metrics

    def loop():
        metrics = None
        for rows in order.permutation(count).reshape(-1, BATCH):
            held["loop"], metrics = step(held["loop"], {}, {"keypoints2d": data[rows], **ON})
        return metrics

    race(
        benchmark,
        scan,
        loop,
        what=f"MHR-Net, an epoch of {count:,} poses on the device, {named(system)}",
        against="the same steps one by one from the host",
        rounds=5,
    )
    rate = count / (benchmark.extra_info["ours_ms"] / 1000)
    benchmark.extra_info["what"] += f": {rate:,.0f} poses/s"
    print(f"{rate:,.0f} poses/s")
