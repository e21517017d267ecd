"""Levels drawn by the size of their losses (Nichol and Dhariwal 2021, section 3.3)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

REMEMBERED = 10
"""Losses of each level; before every level has so many, levels are drawn evenly."""

_EVEN = 0.001
"""Share of the draws that is even in any case."""


class History(NamedTuple):
    """The newest losses of each level."""

    losses: jax.Array
    """`[N, REMEMBERED]`, in the order of a ring."""
    counts: jax.Array
    """How many losses each level has had, int32 `[N]`."""


def empty(levels: int) -> History:
    """Returns the history before training."""
    return History(jnp.zeros((levels, REMEMBERED)), jnp.zeros(levels, jnp.int32))


def probabilities(history: History) -> jax.Array:
    """Returns the probability of each level, `[N]`."""
    levels = len(history.counts)
    size = jnp.sqrt(jnp.mean(history.losses**2, axis=1))
    share = size / jnp.maximum(jnp.sum(size), 1e-30)
    share = (1 - _EVEN) * share + _EVEN / levels
    warm = jnp.all(history.counts >= REMEMBERED)
    return jnp.where(warm, share, 1 / levels)


def draw(history: History, count: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns levels, int32 `[count]`, and the weights that make their losses'
    mean an unbiased estimate of the mean over all levels."""
    chance = probabilities(history)
    level = jax.random.categorical(key, jnp.log(chance), shape=(count,))
    return level, 1 / (len(chance) * chance[level])


def remember(history: History, level: jax.Array, losses: jax.Array) -> History:
    """Returns the history with unweighted losses `[B]` of levels `[B]`."""

    def add(history: History, entry: tuple[jax.Array, jax.Array]):
        level, loss = entry
        place = history.counts[level] % REMEMBERED
        return History(
            history.losses.at[level, place].set(loss),
            history.counts.at[level].add(1),
        ), None

    return jax.lax.scan(add, history, (level, losses))[0]
