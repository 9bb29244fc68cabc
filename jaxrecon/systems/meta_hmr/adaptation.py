"""Test-time optimisation of Meta-HMR (spec 6.1): fit the network, not the body, to the image.

A first plain step moves the five linear layers down the dual loss (2D keypoints and the pseudo
body of the auxiliary network); then Adam moves the whole main network down the 2D loss alone.
Batch statistics are frozen and nothing is dropped.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxrecon.errors import UserError
from jaxrecon.geometry.cameras import apply_affine
from jaxrecon.networks.hmr import Regression
from jaxrecon.systems.base import Adaptation, Batch, Variables
from jaxrecon.typing import Array

if TYPE_CHECKING:
    from jaxrecon.systems.meta_hmr.system import MetaHMR

Params = Any


@dataclasses.dataclass(frozen=True)
class AdaptSettings:
    """Settings of test-time optimisation (spec 6.1).

    Attributes:
        inner_lr: Rate of the first, plain, step of the five linear layers on the dual loss.
        after_lr: Rate of the later steps.
        optimizer: "adam" (the whole main network) or "sgd" (plain steps, linear layers only).
        dual_step: Take the first step on the dual loss; otherwise every step is Adam's.
        stop_change: Stop after the step whose loss changed by less than this; 0 never stops.
        per_image: Every image adapts weights of its own (the paper) instead of the batch
            sharing one set (the published code).
        openpose: Fit OpenPose's joints instead of the annotated ones.
        always_pseudo: Use the pseudo labels in the dual loss whatever labels the samples carry,
            which photographs without annotation need (quirk 7).
        dual_every_step: Descend the dual loss in the later steps too (the paper's algorithm,
            quirk 6).
        keypoint_noise, prior_deviation: Of the rule that picks the state to keep, see
            `adaptation.most_probable_state`: a share of the crop's height, and metres.
    """

    inner_lr: float = 1e-5
    after_lr: float = 1e-5
    optimizer: str = "adam"
    dual_step: bool = True
    stop_change: float = 0.0
    per_image: bool = False
    openpose: bool = False
    always_pseudo: bool = False
    dual_every_step: bool = False
    keypoint_noise: float = 0.02
    prior_deviation: float = 0.1

    def __post_init__(self) -> None:
        for name in ("keypoint_noise", "prior_deviation"):
            if getattr(self, name) <= 0:
                raise UserError(f"tto.{name}={getattr(self, name)}; it must be above 0")


_ON_CPU = 4


@flax.struct.dataclass
class Trace:
    """What happened in `steps + 1` updates, or fewer after an early stop.

    Attributes:
        params: Parameters of the main network at the end.
        regressions: `Regression` with a leading axis (updates + 1): before every update, and
            at the end. After an early stop the last one repeats.
        loss2d: (updates,) the 2D loss before each update, NaN after a stop.
        objective: (updates,) the loss that was descended.
        steps_run: () how many updates were made.
    """

    params: Any
    regressions: Any
    loss2d: Any
    objective: Any
    steps_run: Any


def _objectives(system: "MetaHMR", variables: Variables, batch: Batch, dual: bool) -> Any:
    """Functions of the main network's parameters, and of its head's and given features.

    Both give the objective, and (2D loss, regression).
    """
    constants, stats = variables["constants"], variables["batch_stats"]
    body = constants["neutral"]
    image = batch["image"]
    pseudo = None
    if dual:
        features = system.features("aux", variables, image)
        pseudo = system.embody(
            body,
            system.regress(
                "aux", variables["params"]["aux"]["head"], stats["aux"]["head"], features, batch
            ),
        )

    def objective(params: Params) -> tuple[Array, tuple[Array, Regression]]:
        with_params = {"params": {"main": params}, "batch_stats": stats}
        features = system.features("main", with_params, image)
        return from_features(params["head"], features)

    def from_features(head: Params, features: Array) -> tuple[Array, tuple[Array, Regression]]:
        regression = system.regress("main", head, stats["main"]["head"], features, batch)
        if pseudo is None:
            # The 2D loss needs joints only; a body with the loss's vertices is enough.
            found = system.embody(constants["joints"], regression)
            loss2d = system.keypoint_loss(found.joints, regression.cam, batch, True)
            return loss2d, (loss2d, regression)
        found = system.embody(body, regression)
        terms = system.pseudo_terms(found, pseudo, batch, test_time=True)
        return system.weighted(terms), (terms["keypoints2d"], regression)

    return objective, from_features


def _descend_head(params: Params, gradient: Params, rate: float) -> Params:
    head = jax.tree.map(lambda p, g: p - rate * g, params["head"], gradient)
    return {**params, "head": head}


def test_time_optimise(
    system: "MetaHMR", variables: Variables, batch: Batch, last_step: int
) -> Trace:
    """Updates k = 0 ... `last_step` of the published routine, the batch being one unit.

    Args:
        last_step: The published `test_val_step`: with the dual step, as many further steps
            follow; without it, one more Adam step is made.
    """
    settings = system.test_time
    params = variables["params"]["main"]
    stats = variables["batch_stats"]
    later_dual = settings.dual_every_step
    objective, from_features = _objectives(system, variables, batch, dual=later_dual)
    main_features = system.features("main", variables, batch["image"])
    losses2d: list[Array] = []
    objectives: list[Array] = []
    regressions: list[Regression] = []

    if settings.dual_step:
        dual = from_features
        if not later_dual:
            _, dual = _objectives(system, variables, batch, dual=True)
        (value, (loss2d, regression)), gradient = jax.value_and_grad(dual, has_aux=True)(
            params["head"], main_features
        )
        params = _descend_head(params, gradient, settings.inner_lr)
        losses2d, objectives, regressions = [loss2d], [value], [regression]
        previous = value
    else:
        previous = jnp.asarray(jnp.inf)
    later = last_step + 1 - len(losses2d)
    plain = settings.optimizer == "sgd"
    adam = optax.adam(settings.after_lr)

    def update(params: Params, moments: Any) -> tuple[Params, Any, Array, Any]:
        if plain:
            # Plain steps move the linear layers only, so the features stay what they are.
            (value, seen), gradient = jax.value_and_grad(from_features, has_aux=True)(
                params["head"], main_features
            )
            return _descend_head(params, gradient, settings.after_lr), moments, value, seen
        (value, seen), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        change, moments = adam.update(gradient, moments)
        return optax.apply_updates(params, change), moments, value, seen

    def step(carry: Any, _: None) -> tuple[Any, Any]:
        params, moments, previous, done, last = carry

        def run(_: Any) -> Any:
            new, new_moments, value, (loss2d, regression) = update(params, moments)
            stop = jnp.abs(previous - value) < settings.stop_change
            return (new, new_moments, value, stop, regression), (value, loss2d, regression, True)

        def rest(_: Any) -> Any:
            nothing = jnp.nan * previous
            return (params, moments, previous, done, last), (nothing, nothing, last, False)

        # Without an early stop there is nothing to choose, and nothing to compile twice.
        if settings.stop_change > 0 and not plain:
            return lax.cond(done, rest, run, None)
        return run(None)

    first = jax.eval_shape(lambda p: from_features(p["head"], main_features)[1][1], params)
    last = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    moments = () if plain else adam.init(params)
    carry = (params, moments, previous, jnp.asarray(False), last)
    carry, (values, later2d, trail, ran) = lax.scan(step, carry, None, length=later)
    params = carry[0]

    final_features = main_features
    if not plain and later > 0:
        final_features = system.features(
            "main", {"params": {"main": params}, "batch_stats": stats}, batch["image"]
        )
    final = system.regress("main", params["head"], stats["main"]["head"], final_features, batch)
    # After a stop nothing changes any more: the final state stands for all later ones.
    trail = jax.tree.map(
        lambda x, y: jnp.where(ran.reshape((-1,) + (1,) * (x.ndim - 1)), x, y), trail, final
    )
    regressions_all = jax.tree.map(
        lambda last, rest, *first: jnp.concatenate([*(f[None] for f in first), rest, last[None]]),
        final,
        trail,
        *regressions,
    )
    return Trace(
        params=params,
        regressions=regressions_all,
        loss2d=jnp.concatenate([*(x[None] for x in losses2d), later2d]),
        objective=jnp.concatenate([*(x[None] for x in objectives), values]),
        steps_run=len(losses2d) + jnp.sum(ran),
    )


def adapt(system: "MetaHMR", variables: Variables, batch: Batch, steps: int) -> Adaptation:
    """`System.adapt`: the history has the state before any step and after each of `steps`.

    The dual step is part of the first one. `steps` = 14 is the published setting.
    """
    one = _adapt_images if system.test_time.per_image else _adapt_batch
    return one(system, variables, batch, steps)


def _adapt_batch(system: "MetaHMR", variables: Variables, batch: Batch, steps: int) -> Adaptation:
    trace, keep = _run(system, variables, batch, steps)
    history = jax.tree.map(lambda x: x[keep], trace.regressions)
    predictions = jax.vmap(lambda r: system.prediction(variables, r, batch))(history)
    params = {**variables["params"], "main": trace.params}
    return Adaptation(
        variables={**variables, "params": params}, history=predictions,
        losses=_losses(system, predictions, batch),
        chosen=most_probable_state(system, predictions, batch),
    )  # fmt: skip


def _adapt_images(system: "MetaHMR", variables: Variables, batch: Batch, steps: int) -> Adaptation:
    """Every image adapts weights of its own, many at once (see `images_at_once`)."""

    def single(example: Batch) -> tuple[Any, Any]:
        alone = jax.tree.map(lambda x: jnp.asarray(x)[None], dict(example))
        trace, keep = _run(system, variables, alone, steps)
        history = jax.tree.map(lambda x: x[keep, 0], trace.regressions)
        return trace.params, history

    count = len(batch["image"])
    together = images_at_once(count)
    if together < count:
        params, history = lax.map(single, dict(batch), batch_size=together)
    else:
        params, history = jax.vmap(single)(dict(batch))
    history = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), history)
    predictions = jax.vmap(lambda r: system.prediction(variables, r, batch))(history)
    shared = {**variables["params"], "main": params}
    return Adaptation(
        variables={**variables, "params": shared}, history=predictions,
        losses=_losses(system, predictions, batch),
        chosen=most_probable_state(system, predictions, batch),
    )  # fmt: skip


def images_at_once(count: int, backend: str | None = None) -> int:
    """How many of `count` images adapt side by side, each with weights and moments of its own.

    All of them where an accelerator has the bandwidth. On a CPU their arrays (400 MB an image with
    ResNet-50) come from memory at every step, so groups of up to four adapt one after another:
    the largest size that leaves no smaller rest, which would be compiled for itself.
    """
    if (backend or jax.default_backend()) != "cpu":
        return count
    return max(size for size in range(1, _ON_CPU + 1) if count % size == 0)


def _run(system: "MetaHMR", variables: Variables, batch: Batch, steps: int) -> tuple[Trace, Any]:
    """The routine with `steps` Adam steps, and which of its states are the history's."""
    dual = system.test_time.dual_step
    if steps == 0:
        frozen = dataclasses.replace(system.test_time, dual_step=False)
        system = dataclasses.replace(system, test_time=frozen)
        return test_time_optimise(system, variables, batch, -1), jnp.array([0])
    trace = test_time_optimise(system, variables, batch, steps if dual else steps - 1)
    # State 1 is after the dual step alone; the first step of the history includes it.
    keep = [0, *range(2, steps + 2)] if dual else list(range(steps + 1))
    return trace, jnp.array(keep)


def _losses(system: "MetaHMR", predictions: Any, batch: Batch) -> Array:
    """2D loss of every image at every step of the history, (steps + 1, B)."""

    def one(joints: Array, cam: Array, example: Batch) -> Array:
        alone = jax.tree.map(lambda x: jnp.asarray(x)[None], dict(example))
        return system.keypoint_loss(joints[None], cam[None], alone, True)

    per_image = jax.vmap(one, in_axes=(0, 0, 0))
    return jax.vmap(lambda p: per_image(p.joints3d, p.cam, dict(batch)))(predictions)


def most_probable_state(system: "MetaHMR", history: Any, batch: Batch) -> Array:
    """Which state of a history each image should keep: (B,), 0 being the one before any step.

    Adaptation trades what the network knows for what the keypoints say, and too much of it fits
    their errors. Of the states on its way the rule keeps the most probable one, were keypoints
    off by `keypoint_noise` (a share of the crop's height) and the network's first joints by
    `prior_deviation` metres, root on root:

        mean_j c_j |residual_j|^2 / noise^2 / mean_j c_j + mean_j |J_j - J_j(0)|^2 / deviation^2

    So it never keeps a state whose keypoints fit worse than those of the start. Our own; the
    published routine always takes the last state, and stops by the change of its loss.
    """
    settings = system.test_time
    height, _ = system.image_size
    half = slice(None, 25) if settings.openpose else slice(25, None)
    seen = jnp.asarray(batch["keypoints2d"])[:, half]
    into_crop = jax.vmap(apply_affine, (None, 0))
    found = into_crop(batch["crop_trans"], history.keypoints2d[:, :, half])
    residual = (found - seen[..., :2]) / height
    confidence = seen[..., 2]
    error = jnp.sum(confidence * jnp.sum(residual**2, -1), -1)
    error = error / jnp.maximum(jnp.sum(confidence, -1), 1e-6)
    joints = history.joints3d - jnp.mean(history.joints3d, axis=2, keepdims=True)
    moved = jnp.mean(jnp.sum((joints - joints[:1]) ** 2, -1), -1)
    cost = error / settings.keypoint_noise**2 + moved / settings.prior_deviation**2
    # A state that is no number is never the better one.
    return jnp.argmin(jnp.where(jnp.isfinite(cost), cost, jnp.inf), axis=0)
