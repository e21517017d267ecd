"""A picture with a hole at several resolutions, as patch search wants it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

SMALLEST_SIDE = 32
"""Pixels below which a coarse level shows too little to choose patches from."""


class Pyramid(NamedTuple):
    """Levels, the finest first, each in the top-left part of a full-size canvas.

    With one shape for all, one trace serves every level; lists of positions keep the
    cost to what a level really contains.
    """

    image: jax.Array
    """`[L, H, W, C]`, 0 in the hole."""

    smooth: jax.Array
    """`[L, H, W, C]`, the hole filled from coarser levels, without structure."""

    hole: jax.Array
    """`[L, H, W]` bool."""

    depth: jax.Array
    """`[L, H, W]`, distance from the known region in pixels of the level."""

    target: jax.Array
    """`[L, H, W]` bool, top-left pixels of the patches that touch the hole."""

    source: jax.Array
    """`[L, H, W]` bool, top-left pixels of the patches that do not."""

    size: jax.Array
    """`[L, 2]` int32, rows and columns of the level."""


def hole_pyramid(
    image: jax.Array, hole: jax.Array, *, patch_size: int, levels: int
) -> Pyramid:
    """Returns at most `levels` levels, each half the size of the one before.

    A coarse pixel is the mean of those of its four that are known, and belongs to the
    hole when fewer than two are. Levels below 32 pixels are left out; of an image
    smaller than a patch no patch is listed.

    Args:
      image: `[H, W, C]`, 0 in the hole.
      hole: `[H, W]` bool.
      patch_size: side of the patches to be listed.
      levels: upper bound, at least 1.
    """
    steps = [(image, hole, hole_depth(hole))]
    while min(steps[-1][1].shape) > 1:
        steps.append(_halve(*steps[-1]))
    # Pixels that no level knows, as when all is hole, take the mean of what is known.
    mean = jnp.sum(image, (0, 1), keepdims=True) / jnp.maximum(jnp.sum(~hole), 1)
    image, hole, _ = steps[-1]
    smooth = [jnp.where(hole[..., None], mean, image)]
    for image, hole, _ in reversed(steps[:-1]):
        fill = _double(smooth[0], *hole.shape)
        smooth.insert(0, jnp.where(hole[..., None], fill, image))
    limit = max(SMALLEST_SIDE, patch_size)
    kept = sum(min(step[1].shape) >= limit for step in steps[1:levels])
    canvas = steps[0][1].shape
    stacked = [
        _level(*step, fill, canvas, patch_size)
        for step, fill in zip(steps[: 1 + kept], smooth, strict=False)
    ]
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *stacked)


def hole_depth(hole: jax.Array) -> jax.Array:
    """Returns how deep in `hole` `[H, W]` each pixel lies, 0 outside and 1 at its rim.

    Erosion by a cross and a square in turn, so that equal depths are octagons. Beyond
    the border of the image nothing is known.
    """

    def erode(carry: tuple[jax.Array, jax.Array, jax.Array]):
        rest, depth, i = carry
        p = jnp.pad(rest, 1, constant_values=True)
        cross = rest & p[:-2, 1:-1] & p[2:, 1:-1] & p[1:-1, :-2] & p[1:-1, 2:]
        square = cross & p[:-2, :-2] & p[2:, :-2] & p[:-2, 2:] & p[2:, 2:]
        rest = jnp.where(i % 2 == 0, cross, square)
        return rest, depth + rest, i + 1

    # Without any known pixel nothing would ever be eroded.
    limit = max(hole.shape)
    start = hole, hole.astype(jnp.float32), jnp.int32(1)
    return lax.while_loop(lambda c: jnp.any(c[0]) & (c[2] < limit), erode, start)[1]


def patches_touching(flags: jax.Array, size: int) -> jax.Array:
    """Returns `[H - size + 1, W - size + 1]`: whether each patch contains a flag."""
    if min(flags.shape) < size:
        return jnp.zeros([max(side - size + 1, 0) for side in flags.shape], bool)
    for axis in (0, 1):
        end = flags.shape[axis] - size + 1
        shifted = [lax.slice_in_dim(flags, i, end + i, axis=axis) for i in range(size)]
        flags = jnp.any(jnp.stack(shifted), axis=0)
    return flags


def _halve(
    image: jax.Array, hole: jax.Array, depth: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    height, width = hole.shape[0] // 2, hole.shape[1] // 2

    def total(x: jax.Array) -> jax.Array:
        x = x[: 2 * height, : 2 * width]
        return jnp.sum(x.reshape(height, 2, width, 2, *x.shape[2:]), axis=(1, 3))

    known = total(1.0 - hole)[..., None]
    # The hole of `image` is 0, so that its sum is that of the known pixels.
    image = jnp.where(known >= 2, total(image) / jnp.maximum(known, 1), 0)
    return image, known[..., 0] < 2, total(depth) / 8


def _double(image: jax.Array, height: int, width: int) -> jax.Array:
    """Returns the image at twice the size, bilinear, cut or extended to the shape."""

    def along_rows(x: jax.Array, size: int) -> jax.Array:
        x = jnp.concatenate([x[:1], x, x[-1:]])
        near, before, after = 0.75 * x[1:-1], 0.25 * x[:-2], 0.25 * x[2:]
        x = jnp.stack([near + before, near + after], axis=1).reshape(-1, *x.shape[1:])
        return jnp.concatenate([x, x[-1:]])[:size]

    rows = along_rows(image, height)
    return along_rows(rows.swapaxes(0, 1), width).swapaxes(0, 1)


def _level(
    image: jax.Array,
    hole: jax.Array,
    depth: jax.Array,
    smooth: jax.Array,
    canvas: tuple[int, ...],
    patch_size: int,
) -> Pyramid:
    def place(x: jax.Array) -> jax.Array:
        room = [(0, canvas[i] - x.shape[i]) for i in range(2)]
        return jnp.pad(x, room + [(0, 0)] * (x.ndim - 2))

    touching = patches_touching(hole, patch_size)
    return Pyramid(
        image=place(image),
        smooth=place(smooth),
        hole=place(hole),
        depth=place(depth),
        target=place(touching),
        source=place(~touching),
        size=jnp.array(hole.shape, jnp.int32),
    )
