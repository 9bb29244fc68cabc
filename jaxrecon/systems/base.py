"""What a system is to the rest of the house: settings, and pure functions over pytrees.

A system is one paper. The training loop, the evaluation and the doors call only the methods
below, so that none of them knows a paper, and a system knows neither files nor devices.

`variables` is a dictionary of three collections:

    params       what the optimiser trains
    batch_stats  running statistics, replaced by `Aux.state` after every training step
    constants    never trained and never saved: the arrays of a body model, which may be licensed

The data classes here carry `Leaf` fields and no checked shapes: tree functions of JAX rebuild
them around `None`, shape structs and replicated arrays. The shapes are in their docstrings.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrecon.typing import Array

Leaf = Any  # an array, in whatever form a tree function of JAX passes through
Batch = Mapping[str, Any]  # name -> array with a leading axis B; see data/ for the names
Variables = Mapping[str, Any]


@struct.dataclass
class Aux:
    """What a loss returns beside its value.

    Attributes:
      metrics: name -> scalar; logged and watched for non-finite values.
      state: the new `batch_stats` collection ({} if the system has none).
    """

    metrics: dict[str, Leaf]
    state: dict[str, Leaf]


@struct.dataclass
class Prediction:
    """What a body system says about a batch of crops.

    A history of predictions (see `Adaptation`) has one more leading axis, the steps.

    Attributes:
      vertices: (B, V, 3) metres, orientation of the camera frame (x right, y down, z forward),
        without translation.
      joints3d: (B, J, 3) metres, the joints of the same mesh (SPIN's 49 for bodies).
      keypoints2d: (B, J, 2) pixels of the full image, the projection of `joints3d + transl`.
      rotmats: (B, 24, 3, 3) rotations of the joints, the root in the camera frame.
      betas: (B, 10) shape.
      cam: (B, 3) weak perspective camera (scale, x, y) of the crop.
      transl: (B, 3) metres; `vertices + transl` is in the frame of the full-image camera.
      focal_length: (B,) pixels of that camera; its centre is the image's centre.
    """

    vertices: Leaf
    joints3d: Leaf
    keypoints2d: Leaf
    rotmats: Leaf
    betas: Leaf
    cam: Leaf
    transl: Leaf
    focal_length: Leaf


@struct.dataclass
class Adaptation:
    """What test-time optimisation did to a batch.

    Attributes:
      variables: the adapted variables; `predict` takes them. Where every image adapts by itself,
        the collections that changed have a leading axis B and `predict` of the system knows it.
      history: a `Prediction` whose leaves have a leading axis (steps + 1): before any step, and
        after each.
      losses: (steps + 1, B) or (steps + 1,), the objective at each of these.
      chosen: (B,), the index in the history of the state that the system's own rule keeps; None
        where it has no rule but to take the last.
    """

    variables: Leaf
    history: Leaf
    losses: Leaf
    chosen: Leaf = None


def pick_each(history: Any, chosen: Any) -> Any:
    """Of a history with leaves (steps + 1, B, ...), the chosen (B,) state of each example."""

    def pick(x: Any) -> Any:
        index = jnp.asarray(chosen).reshape((1, -1) + (1,) * (x.ndim - 2))
        return jnp.take_along_axis(x, index, axis=0)[0]

    return jax.tree.map(pick, history)


@dataclasses.dataclass(frozen=True)
class System(abc.ABC):
    """Settings of one paper's method, with its pure functions.

    Attributes:
      axis_name: the mapped axis over which losses, metrics and batch statistics reduce, or None
        on one device. `training.parallel` sets it (`dataclasses.replace`) and averages the
        gradients of `loss` over it. A gradient taken *inside* a loss (an inner step of
        meta-learning) is the system's own: average it over the axis as well.
    """

    axis_name: str | None = dataclasses.field(default=None, kw_only=True)

    @classmethod
    @abc.abstractmethod
    def from_config(cls, config: Any) -> "System":
        """The system that a resolved config describes; unknown choices raise UserError."""

    @abc.abstractmethod
    def constants(self) -> dict[str, Any]:
        """The `constants` collection alone: what a checkpoint leaves out."""

    @abc.abstractmethod
    def init(self, rng: Array, batch: Batch) -> dict[str, Any]:
        """Fresh variables (all three collections) for batches shaped like this one."""

    def prepare(
        self, variables: Variables, rng: Array, report: Callable[[int, int, float], None]
    ) -> Variables:
        """What a system learns without data before its first batch; nothing, unless it says so.

        Args:
          variables: fresh, or those a training starts from.
          report: called now and then with (steps done, steps, loss).
        """
        return variables

    @abc.abstractmethod
    def loss(
        self, variables: Variables, batch: Batch, rng: Array, train: bool
    ) -> tuple[Array, Aux]:
        """The training objective, a scalar, differentiable in `variables["params"]`.

        Every reduction over the batch must also reduce over `axis_name`, so that the value is
        that of the global batch on every device.
        """

    @abc.abstractmethod
    def predict(self, variables: Variables, batch: Batch) -> Any:
        """One forward pass without randomness; `Prediction` for bodies."""

    def adapt(self, variables: Variables, batch: Batch, steps: int) -> Adaptation:
        """Test-time optimisation on what the batch shows (never on its 3D labels).

        Args:
          variables: as trained; they are not changed.
          batch: crops with 2D evidence.
          steps: static; 0 adapts nothing and returns a history of one.
        """
        raise NotImplementedError(f"{type(self).__name__} has no test-time optimisation")

    @abc.abstractmethod
    def evaluate(self, variables: Variables, prediction: Any, batch: Batch) -> dict[str, Array]:
        """Metrics of each example: name -> (B,). NaN where an example has no label for it.

        `variables` brings the constants, such as the body that makes the ground-truth mesh.
        """

    def baseline(self, variables: Variables, batch: Batch) -> Any:
        """The prediction that uses no evidence (a mean pose), to be beaten; None: there is none."""
        return None

    def protocol(self) -> dict[str, Any]:
        """How `evaluate` measures, in words: joint set, regressor, root, alignment, units."""
        return {}

    @abc.abstractmethod
    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser of `params`."""
