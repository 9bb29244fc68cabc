"""The state of a training run: everything that a step reads and replaces."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrecon.systems.base import Batch, Leaf, System


@struct.dataclass
class TrainState:
    """A pytree; the same on every device.

    Attributes:
      step: () int32, the number of steps done.
      params: what the optimiser trains.
      batch_stats: running statistics.
      opt_state: state of `System.optimizer`.
      rng: (2,) uint32 key; step n uses `fold_in(rng, n)`, so it never changes.
    """

    step: Leaf
    params: Leaf
    batch_stats: Leaf
    opt_state: Leaf
    rng: Leaf


def create_state(
    system: System, optimizer: optax.GradientTransformation, batch: Batch, seed: int
) -> TrainState:
    """The state before the first step; compiled as one function, without the constants."""
    # It runs once: on a CPU the compiler's best takes four times as long as what it gains here.
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    create = jax.jit(_creation(system, optimizer), compiler_options=quick)
    return create(jax.random.PRNGKey(seed), dict(batch))


def state_shapes(
    system: System, optimizer: optax.GradientTransformation, batch: Batch
) -> TrainState:
    """The shapes of that state, without computing it."""
    return jax.eval_shape(_creation(system, optimizer), jax.random.PRNGKey(0), dict(batch))


def variables_of(state: TrainState, constants: dict[str, Any]) -> dict[str, Any]:
    """The variables that the methods of a System take."""
    return {"params": state.params, "batch_stats": state.batch_stats, "constants": constants}


def _creation(system: System, optimizer: optax.GradientTransformation) -> Any:
    def create(rng: Any, batch: Batch) -> TrainState:
        init_rng, step_rng = jax.random.split(rng)
        variables = system.init(init_rng, batch)
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
            rng=step_rng,
        )

    return create
