"""Everything that knows about devices and hosts.

One device: `jit` with a donated state. Several: `pmap` over an axis called "devices", the global
batch split over hosts and devices, gradients averaged over the axis. The system is told the name
of the axis, so that its losses and batch statistics are those of the global batch; the gradient
of such a loss, averaged over the devices, is then the gradient of the global batch, exactly.
"""

import collections
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrecon.errors import UserError
from jaxrecon.systems.base import Batch, System
from jaxrecon.training.state import TrainState, variables_of

AXIS = "devices"

Metrics = dict[str, Any]
StepFunction = Callable[[TrainState, dict[str, Any], Batch], tuple[TrainState, Metrics]]


@runtime_checkable
class BatchIterator(Protocol):
    """What the data gives: host batches, and a position that can be saved and taken up again."""

    def __next__(self) -> Mapping[str, Any]: ...

    def get_state(self) -> Any: ...

    def set_state(self, state: Any) -> None: ...


def initialize_hosts(asked: bool | None = None) -> None:
    """Joins this process to the others of a multi-host run, only when asked.

    Clusters (Slurm, TPU pods, Open MPI) are found by JAX. Elsewhere the variables
    JAX_COORDINATOR_ADDRESS, JAXRECON_PROCESS_COUNT and JAXRECON_PROCESS_INDEX say what to join.

    Args:
      asked: True or False decides; None reads the variable JAXRECON_DISTRIBUTED ("1" asks).

    Raises:
      UserError: asked for, but no cluster can be found.
    """
    if asked is None:
        asked = os.environ.get("JAXRECON_DISTRIBUTED", "") not in ("", "0")
    if not asked or jax.distributed.is_initialized():
        return
    count = os.environ.get("JAXRECON_PROCESS_COUNT")
    index = os.environ.get("JAXRECON_PROCESS_INDEX")
    try:
        jax.distributed.initialize(
            num_processes=None if count is None else int(count),
            process_id=None if index is None else int(index),
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"a multi-host run was asked for, but it cannot start: {error}; set "
            "JAX_COORDINATOR_ADDRESS, JAXRECON_PROCESS_COUNT and JAXRECON_PROCESS_INDEX, or leave "
            "--distributed out"
        ) from error


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices of this process, and how batches and states lie on them.

    Attributes:
      devices: local devices in use; more than one means `pmap`.
    """

    devices: tuple[Any, ...] = dataclasses.field(default_factory=lambda: tuple(jax.local_devices()))

    @property
    def mapped(self) -> bool:
        """Whether functions run under `pmap`, states and batches with a leading device axis."""
        return len(self.devices) > 1 or jax.process_count() > 1

    @property
    def global_count(self) -> int:
        return len(self.devices) * jax.process_count()

    def host_batch_size(self, batch_size: int) -> int:
        """How many examples of a global batch this host reads.

        Raises:
          UserError: the batch does not divide by the devices.
        """
        if batch_size % self.global_count:
            raise UserError(
                f"batch_size={batch_size} does not divide by the {self.global_count} devices; "
                f"the nearest that does is {_nearest_multiple(batch_size, self.global_count)}"
            )
        return batch_size // jax.process_count()

    def put_batch(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A host batch, split over the local devices; the copy runs beside the computation."""
        if not self.mapped:
            return jax.device_put(dict(batch), self.devices[0])
        count = len(self.devices)

        def split(array: Any) -> np.ndarray:
            array = np.asarray(array)
            if array.shape[0] % count:
                raise UserError(
                    f"a host batch of {array.shape[0]} does not divide by its {count} devices"
                )
            return array.reshape(count, -1, *array.shape[1:])

        return jax.device_put(jax.tree.map(split, dict(batch)), self._sharding())

    def put_each(self, batches: Sequence[Any]) -> Any:
        """One batch for each local device, for `each_device`."""
        if not self.mapped:
            return jax.device_put(dict(batches[0]), self.devices[0])
        stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *batches)
        return jax.device_put(stacked, self._sharding())

    def fetch_each(self, tree: Any) -> list[Any]:
        """What each local device computed, as NumPy."""
        if not self.mapped:
            return [jax.device_get(tree)]
        return [
            jax.tree.map(lambda x: np.asarray(x.addressable_shards[i].data)[0], tree)  # noqa: B023
            for i in range(len(self.devices))
        ]

    def fetch_first(self, tree: Any) -> Any:
        """What the first local device computed, as NumPy."""
        return jax.device_get(self.unreplicate(tree))

    def replicate(self, tree: Any) -> Any:
        """The same tree on every local device."""
        if not self.mapped:
            return jax.device_put(tree, self.devices[0])
        count = len(self.devices)
        host = jax.device_get(tree)
        return jax.device_put(
            jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), host),
            self._sharding(),
        )

    def unreplicate(self, tree: Any) -> Any:
        """The first copy of a replicated tree, as NumPy arrays where it was mapped."""
        if not self.mapped:
            return tree
        return jax.tree.map(_first_copy, tree)

    def fetch(self, metrics: Metrics) -> dict[str, float]:
        """Scalars that are equal on all devices, as floats; waits until they are computed."""
        host = jax.device_get(self.unreplicate(metrics))
        return {name: float(value) for name, value in host.items()}

    def train_step(self, system: System, optimizer: optax.GradientTransformation) -> StepFunction:
        """The compiled step: (state, constants, batch) -> (state, metrics). Donates the state."""
        if not self.mapped:
            return jax.jit(step_function(system, optimizer, None), donate_argnums=0)
        local = dataclasses.replace(system, axis_name=AXIS)
        return jax.pmap(
            step_function(local, optimizer, AXIS),
            axis_name=AXIS,
            donate_argnums=0,
            devices=self.devices if jax.process_count() == 1 else None,
        )

    def each_device(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a function without collectives: every device works on its own batch."""
        if not self.mapped:
            return jax.jit(function)
        return jax.pmap(function, devices=self.devices if jax.process_count() == 1 else None)

    def _sharding(self) -> NamedSharding:
        return NamedSharding(Mesh(np.array(self.devices), (AXIS,)), PartitionSpec(AXIS))


def step_function(
    system: System, optimizer: optax.GradientTransformation, axis: str | None
) -> StepFunction:
    """(state, constants, batch) -> (state, metrics), not compiled; for loops of their own."""

    def step(
        state: TrainState, constants: dict[str, Any], batch: Batch
    ) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(state.rng, state.step)
        if axis is not None:
            rng = jax.random.fold_in(rng, jax.lax.axis_index(axis))

        def objective(params: Any) -> tuple[Any, Any]:
            variables = {**variables_of(state, constants), "params": params}
            return system.loss(variables, batch, rng, True)

        (loss, aux), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        if axis is not None:
            loss, aux, grads = jax.lax.pmean((loss, aux, grads), axis)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {**aux.metrics, "loss": loss, "grad_norm": _norm(grads)}
        return (
            dataclasses.replace(
                state,
                step=state.step + 1,
                params=optax.apply_updates(state.params, updates),
                batch_stats=aux.state,
                opt_state=opt_state,
            ),
            {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()},
        )

    return step


class DeviceFeed:
    """Batches on their way to the devices, a few ahead of the step that uses them.

    Each comes with the position of the data *after* it, so that a checkpoint taken at that step
    continues with the next batch, whatever has been read ahead.
    """

    def __init__(self, batches: BatchIterator, placement: Placement, depth: int = 2) -> None:
        self._batches = batches
        self._placement = placement
        self._depth = depth
        self._queue: collections.deque[tuple[dict[str, Any], Any]] = collections.deque()

    def peek(self) -> dict[str, Any]:
        """The next batch as one device of it would see it, without taking it (for `init`)."""
        self._fill()
        if not self._queue:
            raise UserError("the data set gave not even one batch; is batch_size above its size?")
        batch = self._queue[0][0]
        if not self._placement.mapped:
            return batch
        return jax.tree.map(_first_copy, batch)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Any]]:
        return self

    def __next__(self) -> tuple[dict[str, Any], Any]:
        self._fill()
        if not self._queue:
            raise StopIteration
        return self._queue.popleft()

    def _fill(self) -> None:
        while len(self._queue) < self._depth:
            try:
                batch = next(self._batches)
            except StopIteration:
                return
            self._queue.append((self._placement.put_batch(batch), self._batches.get_state()))


def sum_over_hosts(values: Mapping[str, float]) -> dict[str, float]:
    """Adds each value over all hosts (names must agree); no change on a single host."""
    if jax.process_count() == 1:
        return dict(values)
    names = sorted(values)
    gathered = multihost_utils.process_allgather(np.array([values[n] for n in names], np.float64))
    return dict(zip(names, np.asarray(gathered).sum(axis=0).tolist()))


def join_hosts(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows of all hosts, one after another; as many of each host, of the same names.

    A single host's come back as they are.
    """
    if jax.process_count() == 1:
        return dict(rows)
    gathered = multihost_utils.process_allgather(dict(rows), tiled=True)
    return {name: np.asarray(value) for name, value in gathered.items()}


def host_count() -> int:
    """How many processes work on this run."""
    return jax.process_count()


def host_index() -> int:
    """Which of them this one is."""
    return jax.process_index()


def main_process() -> bool:
    """Whether this is the process that writes files and speaks."""
    return host_index() == 0


def agree(flag: bool) -> bool:
    """The first host's flag, on every host."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.broadcast_one_to_all(np.array(flag)))


def _norm(tree: Any) -> Any:
    return jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)))


def _first_copy(array: Any) -> np.ndarray:
    return np.asarray(array.addressable_shards[0].data)[0]


def _nearest_multiple(size: int, count: int) -> int:
    return max(count, round(size / count) * count)
