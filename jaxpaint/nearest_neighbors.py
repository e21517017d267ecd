"""The nearest-neighbour field between two images by PatchMatch."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxpaint.errors import InputError
from jaxpaint.patch_search import JUMPS, Positions, patches, search

CHUNK = 1024
"""Patches treated at once: more leave the cache, fewer loop more often."""


class NearestNeighbors(NamedTuple):
    """For every patch of an image the most similar patch found in another."""

    position: jax.Array
    """`[B, H - P + 1, W - P + 1, 2]` int32: row and column of the match."""

    distance: jax.Array
    """`[B, H - P + 1, W - P + 1]`: sum of squared differences to the match."""


def nearest_neighbor_field(
    a: jax.Array,
    b: jax.Array,
    key: jax.Array,
    *,
    patch_size: int = 7,
    iterations: int = 5,
) -> NearestNeighbors:
    """Returns for each patch of `a` where the most similar patch found in `b` is.

    Patches are named by their top-left pixels. Matches start at random; each iteration
    spreads good matches over 8, 4, 2 and 1 pixels and searches at random around each
    match in squares from the size of `b` down to one pixel.

    Source: Barnes et al., PatchMatch, SIGGRAPH 2009. Deviation: all patches at once,
    by jump flooding, in place of a scan in raster order.

    Args:
      a: `[B, H, W, C]` in any unit; distances are in its square.
      b: `[B, H', W', C]`.
      key: random key, the same for each image of the batch.
      patch_size: side P of the square patches, in pixels.
      iterations: rounds of search; five are mostly within 10 % of the least distance.

    Raises:
      InputError: the images do not go together or are smaller than a patch.
    """
    if (
        a.ndim != 4
        or b.ndim != 4
        or (a.shape[0], a.shape[3]) != (b.shape[0], b.shape[3])
    ):
        raise InputError(
            f"a and b must be [B, H, W, C] with equal B and C; got {a.shape}, {b.shape}"
        )
    if patch_size < 1 or patch_size > min(*a.shape[1:3], *b.shape[1:3]):
        raise InputError(
            f"patch_size must be between 1 and the shortest side of {a.shape} and "
            f"{b.shape}; got {patch_size}"
        )
    if iterations < 1:
        raise InputError(f"iterations must be 1 or more; got {iterations}")
    return _field(a, b, key, patch_size, iterations)


@functools.partial(jax.jit, static_argnums=3)
def _field(
    a: jax.Array, b: jax.Array, key: jax.Array, size: int, iterations: jax.Array | int
) -> NearestNeighbors:
    rows, columns = a.shape[1] - size + 1, a.shape[2] - size + 1
    bounds = jnp.array([b.shape[1] - size + 1, b.shape[2] - size + 1])
    targets, _ = _all_positions(a.shape[1], a.shape[2], size)
    _, source = _all_positions(b.shape[1], b.shape[2], size)
    start_key, search_key = jax.random.split(key)

    def one(images: tuple[jax.Array, jax.Array]) -> NearestNeighbors:
        a, b = images

        def distance(at: jax.Array, candidate: jax.Array) -> jax.Array:
            difference = patches(a, at, size)[:, None] - patches(b, candidate, size)
            return jnp.sum(difference**2, axis=(-2, -1))

        shape = (2, targets.at.size)
        start = jax.random.randint(start_key, shape, 0, bounds[:, None])
        match, best = search(
            start[0] * b.shape[1] + start[1],
            targets,
            distance,
            source,
            search_key,
            passes=iterations * len(JUMPS),
            bounds=bounds,
            longest=max(b.shape[:2]) - size + 1,
            target_width=a.shape[1],
            chunk=CHUNK,
        )
        match = match[: rows * columns].reshape(rows, columns)
        position = jnp.stack([match // b.shape[1], match % b.shape[1]], axis=-1)
        return NearestNeighbors(position, best[: rows * columns].reshape(rows, columns))

    return lax.map(one, (a, b))


def _all_positions(height: int, width: int, size: int) -> tuple[Positions, jax.Array]:
    """Returns the list of all patches of an image, and `[H, W]` bool for the same."""
    rows, columns = height - size + 1, width - size + 1
    capacity = -(-rows * columns // CHUNK) * CHUNK
    index = jnp.minimum(jnp.arange(capacity), rows * columns - 1)
    at = index // columns * width + index % columns
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None]
    inside = (row < rows) & (column < columns)
    slot = jnp.where(inside, row * columns + column, capacity)
    count = jnp.int32(rows * columns)
    return Positions(at, slot.reshape(-1), count), inside
