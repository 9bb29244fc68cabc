"""The optimiser of MHR-Net and its learning rate (spec mhr_net, section 5)."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from jaxrecon.typing import Array

if TYPE_CHECKING:
    from jaxrecon.systems.mhr_net.system import MHRNet


def optimizer(system: "MHRNet") -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay, or Adam with decoupled decay."""
    # A layer without gradient is not decayed either.
    decay = optax.add_decayed_weights(system.weight_decay, _trained)
    rate = optax.scale_by_learning_rate(system.rate_at)
    if system.optimizer_name == "sgd":
        return optax.chain(decay, optax.trace(system.momentum), rate)
    return optax.chain(optax.scale_by_adam(), decay, rate)


def rate_at(system: "MHRNet", step: Any) -> Array:
    """The learning rate in force at an optimiser step (from 0)."""
    if not system.steps_per_epoch:
        return jnp.asarray(system.rate, jnp.float32)
    if system.cosine_epochs:
        share = jnp.clip(step / (system.cosine_epochs * system.steps_per_epoch), 0.0, 1.0)
        return system.rate * 0.5 * (1 + jnp.cos(jnp.pi * share))
    halvings = step // (system.steps_per_epoch * system.decay_every)
    return system.rate * jnp.float32(system.decay) ** halvings


def _trained(params: Any) -> Any:
    return {
        name: jax.tree.map(lambda _: name != "trans_layer", tree)  # noqa: B023
        for name, tree in params.items()
    }
