"""Random walks that stay within bounds: the corners of strokes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def clipped(
    start: jax.Array, moves: jax.Array, low: int | jax.Array, high: jax.Array
) -> jax.Array:
    """Returns the corners of walks that stop at the bounds and go on from there.

    Args:
      start: int32 `[N, 2]`, row and column.
      moves: int32 `[N, K, 2]`, the way to the next corner.
      low: least row and column of a corner, int32 `[1, 2]` or a number.
      high: greatest row and column of a corner, int32 `[1, 2]`.

    Returns:
      int32 `[N, K + 1, 2]`, the start included.
    """
    return _walk(start, moves, lambda p, move: jnp.clip(p + move, low, high))


def turned_back(
    start: jax.Array, moves: jax.Array, low: jax.Array, high: jax.Array
) -> jax.Array:
    """Returns the corners of walks that turn round, per axis, where they would leave.

    Unlike `clipped` ones these do not run along the bounds. Arguments as there.
    """

    def step(point: jax.Array, move: jax.Array) -> jax.Array:
        end = point + move
        end = jnp.where((end < low) | (end > high), point - move, end)
        return jnp.clip(end, low, high)

    return _walk(start, moves, step)


def _walk(
    start: jax.Array,
    moves: jax.Array,
    step: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    def body(point: jax.Array, move: jax.Array) -> tuple[jax.Array, jax.Array]:
        end = step(point, move)
        return end, end

    _, ends = jax.lax.scan(body, start, jnp.moveaxis(moves, 1, 0))
    return jnp.concatenate([start[:, None], jnp.moveaxis(ends, 0, 1)], axis=1)
