"""One training step as a pure function, with everything random drawn on the device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxpaint import methods
from jaxpaint.types import Batch, Method, Metrics, State

FINE = -1


class TrainState(NamedTuple):
    """All that a run must remember."""

    step: jax.Array
    """Steps done, int32."""
    inner: State
    """The method's own state."""


class Tally(NamedTuple):
    """Metrics since the last report, added up on the device."""

    sums: Metrics
    steps: jax.Array
    bad_step: jax.Array
    """First step with a metric that is not finite; `FINE` if there was none."""
    bad_metric: jax.Array
    """Number of that metric in sorted order."""


def empty_tally(names: list[str]) -> Tally:
    """Returns the tally of no step."""
    return Tally(
        {name: jnp.zeros(()) for name in names},
        jnp.zeros((), jnp.int32),
        jnp.full((), FINE, jnp.int32),
        jnp.zeros((), jnp.int32),
    )


def add(tally: Tally, metrics: Metrics, step: jax.Array) -> Tally:
    """Returns the tally with the metrics of one more step."""
    bad = jnp.stack([~jnp.isfinite(metrics[name]) for name in sorted(metrics)])
    first = jnp.any(bad) & (tally.bad_step == FINE)
    return Tally(
        {
            name: tally.sums[name] + metrics[name].astype(jnp.float32)
            for name in metrics
        },
        tally.steps + 1,
        jnp.where(first, step, tally.bad_step),
        jnp.where(first, jnp.argmax(bad).astype(jnp.int32), tally.bad_metric),
    )


def initial(method: Method, image_size: int, seed: int) -> Callable[[], TrainState]:
    """Returns the function that makes the state before the first step."""

    def init() -> TrainState:
        key = jax.random.fold_in(jax.random.key(seed), 0)
        inner = method.init(key, methods.example(image_size))
        return TrainState(jnp.zeros((), jnp.int32), inner)

    return init


def make(
    method: Method, draw: Callable[[jax.Array, jax.Array], Batch], seed: int
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Returns `(state, images) -> (state, metrics)`.

    `draw` is `(images, key) -> batch`: augmentation and masks. The key of a step
    follows from the seed and the number of the step, so that a run that was interrupted
    goes on as if it had not been.
    """
    train_step = method.train_step
    if train_step is None:
        raise ValueError("the method has no training step")

    def step(state: TrainState, images: jax.Array) -> tuple[TrainState, Metrics]:
        # Number 0 is the key of the initial state.
        key = jax.random.fold_in(jax.random.key(seed), state.step + 1)
        draw_key, key = jax.random.split(key)
        inner, metrics = train_step(state.inner, draw(images, draw_key), key)
        return TrainState(state.step + 1, inner), metrics

    return step
