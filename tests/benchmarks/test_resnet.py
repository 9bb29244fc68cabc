"""The gradient of ResNet-50 in training mode, against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.networks.resnet import RESNETS, ResNet
from tests.benchmarks.pairs import race

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

BATCH = 8


@pytest.mark.parametrize("size", [(256, 192), (224, 224)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_resnet50_gradient(benchmark, size):
    from tests.benchmarks.torch_resnet import ResNet50

    image = np.random.default_rng(0).normal(size=(BATCH, *size, 3)).astype(np.float32)
    network = ResNet(RESNETS["resnet50"])
    variables = jax.jit(network.init)(jax.random.key(0), image[:1])
    params, stats = variables["params"], variables["batch_stats"]

    def loss(params, image):
        out, state = network.apply(
            {"params": params, "batch_stats": stats}, image, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(jnp.square(out["features"])), state

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params, image).compile()
    on_device = jnp.asarray(image)

    torch.manual_seed(0)
    module = ResNet50().train()
    torch_image = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())

    def torch_gradient():
        module.zero_grad(set_to_none=True)
        module(torch_image).square().mean().backward()

    race(
        benchmark,
        lambda: gradient(params, on_device),
        torch_gradient,
        what=f"ResNet-50 loss and gradient, batch {BATCH}, {size[0]}x{size[1]}, batch statistics",
        against=f"PyTorch {torch.__version__}",
        rounds=5,
        at_most=1.3,
    )
