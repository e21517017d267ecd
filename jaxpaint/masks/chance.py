"""Many random numbers of different shapes and bounds out of one key.

Each use of a key costs a third of a second of compile time on CPU, and a mask needs up
to eight random quantities, so all are cut out of one array of uniform numbers.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def chances(key: jax.Array, *shapes: tuple[int, ...]) -> list[jax.Array]:
    """Returns float32 arrays of these shapes, uniform in [0, 1)."""
    sizes = [math.prod(shape) for shape in shapes]
    flat = jax.random.uniform(key, (sum(sizes),))
    # Without the barrier the compiler draws the numbers anew wherever one is used.
    parts = jnp.split(jax.lax.optimization_barrier(flat), np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def whole(chance: jax.Array, low: int | jax.Array, high: int | jax.Array) -> jax.Array:
    """Returns the uniform int32 from `low` to `high`, both included, at each `chance`.

    Ranges up to 2**16 are uniform to 1 %.

    Args:
      chance: uniform in [0, 1).
      low: least value; broadcasts with `chance`, of the same rank or a scalar.
      high: greatest value, likewise.
    """
    return low + jnp.floor(chance * (high - low + 1)).astype(jnp.int32)
