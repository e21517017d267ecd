"""Gradients and parameter updates, from which methods build their training steps.

The order in a step: `gradients` of the loss at a `Network` that `begin` made, then
`update`, then, where there is one, `moving_average`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxpaint.config import Optim
from jaxpaint.types import Batch, Metrics, Params


class Network(NamedTuple):
    """A network in training: a pytree."""

    params: Params
    """Float32 parameters, linen's collection `params`."""
    stats: Params
    """Running statistics, linen's collection `batch_stats`; `{}` without any."""
    opt_state: Any

    def variables(self) -> dict[str, Params]:
        """Returns what linen's `apply` takes."""
        stats = {"batch_stats": self.stats} if self.stats else {}
        return {"params": self.params, **stats}


Loss = Callable[
    [Params, Params, Batch, jax.Array], tuple[jax.Array, tuple[Params, Metrics]]
]
"""`(params, stats, batch, key) -> (scalar, (new stats, metrics))`."""


def schedule(optim: Optim, factor: float = 1.0) -> optax.Schedule:
    """Returns the learning rate as a function of the step: warm-up, then cosine."""
    peak = optim.lr * factor
    if optim.decay_steps:
        after = optax.cosine_decay_schedule(
            peak, max(optim.decay_steps - optim.warmup_steps, 1), optim.final_lr
        )
    else:
        after = optax.constant_schedule(peak)
    if not optim.warmup_steps:
        return after
    rise = optax.linear_schedule(0.0, peak, optim.warmup_steps)
    return optax.join_schedules([rise, after], [optim.warmup_steps])


def optimizer(optim: Optim, factor: float = 1.0) -> optax.GradientTransformation:
    """Returns clipping by global norm, then Adam or AdamW.

    `factor` multiplies the learning rate, for the second network of a pair.
    """
    adam = optax.adamw(
        schedule(optim, factor),
        optim.b1,
        optim.b2,
        optim.eps,
        weight_decay=optim.weight_decay,
    )
    return _clipped(optim, adam)


def adadelta(
    optim: Optim, rho: float = 0.9, eps: float = 1e-6
) -> optax.GradientTransformation:
    """Returns clipping by global norm, then ADADELTA (Zeiler 2012).

    It finds its own step length; `optim.lr`, with its schedule, multiplies that and is
    1 in the paper. `optim.b1`, `b2` and `eps` are not used, nor is `weight_decay`.
    """
    return _clipped(optim, optax.adadelta(schedule(optim), rho, eps))


def _clipped(
    optim: Optim, transformation: optax.GradientTransformation
) -> optax.GradientTransformation:
    if not optim.clip_norm:
        return transformation
    return optax.chain(optax.clip_by_global_norm(optim.clip_norm), transformation)


def begin(
    variables: dict[str, Params], transformation: optax.GradientTransformation
) -> Network:
    """Returns the network that linen's `init` made, ready to train."""
    params = variables["params"]
    return Network(
        params, variables.get("batch_stats", {}), transformation.init(params)
    )


def gradients(
    loss: Loss, network: Network, batch: Batch, key: jax.Array, *, microbatches: int = 1
) -> tuple[Params, Params, Metrics]:
    """Returns the gradient of the mean loss of a batch, new statistics and metrics.

    With `microbatches`, the batch is cut into as many parts, one after the other, and
    gradients and metrics are averaged; batch statistics are those of each part. Part i
    takes every `microbatches`-th row, so that a batch sharded over devices stays where
    it is. Every mean over the batch must have equal weight per row.
    """

    def of_whole(
        params: Params, *rest: Any
    ) -> tuple[jax.Array, tuple[Params, Metrics]]:
        return loss(gathered(params), *rest)

    differentiate = jax.value_and_grad(of_whole, has_aux=True)
    if microbatches == 1:
        (_, (stats, metrics)), grads = differentiate(
            network.params, network.stats, batch, key
        )
        return grads, stats, metrics

    def part(x: jax.Array) -> jax.Array:
        rows = x.reshape(x.shape[0] // microbatches, microbatches, *x.shape[1:])
        return jnp.moveaxis(rows, 1, 0)

    def add(carry, inputs):
        stats, total, metrics = carry
        rows, key = inputs
        (_, (stats, more)), grads = differentiate(network.params, stats, rows, key)
        total, metrics = jax.tree.map(jnp.add, (total, metrics), (grads, more))
        return (stats, total, metrics), None

    parts = jax.tree.map(part, batch)
    keys = jax.random.split(key, microbatches)
    first = jax.tree.map(lambda x: x[0], (parts, keys))
    shapes = jax.eval_shape(loss, network.params, network.stats, *first)[1][1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    start = (network.stats, jax.tree.map(jnp.zeros_like, network.params), zeros)
    (stats, total, metrics), _ = jax.lax.scan(add, start, (parts, keys))
    grads, metrics = jax.tree.map(lambda x: x / microbatches, (total, metrics))
    return grads, stats, metrics


def gathered(params: Params) -> Params:
    """Returns parameters that may be cut over devices as whole ones on each.

    Otherwise the compiler might cut activations along channels instead, which moves
    them between devices, over and over. Gradients take the way back. `gradients` does
    this for its network; a loss that looks at another network does it for that.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return params
    return jax.lax.with_sharding_constraint(params, jax.sharding.PartitionSpec())


def update(
    network: Network,
    grads: Params,
    stats: Params,
    transformation: optax.GradientTransformation,
) -> Network:
    """Returns the network after one step of its optimizer."""
    change, opt_state = transformation.update(grads, network.opt_state, network.params)
    return Network(optax.apply_updates(network.params, change), stats, opt_state)


def norm(tree: Params) -> jax.Array:
    """Returns the Euclidean norm of all leaves together.

    As inner products: with squares, as `optax.global_norm` has them, the compiler would
    write them out in full, to share them with Adam.
    """

    def square(x: jax.Array) -> jax.Array:
        axes = tuple(range(x.ndim))
        return jax.lax.dot_general(
            x, x, ((axes, axes), ((), ())), jax.lax.Precision.HIGHEST, jnp.float32
        )

    return jnp.sqrt(sum(square(x) for x in jax.tree.leaves(tree)))


def first_average(variables: Params, optim: Optim) -> Params:
    """Returns what the moving average of variables starts from, `{}` without one.

    A copy: a training step gives the memory of both away, which must not be the same.
    """
    return jax.tree.map(jnp.array, variables) if optim.ema_decay else {}


def moving_average(
    average: Params, new: Params, decay: float, step: jax.Array
) -> Params:
    """Returns the exponential moving average, quicker to move in the first steps.

    The decay in force is `min(decay, (1 + step) / (10 + step))` with `step` counted
    from 0. Where there is no average, `{}`, none comes of it.
    """
    if not jax.tree.leaves(average):
        return average
    step = step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, x: old * keep + x * (1 - keep), average, new)
