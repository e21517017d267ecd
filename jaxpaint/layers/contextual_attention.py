"""Contextual attention: feature patches of the hole as sums of known patches.

Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018, section
4.1, as the official code of DeepFill v1 and v2 has it, which differs from the paper:
only the background is normalized, propagation (fusion) acts on scores before the
softmax, and along the diagonals of the flattened indices, so that it runs on over the
ends of rows and columns.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpaint.errors import InputError
from jaxpaint.layers import nearest

_FLOOR = 1e-4
"""Least norm that a background patch is divided by."""

_FEW_SCORES = 1 << 22
"""Scores that are held at once; beyond, rows of queries are taken in chunks."""

_LEAST_ROWS = 8
"""Rows of queries in a chunk at least: with fusion, products of four more are made."""


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

    reduced = nearest.resize(features, height, width)
    reduced_b = nearest.resize(background, rows, columns)
    # The floor before the root: a patch of zeros would have a gradient that is none.
    square = _window_sums(jnp.sum(jnp.square(reduced_b), axis=-1))
    factors = 1 / jnp.sqrt(jnp.maximum(square, _FLOOR**2))
    if mask is None:
        valid = jnp.ones_like(factors)
    else:
        hole = nearest.resize(mask.astype(jnp.float32), rows, columns)[..., 0]
        valid = (_window_sums(hole) == 0).astype(jnp.float32)
        valid = jnp.broadcast_to(valid, factors.shape)

    attend = functools.partial(
        _attend, grid=(height, width), grid_b=(rows, columns), fuse=fuse
    )
    inputs = (
        _in_line(reduced * softmax_scale),
        _in_line(reduced_b),
        factors.reshape(batch, -1),
        valid.reshape(batch, -1),
        _blocks(background, rate),
    )
    if batch * height * width * rows * columns <= _FEW_SCORES:
        blocks, best = jax.vmap(functools.partial(attend, size=height))(*inputs)
    else:
        size = max(_LEAST_ROWS, _FEW_SCORES // (width * rows * columns))
        chunked = functools.partial(attend, size=min(size, height))
        blocks, best = lax.map(lambda one: chunked(*one), inputs)

    output = _from_blocks(blocks, rate) / 4
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


def _window_sums(x: jax.Array) -> jax.Array:
    """Returns `[B, H, W]`: sums of the 3 x 3 pixels around each."""
    return lax.reduce_window(x, 0.0, lax.add, (1, 3, 3), (1, 1, 1), "SAME")


def _in_line(x: jax.Array) -> jax.Array:
    """Returns `[B, H W, 3 C]`: each pixel between its left and right neighbor."""
    batch, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    taps = [x[:, :, j : j + width] for j in range(3)]
    return jnp.concatenate(taps, axis=-1).reshape(batch, height * width, -1)


def _blocks(x: jax.Array, rate: int) -> jax.Array:
    """Returns `[B, H / rate + 1, W / rate + 1, rate^2 C]`, of blocks of pixels.

    They begin `rate / 2` pixels outside, so that the patch of a place, of twice the
    rate, is the block of that place and the three to its right and below.
    """
    batch, height, width, channels = x.shape
    before = rate // 2
    pad = (before, rate - before)
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    rows, columns = height // rate + 1, width // rate + 1
    x = x.reshape(batch, rows, rate, columns, rate, channels)
    return x.swapaxes(2, 3).reshape(batch, rows, columns, -1)


def _from_blocks(x: jax.Array, rate: int) -> jax.Array:
    """Returns what `_blocks` has cut up."""
    batch, rows, columns, _ = x.shape
    x = x.reshape(batch, rows, columns, rate, rate, -1).swapaxes(2, 3)
    x = x.reshape(batch, rows * rate, columns * rate, -1)
    before, after = rate // 2, rate // 2 - rate
    return x[:, before:after, before:after]


def _margin(width: int) -> int:
    """Returns how many queries beyond rows of them `_Scores.in_columns` looks."""
    return 2 * width + 3


class _Scores(NamedTuple):
    """Scores of all queries of one picture, computed for those that are asked for.

    A score compares 3 x 3 pixels. Patches that are next to each other, among queries
    and among keys, have 6 of them in common: sums along diagonals, of products of rows
    of 3 pixels, leave a third of the multiplications.
    """

    queries: jax.Array
    """`[P, 3 C]`, in line, times the factor of the scores; `_margin` more around."""
    keys: jax.Array
    """`[L, 3 C]`, in line; a row of zeros above and below."""
    factors: jax.Array
    """`[L]`, of the scores of each key."""
    grid: tuple[int, int]
    """Rows and columns of the queries."""
    grid_b: tuple[int, int]
    """Those of the keys."""

    def of_windows(self, start: jax.Array | int, count: int) -> jax.Array:
        """Returns the scores of `count` queries, `[count, L]`."""
        width, width_b = self.grid[1], self.grid_b[1]
        first = start - width + _margin(width)
        rows = lax.dynamic_slice_in_dim(self.queries, first, count + 2 * width)
        # A small error of a score may make another patch the winner.
        lines = jnp.matmul(rows, self.keys.T, precision=lax.Precision.HIGHEST)
        above, same, below = (
            lines[row * width :, row * width_b :][:count, : math.prod(self.grid_b)]
            for row in range(3)
        )
        return self._inside((above + same + below) * self.factors[None], start)

    def in_rows(self, start: jax.Array | int, count: int) -> jax.Array:
        """Returns scores with those of the previous and next in row-major order."""
        around = self.of_windows(start - 2, count + 4)
        return self._inside(_diagonal_sum(around, 1, 1), start)

    def ends(self) -> tuple[jax.Array, jax.Array]:
        """Returns what `in_columns` adds to the first row and to the last, `[W, L]`.

        In column-major order the first row follows on the end of the last, one column
        to the left. Of queries the first has none before it and the last none behind,
        and so of keys.
        """
        row, patches = self.grid_b[1], math.prod(self.grid_b)
        (_, width), pixels = self.grid, math.prod(self.grid)
        none = jnp.zeros((width, 1))
        above = self.in_rows(pixels - width - 1, width).at[0].set(0)
        below = self.in_rows(1, width).at[-1].set(0)
        last = above[:, patches - row : -1]
        above = jnp.concatenate([none, last, above[:, : patches - row]], axis=1)
        below = jnp.concatenate([below[:, row:], below[:, 1:row], none], axis=1)
        return above, below

    def in_columns(
        self, first: jax.Array, rows: int, above: jax.Array, below: jax.Array
    ) -> jax.Array:
        """Returns sums of `in_rows` with the previous and next in column-major order.

        Args:
          first: row of queries.
          rows: as many; only the last of such chunks has the last row.
          above: of `ends`.
          below: of `ends`.
        """
        height, width = self.grid
        row, end = self.grid_b[1], math.prod(self.grid_b) - self.grid_b[1]
        x = self.in_rows((first - 1) * width - 1, (rows + 2) * width + 2)
        total = _diagonal_sum(x, width, row)
        previous, following = x[1 : -1 - 2 * width], x[1 + 2 * width : -1]
        total += jnp.pad(previous[:, end:-1], ((0, 0), (1, end)))
        total += jnp.pad(following[:, 1:row], ((0, 0), (end, 1)))
        total = _plus(total, jnp.where(first == 0, above, 0), 0)
        is_last = first + rows >= height
        last = (height - 1) % rows * width
        return _plus(total, jnp.where(is_last, below, 0), last)

    def _inside(self, x: jax.Array, start: jax.Array | int) -> jax.Array:
        """Returns `x` of queries from `start` on with zeros outside of the picture."""
        place = start + jnp.arange(len(x))
        inside = (place >= 0) & (place < math.prod(self.grid))
        # A branch: without one the compiler would compute the sums that are `x` again
        # for each of the sums that are made of them.
        return lax.cond(
            jnp.all(inside),
            lambda x: x,
            lambda x: jnp.where(inside[:, None], x, 0),
            x,
        )


def _attend(
    queries: jax.Array,
    keys: jax.Array,
    factors: jax.Array,
    valid: jax.Array,
    blocks: jax.Array,
    *,
    grid: tuple[int, int],
    grid_b: tuple[int, int],
    fuse: bool,
    size: int,
) -> tuple[jax.Array, jax.Array]:
    """Returns blocks and the best patch's index `[P]` of one picture.

    A pixel of the output is made of the 4 patches that its block belongs to. Their
    weights are added up first, which leaves a quarter of the multiplications.

    Args:
      queries: `[P, 3 C]`, in line, times the factor of the scores.
      keys: `[L, 3 C]`, in line.
      factors: `[L]`, of the scores of each key.
      valid: `[L]`, 1 where a patch may be pasted.
      blocks: `[H' + 1, W' + 1, D]`.
      grid: rows and columns of the queries.
      grid_b: those of the keys.
      fuse: whether neighbors with the same offset are added.
      size: rows of queries in a chunk, at most.

    Returns:
      `[H + 1, W + 1, D]`, sums over the four patches of a block, and int32.
    """
    height, width = grid
    count = -(-height // size)
    size = -(-height // count)
    pixels = height * width
    margin, more = _margin(width), (count * size - height) * width
    queries = jnp.pad(queries, ((margin, margin + more), (0, 0)))
    keys = jnp.pad(keys, ((grid_b[1], grid_b[1]), (0, 0)))
    scores = _Scores(queries, keys, factors, grid, grid_b)
    ends = scores.ends() if fuse else None

    def chunk(first: jax.Array) -> tuple[jax.Array, jax.Array]:
        if ends is None:
            logits = scores.of_windows(first * width, size * width)
        else:
            logits = scores.in_columns(first, size, *ends)
        # Invalid patches count with a score of 0 in the sum, but are not pasted.
        logits = logits * valid[None]
        top = lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        weights = jnp.exp(logits - top)
        inside = first * width + jnp.arange(size * width) < pixels
        scale = jnp.where(inside, 1 / jnp.sum(weights, axis=-1), 0)
        weights = weights * scale[:, None] * valid[None]
        best = jnp.argmax(lax.stop_gradient(weights), axis=-1)
        weights = _block_sums(weights.reshape(size, width, *grid_b))
        mixed = jnp.tensordot(weights, blocks, axes=2)
        return mixed, best.astype(jnp.int32)

    if count == 1:
        return chunk(jnp.int32(0))
    mixed, best = lax.map(jax.checkpoint(chunk), jnp.arange(count) * size)
    # The last row of a chunk is the first of the next.
    total = mixed[:, :size].reshape(count * size, *mixed.shape[2:])
    total = jnp.pad(total, ((0, 1), (0, 0), (0, 0))).at[size::size].add(mixed[:, size])
    return total[: height + 1], best.reshape(-1)[:pixels]


def _diagonal_sum(x: jax.Array, steps: int, steps_b: int) -> jax.Array:
    """Returns scores with those so many steps before and after, of queries and keys.

    Maps `[P + 2 steps + 2, L]`, the picture's with others around, to `[P, L]`. Beyond
    the first and the last key there is nothing.
    """
    count, patches = x.shape[0] - 2 * steps - 2, x.shape[1]
    # In memory the other scores lie at one distance from those they are added to.
    flat, distance = x.reshape(-1), steps * patches + steps_b

    def moved(times: int) -> jax.Array:
        first = (1 + steps) * patches + times * distance
        part = lax.slice_in_dim(flat, first, first + count * patches)
        place = np.arange(patches) + times * steps_b
        return part.reshape(count, patches) * ((place >= 0) & (place < patches))[None]

    return moved(0) + moved(-1) + moved(1)


def _plus(x: jax.Array, part: jax.Array, start: int) -> jax.Array:
    """Returns `x` with `part` added to its rows from `start` on, in the same memory."""
    old = lax.dynamic_slice_in_dim(x, start, len(part))
    return lax.dynamic_update_slice_in_dim(x, old + part, start, axis=0)


def _block_sums(weights: jax.Array) -> jax.Array:
    """Maps weights `[H, W, H', W']` of patches to those of blocks, one more a side.

    A block belongs to the patch of its place and the three to its left and above: the
    sum of their weights for what lies likewise around the block that is pasted.
    """
    padded = jnp.pad(weights, ((1, 1),) * 4)
    height, width, rows, columns = (side + 1 for side in weights.shape)
    return functools.reduce(
        jnp.add,
        [
            padded[i:, j:, i:, j:][:height, :width, :rows, :columns]
            for i in range(2)
            for j in range(2)
        ],
    )
