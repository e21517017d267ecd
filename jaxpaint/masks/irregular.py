"""Irregular masks in the hole-ratio bins of partial convolutions (Liu et al. 2018).

The published masks come from occlusions in video and cannot be drawn anew. These are
made of random strokes, which others also use in their place; what they share with the
published test set are its bins of the hole ratio, each with and without a known border.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.errors import InputError
from jaxpaint.masks import raster, walks
from jaxpaint.masks.chance import chances, whole
from jaxpaint.masks.raster import Size


def irregular(
    size: Size,
    key: jax.Array,
    *,
    ratio: tuple[float, float] = (0.01, 0.6),
    border: float = 0.0,
) -> jax.Array:
    """Returns an irregular mask whose hole share lies in a bin; float32 `[H, W, 1]`.

    A target is drawn uniformly in the bin, and strokes are added until the hole reaches
    it. A stroke that would overshoot the bin is left out and later ones are smaller, so
    the bin is always met. Strokes have one to five segments, and for holes of 0.6 of
    256 x 256 pixels a width of 10 to 45 and segments of 20 to 128 pixels; they shrink
    with the target and scale with the image.

    Args:
      size: height and width, static.
      key: random key.
      ratio: the bin of the hole share: greater than the first, at most the second.
      border: share of the image side that stays known at each border. The published
        masks "with border" keep 50 of 512 pixels.

    Raises:
      InputError: no mask of this size has a hole share in the bin.
    """
    height, width = size
    low, high = (math.floor(share * height * width) for share in ratio)
    margins = tuple(round(border * length) for length in size)
    room = [length - 2 * margin for length, margin in zip(size, margins, strict=True)]
    if not (0 <= low < high and high <= 0.95 * max(0, room[0]) * max(0, room[1])):
        raise InputError(
            f"no irregular mask of {height}x{width} pixels with a known border of "
            f"{margins[0]} and {margins[1]} pixels fits hole ratio {ratio}; "
            "use a larger size, a narrower border or another ratio"
        )
    target, chance = chances(key, (), (_CAP, 4 + 2 * _SEGMENTS))
    target = whole(target, low + 1, high)

    def unfinished(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        number, packed, _ = state
        return (raster.area(packed) < target) & (number < _CAP)

    def add(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        number, packed, scale = state
        union = packed | _stroke(size, chance[number], margins, scale)
        fits = raster.area(union) <= high
        return (
            number + 1,
            jnp.where(fits, union, packed),
            jnp.where(fits, scale, 0.7 * scale),
        )

    state = (jnp.int32(0), raster.empty(size), jnp.sqrt(target / 0.6) / 256)
    _, packed, _ = jax.lax.while_loop(unfinished, add, state)
    return raster.unpack(packed, size)


# More strokes than a bin of 0.1 needs; ends the loop whatever happens.
_CAP = 400

_SEGMENTS = 5

_ANGLE = 2 * np.pi * np.arange(256) / 256
_DIRECTIONS = np.stack([np.sin(_ANGLE), np.cos(_ANGLE)], axis=-1).astype(np.float32)


def _stroke(
    size: Size, chance: jax.Array, margins: tuple[int, ...], scale: jax.Array
) -> jax.Array:
    """Returns one packed stroke that keeps the margins."""
    single, length, turn = jnp.split(chance, [4, 4 + _SEGMENTS])
    # A thinner line would have gaps.
    radius = jnp.maximum(0.75, jnp.round(4 * scale * (5 + 17.5 * single[0])) / 4)
    segments = whole(single[1], 1, _SEGMENTS)

    low, high = jnp.array([margins]), jnp.array([size]) - 1 - jnp.array([margins])
    if any(margins):
        inset = jnp.ceil(radius).astype(jnp.int32)
        low = jnp.minimum(low + inset, jnp.array([size]) // 2)
        high = jnp.maximum(high - inset, low)
    # Walks that turn back at the bounds seldom come near, so more of them start there.
    place = 0.5 - 0.49999 * jnp.cos(np.pi * single[None, 2:])
    start = whole(place, low, high)

    # Headings are whole steps of 1/256 turn; a corner turns by up to 1/5 turn.
    first, turns = whole(turn[:1], 0, len(_ANGLE) - 1), whole(turn[1:], -51, 51)
    heading = jnp.cumsum(jnp.concatenate([first, turns])) % len(_ANGLE)
    length = scale * (20 + 108 * length)
    move = length[:, None] * jnp.asarray(_DIRECTIONS)[heading]
    move = jnp.floor(move + 0.5).astype(jnp.int32)
    radii = jnp.full((1, _SEGMENTS), radius)
    active = (jnp.arange(_SEGMENTS) < segments)[None, :]
    corners = walks.turned_back(start, move[None], low, high)
    return raster.strokes(size, corners, radii, active)
