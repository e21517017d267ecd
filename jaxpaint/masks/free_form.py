"""The free-form brush of DeepFill v2 (Yu et al. 2019) and its training masks.

One to three strokes zigzag over the image. Turning angle and step length follow the
official sampler, whose law is not the one of the paper's Algorithm 1 (uniform lengths);
it is what trained the published networks. The brush is 12 to 39 pixels wide at any
image size, so the mean hole share falls with resolution: 0.152 at 256 x 256 pixels,
0.086 at 512 x 512.
"""

import math

import jax
import jax.numpy as jnp

from jaxpaint.masks import raster, walks
from jaxpaint.masks.boxes import deepfill_box
from jaxpaint.masks.chance import chances, whole
from jaxpaint.masks.raster import Size


def free_form(
    size: Size,
    key: jax.Array,
    *,
    strokes: tuple[int, int] = (1, 3),
    segments: tuple[int, int] = (4, 11),
    width: tuple[int, int] = (12, 39),
) -> jax.Array:
    """Returns a free-form brush mask; float32 `[H, W, 1]`.

    The official sampler without its two defects (see `free_form_legacy`): masks are
    mirrored at random, as the paper says, and oblong images are covered entirely.

    Args:
      size: height and width, static.
      key: random key.
      strokes: fewest and most strokes.
      segments: fewest and most segments of a stroke.
      width: least and greatest width of the brush in pixels.
    """
    return _brush(size, size, key, strokes, segments, width, mirror=True)


def free_form_legacy(
    size: Size,
    key: jax.Array,
    *,
    strokes: tuple[int, int] = (1, 3),
    segments: tuple[int, int] = (4, 11),
    width: tuple[int, int] = (12, 39),
) -> jax.Array:
    """Returns a free-form mask with the statistics of the official code; `[H, W, 1]`.

    The official code throws the mirrored copy away, so that strokes run to the right
    and the right border is masked five times as often as the left one. It also swaps
    height and width: strokes of a wide image never pass the column number `height`,
    and those of a high image leave it. Arguments as in `free_form`.
    """
    swapped = size[1], size[0]
    return _brush(size, swapped, key, strokes, segments, width, mirror=False)


def free_form_box(size: Size, key: jax.Array) -> jax.Array:
    """Returns the training mask of DeepFill v2: free-form brush or box; `[H, W, 1]`.

    The paper mentions only the brush; the official code adds the box of DeepFill v1.
    """
    brush_key, box_key = jax.random.split(key)
    return jnp.maximum(free_form(size, brush_key), deepfill_box(size, box_key))


def free_form_box_legacy(size: Size, key: jax.Array) -> jax.Array:
    """Returns `free_form_legacy` or box; float32 `[H, W, 1]`."""
    brush_key, box_key = jax.random.split(key)
    return jnp.maximum(free_form_legacy(size, brush_key), deepfill_box(size, box_key))


def _brush(
    size: Size,
    limits: Size,
    key: jax.Array,
    strokes: tuple[int, int],
    segments: tuple[int, int],
    width: tuple[int, int],
    *,
    mirror: bool,
) -> jax.Array:
    """Returns strokes whose corners lie in rows and columns 0 to `limits`.

    With `mirror`, they are mirrored along each axis with probability 1/2.
    """
    mean = math.hypot(*size) / 8
    count, steps = strokes[1], segments[1]
    bounds = jnp.array([limits])
    number, mirrored, chance, turns, normal = chances(
        key, (), (1, 2), (6, count, 1), (count, steps), (2, count, steps)
    )
    number, mirrored = whole(number, *strokes), mirror & (mirrored < 0.5)
    length, widths = whole(chance[0], *segments), whole(chance[1], *width)
    start = whole(jnp.concatenate([chance[2], chance[3]], axis=1), 0, bounds - 1)

    turn, spread = 2 * math.pi / 5, 2 * math.pi / 15
    low, high = turn - spread * chance[4], turn + spread * chance[5]
    angle = low + (high - low) * turns
    # Two uniform numbers make a normal one (Box and Muller).
    deviate = jnp.sqrt(-2 * jnp.log1p(-normal[0])) * jnp.cos(2 * math.pi * normal[1])
    radius = jnp.clip(mean + mean // 2 * deviate, 0, 2 * mean)
    # Every second angle, the first included, is mirrored: the stroke zigzags upwards
    # and downwards while it runs to the right.
    side = jnp.where(jnp.arange(steps) % 2 == 0, -1, 1)[None, :]
    move = jnp.stack([side * jnp.sin(angle), jnp.cos(angle)], axis=-1)
    # Corners are whole pixels, so rounding the move down rounds the corner down.
    move = jnp.floor(radius[..., None] * move).astype(jnp.int32)

    # Mirroring the corners costs less than mirroring the mask.
    last = jnp.array([size]) - 1
    start = jnp.where(mirrored, last - start, start)
    move = jnp.where(mirrored[None], -move, move)
    low = jnp.where(mirrored, last - bounds, 0)
    high = jnp.where(mirrored, last, bounds)

    active = (jnp.arange(count)[:, None] < number) & (
        jnp.arange(steps)[None, :] < length
    )
    radii = jnp.broadcast_to(raster.brush_radius(widths), (count, steps))
    packed = raster.strokes(size, walks.clipped(start, move, low, high), radii, active)
    return raster.unpack(packed, size)
