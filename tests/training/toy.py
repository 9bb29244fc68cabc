"""A system small enough to train in a test, with everything that the loop must respect.

Run as a module it trains, so that tests can kill it or give it more devices:

    python -m tests.training.toy WORKDIR [--field=value ...]
"""

import dataclasses
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxrecon.systems.base import Aux, Batch, System, Variables
from jaxrecon.training.loop import train
from jaxrecon.training.parallel import host_count, host_index, initialize_hosts
from jaxrecon.typing import Array


@dataclasses.dataclass(frozen=True)
class ToySystem(System):
    """Linear regression behind a batch normalisation, with input noise while training."""

    rate: float = 0.05
    noise: float = 0.0
    poison_step: int = -1  # the batch with this number makes the loss NaN

    @classmethod
    def from_config(cls, config: Any) -> "System":
        return cls()

    def constants(self) -> dict[str, Any]:
        return {"offset": np.full((1,), 0.5, np.float32)}

    def init(self, rng: Array, batch: Batch) -> dict[str, Any]:
        size = batch["x"].shape[-1]
        return {
            "params": {"w": 0.1 * jax.random.normal(rng, (size, 1)), "b": jnp.zeros((1,))},
            "batch_stats": {"mean": jnp.zeros((size,)), "var": jnp.ones((size,))},
            "constants": self.constants(),
        }

    def loss(
        self, variables: Variables, batch: Batch, rng: Array, train: bool
    ) -> tuple[Array, Aux]:
        x = batch["x"] + self.noise * jax.random.normal(rng, batch["x"].shape)
        mean = self._mean(x.mean(0))
        var = self._mean((x**2).mean(0)) - mean**2
        params = variables["params"]
        y = (x - mean) / jnp.sqrt(var + 1e-5) @ params["w"] + params["b"]
        error = (y + variables["constants"]["offset"] - batch["y"]) ** 2
        # A masked mean: numerator and denominator reduce over all devices.
        loss = self._mean((error[:, 0] * batch["seen"]).sum()) / self._mean(batch["seen"].sum())
        loss = jnp.where(self._mean(batch["poison"].sum()) > 0, jnp.nan, loss)
        stats = variables["batch_stats"]
        state = {
            "mean": 0.9 * stats["mean"] + 0.1 * mean,
            "var": 0.9 * stats["var"] + 0.1 * var,
        }
        return loss, Aux(metrics={"loss_masked": loss, "bias": params["b"][0]}, state=state)

    def predict(self, variables: Variables, batch: Batch) -> Array:
        stats, params = variables["batch_stats"], variables["params"]
        x = (batch["x"] - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5)
        return (x @ params["w"] + params["b"] + variables["constants"]["offset"])[:, 0]

    def evaluate(self, variables: Variables, prediction: Any, batch: Batch) -> dict[str, Array]:
        return {"error": jnp.abs(prediction - batch["y"][:, 0])}

    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.rate)

    def _mean(self, value: Array) -> Array:
        return value if self.axis_name is None else jax.lax.pmean(value, self.axis_name)


class ToyBatches:
    """Endless batches, each a function of its number; the number is the position."""

    def __init__(self, size: int = 8, poison_step: int = -1, delay: float = 0.0) -> None:
        self._size, self._poison, self._delay, self._index = size, poison_step, delay, 0

    def __next__(self) -> dict[str, np.ndarray]:
        time.sleep(self._delay)
        self._index += 1
        batch = toy_batch(self._index, self._size, self._index == self._poison)
        share = self._size // host_count()  # this host's part of the global batch
        return {k: v[host_index() * share :][:share] for k, v in batch.items()}

    def get_state(self) -> dict[str, int]:
        return {"index": self._index}

    def set_state(self, state: dict[str, int]) -> None:
        self._index = state["index"]


def toy_batch(index: int, size: int, poisoned: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(index)
    x = rng.normal(size=(size, 3)).astype(np.float32)
    y = (x @ np.array([[1.0], [-2.0], [0.5]]) + 2.0).astype(np.float32)
    seen = (rng.uniform(size=size) < 0.7).astype(np.float32)
    seen[0] = 1.0
    return {"x": x, "y": y, "seen": seen, "poison": np.full((size,), float(poisoned), np.float32)}


def toy_evaluate(system: ToySystem) -> Any:
    batch = toy_batch(0, 16)
    score = jax.jit(lambda v: system.evaluate(v, system.predict(v, batch), batch)["error"].mean())
    return lambda variables: {"error": float(score(variables))}


def toy_config(**training: Any) -> ConfigDict:
    defaults = {
        "steps": 20,
        "batch_size": 8,
        "log_every": 5,
        "eval_every": 0,
        "checkpoint_every": 8,
        "keep_checkpoints": 2,
        "best_metric": "error",
        "seed": 0,
        "time_limit_minutes": 0.0,
        "tensorboard": False,
    }
    return ConfigDict({"training": {**defaults, **training}})


if __name__ == "__main__":
    initialize_hosts()
    workdir, *options = sys.argv[1:]
    fields = dict(option.removeprefix("--").split("=") for option in options)
    delay, noise = float(fields.pop("delay", 0)), float(fields.pop("noise", 0))
    toy = ToySystem(noise=noise)
    config = toy_config(**{name: int(value) for name, value in fields.items()})
    result = train(
        config,
        toy,
        ToyBatches(config.training.batch_size, delay=delay),
        workdir,
        toy_evaluate(toy) if config.training.eval_every else None,
    )
    sys.exit(143 if result.stopped else 0)
