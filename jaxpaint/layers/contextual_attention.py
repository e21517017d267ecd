"""Contextual attention: feature patches of the hole as sums of known patches.

Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018, section
4.1, as the official code of DeepFill v1 and v2 has it, which differs from the paper:
only the background is normalized, propagation (fusion) acts on scores before the
softmax, and along the diagonals of the flattened indices, so that it runs on over the
ends of rows and columns.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpaint.errors import InputError
from jaxpaint.layers import nearest

_FLOOR = 1e-4
"""Least norm that a background patch is divided by."""

_FEW_SCORES = 1 << 21
"""Scores that are held at once; beyond, rows of queries are taken in chunks."""

_LEAST_ROWS = 8
"""Rows of queries in a chunk at least: fusion computes the scores of two more."""


class Attended(NamedTuple):
    """What contextual attention gives."""

    output: jax.Array
    """`[B, H, W, C]`, float32."""
    offsets: jax.Array
    """`[B, H / rate, W / rate, 2]`, int32: rows and columns from each place to the
    background patch with the greatest weight; of use for pictures."""


def contextual_attention(
    features: jax.Array,
    background: jax.Array,
    mask: jax.Array | None = None,
    *,
    rate: int = 2,
    softmax_scale: float = 10.0,
    fuse: bool = True,
) -> Attended:
    """Returns `features` rebuilt of patches of `background`, and where they came from.

    Patches of 3 x 3 are compared in maps reduced by `rate`; patches of twice the rate
    are pasted, in full resolution. Sums of what overlaps are divided by 4, at borders
    too. Scores and softmax are float32. Large maps are worked on in chunks, which gives
    the same without holding all scores; gradients compute them again.

    Args:
      features: `[B, H, W, C]`.
      background: `[B, H', W', C]`; DeepFill gives the features again.
      mask: `[B, H', W', 1]` or `[1, H', W', 1]`, 1 = hole: patches that touch it, after
        reduction, are not pasted. Where none is left, the output is 0.
      rate: of reduction; must divide all sides.
      softmax_scale: factor of the scores.
      fuse: whether scores are added to those of neighbors with the same offset.

    Raises:
      InputError: sides that `rate` does not divide, or shapes that do not fit.
    """
    _check(features, background, mask, rate)
    features = features.astype(jnp.float32)
    background = background.astype(jnp.float32)
    batch, *sides, _ = features.shape
    height, width = (side // rate for side in sides)
    rows, columns = (side // rate for side in background.shape[1:3])

    queries = _windows(nearest.resize(features, height, width))
    keys = _windows(nearest.resize(background, rows, columns))
    # The floor before the root: a patch of zeros would have a gradient that is none.
    square = jnp.sum(jnp.square(keys), axis=-1, keepdims=True)
    keys = keys / jnp.sqrt(jnp.maximum(square, _FLOOR**2))
    values = _paste_patches(background, rate)
    if mask is None:
        valid = jnp.ones((batch, rows * columns))
    else:
        hole = _windows(nearest.resize(mask.astype(jnp.float32), rows, columns))
        valid = (jnp.mean(hole, axis=-1) == 0).astype(jnp.float32)
        valid = jnp.broadcast_to(valid, (batch, rows * columns))

    attend = functools.partial(
        _attend, grid=(height, width), grid_b=(rows, columns), fuse=fuse
    )
    inputs = queries * softmax_scale, keys, values, valid
    if batch * height * width * rows * columns <= _FEW_SCORES:
        patches, best = jax.vmap(functools.partial(attend, size=height))(*inputs)
    else:
        size = max(_LEAST_ROWS, _FEW_SCORES // (width * rows * columns))
        chunked = functools.partial(attend, size=min(size, height))
        patches, best = lax.map(lambda one: chunked(*one), inputs)

    output = _overlap_add(patches, (height, width), rate)
    places = jnp.arange(height * width)
    down = best // columns - (places // width)[None]
    right = best % columns - (places % width)[None]
    offsets = jnp.stack([down, right], axis=-1)
    return Attended(output, offsets.reshape(batch, height, width, 2))


def _check(
    features: jax.Array, background: jax.Array, mask: jax.Array | None, rate: int
) -> None:
    for name, x in (("features", features), ("background", background)):
        if x.shape[1] % rate or x.shape[2] % rate:
            raise InputError(
                f"contextual attention got {name} of {x.shape[1]} x {x.shape[2]}; want "
                f"multiples of {rate}: pad the picture"
            )
    same = (features.shape[0], features.shape[3])
    if (background.shape[0], background.shape[3]) != same:
        raise InputError(
            f"background has shape {list(background.shape)}; want batch and channels "
            f"of the features, {list(features.shape)}"
        )
    if mask is not None and (
        mask.shape[1:] != (*background.shape[1:3], 1)
        or mask.shape[0] not in (1, features.shape[0])
    ):
        raise InputError(
            f"mask has shape {list(mask.shape)}; want "
            f"{[features.shape[0], *background.shape[1:3], 1]}"
        )


def _windows(x: jax.Array) -> jax.Array:
    """Returns `[B, H W, 9 C]`: the 3 x 3 pixels around each, 0 outside."""
    batch, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(taps, axis=-1).reshape(batch, height * width, -1)


def _paste_patches(x: jax.Array, rate: int) -> jax.Array:
    """Returns `[B, L, (2 rate)^2 C]`: patches with a stride of `rate`."""
    batch, height, width, channels = x.shape
    before = rate // 2
    pad = (before, rate - before)
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    # Blocks of rate x rate; a patch is 2 x 2 of them.
    rows, columns = height // rate, width // rate
    x = x.reshape(batch, rows + 1, rate, columns + 1, rate, channels)
    taps = [
        x[:, i : i + rows, :, j : j + columns].swapaxes(2, 3)
        for i in range(2)
        for j in range(2)
    ]
    return jnp.stack(taps, axis=3).reshape(batch, rows * columns, -1)


def _overlap_add(patches: jax.Array, grid: tuple[int, int], rate: int) -> jax.Array:
    """Returns the sum of what `_paste_patches` cuts out, at its place, divided by 4."""
    rows, columns = grid
    batch = len(patches)
    x = patches.reshape(batch, rows, columns, 2, 2, rate, rate, -1)
    total = jnp.zeros(())
    for i in range(2):
        for j in range(2):
            pad = [(0, 0), (i, 1 - i), (j, 1 - j), (0, 0), (0, 0), (0, 0)]
            part = jnp.pad(x[:, :, :, i, j], pad)
            total = part if i + j == 0 else total + part
    total = total.swapaxes(2, 3)
    total = total.reshape(batch, (rows + 1) * rate, (columns + 1) * rate, -1)
    low = rate // 2
    return total[:, low : low + rows * rate, low : low + columns * rate] / 4


def _attend(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    valid: jax.Array,
    *,
    grid: tuple[int, int],
    grid_b: tuple[int, int],
    fuse: bool,
    size: int,
) -> tuple[jax.Array, jax.Array]:
    """Returns mixed patches `[P, D]` and the best patch's index `[P]` of one picture.

    Args:
      queries: `[P, 9 C]`, times the factor of the scores.
      keys: `[L, 9 C]`, of norm 1.
      values: `[L, D]`.
      valid: `[L]`, 1 where a patch may be pasted.
      grid: rows and columns of the queries.
      grid_b: those of the keys.
      fuse: whether neighbors with the same offset are added.
      size: rows of queries in a chunk.
    """
    height, width = grid
    count = -(-height // size)
    size = -(-height // count)
    values = values * valid[:, None]
    table, table_b = _neighborhood(grid, count * size), _neighborhood(grid_b)
    if fuse:
        keys = _take(keys, table_b.reshape(-1))

    def chunk(first: jax.Array) -> tuple[jax.Array, jax.Array]:
        if fuse:
            rows = lax.dynamic_slice_in_dim(jnp.asarray(table), first, size + 2)
            scores = _product(_take(queries, rows.reshape(-1)), keys)
            scores = scores.reshape(*rows.shape, *table_b.shape)
            logits = _fused(scores, first, grid, grid_b)
        else:
            rows = lax.dynamic_slice_in_dim(jnp.asarray(table), first + 1, size)
            logits = _product(_take(queries, rows[:, 1:-1].reshape(-1)), keys)
        # Invalid patches count with a score of 0 in the sum, but are not pasted.
        logits = logits * valid[None]
        top = lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        weights = jnp.exp(logits - top)
        mixed = weights @ values / jnp.sum(weights, axis=-1, keepdims=True)
        best = jnp.argmax(lax.stop_gradient(weights) * valid[None], axis=-1)
        return mixed, best.astype(jnp.int32)

    if count == 1:
        return chunk(jnp.int32(0))
    mixed, best = lax.map(jax.checkpoint(chunk), jnp.arange(count) * size)
    pixels = height * width
    return mixed.reshape(-1, mixed.shape[-1])[:pixels], best.reshape(-1)[:pixels]


def _neighborhood(grid: tuple[int, int], rows: int | None = None) -> np.ndarray:
    """Returns indices of all places with a border of neighbors; int `[R + 2, W + 2]`.

    The neighbors left and right are those in row-major order, which above and below
    are those in column-major order: beyond the end of a row or column comes the next.
    -1 stands for none. Rows beyond those of the grid are none.
    """
    height, width = grid
    rows = height if rows is None else rows
    table = np.full((rows + 2, width + 2), -1)
    starts = {-1: (height - 1) * width - 1, height: 1}
    for row in range(-1, height + 1):
        line = starts.get(row, row * width) + np.arange(-1, width + 1)
        table[row + 1] = np.where((line >= 0) & (line < height * width), line, -1)
    return table


def _take(x: jax.Array, index: jax.Array | np.ndarray) -> jax.Array:
    """Returns rows of `x`, zeros for an index of -1."""
    index = jnp.asarray(index)
    return jnp.where((index >= 0)[:, None], x[jnp.maximum(index, 0)], 0)


def _product(queries: jax.Array, keys: jax.Array) -> jax.Array:
    # A small error of a score may make another patch the winner.
    return jnp.matmul(queries, keys.T, precision=lax.Precision.HIGHEST)


def _fused(
    scores: jax.Array, first: jax.Array, grid: tuple[int, int], grid_b: tuple[int, int]
) -> jax.Array:
    """Returns fused scores `[R W, L]` of `[R + 2, W + 2, H' + 2, W' + 2]`.

    Those of the previous and the next patch are added, in row-major and then, to the
    sums, in column-major order.
    """
    rows, width = scores.shape[0] - 2, scores.shape[1] - 2
    patches = grid_b[0] * grid_b[1]
    place = first * width + jnp.arange(rows * width)
    place_b = jnp.arange(patches)
    total = jnp.zeros((rows * width, patches))
    for down in range(3):
        sums = jnp.zeros((rows, width, *grid_b))
        for right in range(3):
            sums += scores[
                down : down + rows,
                right : right + width,
                down : down + grid_b[0],
                right : right + grid_b[1],
            ]
        sums = sums.reshape(total.shape)
        if down != 1:
            # What has no neighbor in column-major order has none of its neighbors.
            end, end_b = (0, 0) if down == 0 else (grid[0] * grid[1] - 1, patches - 1)
            has = (place != end)[:, None] & (place_b != end_b)[None]
            sums = jnp.where(has, sums, 0)
        total += sums
    return total
