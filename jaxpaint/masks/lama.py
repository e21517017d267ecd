"""The mask samplers of LaMa (Suvorov et al. 2022): strokes or boxes.

Settings were published for 256 and 512 pixels. Other sizes take the settings nearest to
their shorter side, with all lengths scaled by it; at 256 and 512 they are as published.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.masks import raster, walks
from jaxpaint.masks.chance import chances, whole
from jaxpaint.masks.raster import Size
from jaxpaint.masks.redraw import redraw


class _Strokes(NamedTuple):
    """Fewest and most strokes (the code adds one), greatest width and length."""

    number: tuple[int, int]
    width: int
    length: int


class _Boxes(NamedTuple):
    """Fewest and most boxes, shortest and longest side, and what stays known around."""

    number: tuple[int, int]
    side: tuple[int, int]
    margin: int


class _Settings(NamedTuple):
    """Strokes, boxes, and the weight of boxes beside weight 1 of strokes."""

    strokes: _Strokes
    boxes: _Boxes
    weight: float


_NO_BOXES = _Boxes((1, 1), (1, 1), 0)

_THIN = {
    256: _Settings(_Strokes((4, 50), 10, 40), _NO_BOXES, 0),
    512: _Settings(_Strokes((4, 70), 20, 100), _NO_BOXES, 0),
}
_MEDIUM = {
    256: _Settings(_Strokes((4, 5), 50, 100), _Boxes((1, 5), (10, 50), 0), 0.3),
    512: _Settings(_Strokes((4, 10), 100, 200), _Boxes((1, 5), (30, 150), 0), 0.3),
}
_THICK = {
    256: _Settings(_Strokes((1, 5), 100, 200), _Boxes((1, 3), (30, 150), 10), 0.3),
    512: _Settings(_Strokes((1, 5), 250, 450), _Boxes((1, 4), (30, 300), 10), 0.3),
}
_TRAINING = {
    256: _Settings(_Strokes((1, 5), 100, 200), _Boxes((1, 4), (30, 150), 10), 1)
}
_SMALL = {256: _Settings(_Strokes((4, 12), 40, 80), _Boxes((1, 1), (30, 128), 0), 1)}


def lama_thin(size: Size, key: jax.Array, *, max_area: float = 1.0) -> jax.Array:
    """Returns a mask of the "narrow" test set: many thin strokes; float32 `[H, W, 1]`.

    Args:
      size: height and width, static.
      key: random key.
      max_area: masks with a greater hole share are drawn again, at most 200 times.
        The test sets of the paper keep one of five draws with at most 0.5; a redrawn
        mask has the same distribution.
    """
    return _draw(size, key, _THIN, max_area)


def lama_medium(size: Size, key: jax.Array, *, max_area: float = 1.0) -> jax.Array:
    """Returns a mask of the medium test set; `[H, W, 1]`, options as `lama_thin`."""
    return _draw(size, key, _MEDIUM, max_area)


def lama_thick(size: Size, key: jax.Array, *, max_area: float = 1.0) -> jax.Array:
    """Returns a mask of the "wide" test set; `[H, W, 1]`, options as `lama_thin`."""
    return _draw(size, key, _THICK, max_area)


def lama_training(size: Size, key: jax.Array, *, max_area: float = 1.0) -> jax.Array:
    """Returns a training mask, wide strokes or boxes; options as `lama_thin`."""
    return _draw(size, key, _TRAINING, max_area)


def lama_training_small(
    size: Size, key: jax.Array, *, max_area: float = 1.0
) -> jax.Array:
    """Returns a training mask of the ablation with small masks; as `lama_thin`."""
    return _draw(size, key, _SMALL, max_area)


def _draw(
    size: Size, key: jax.Array, table: dict[int, _Settings], max_area: float
) -> jax.Array:
    nearest = min(table, key=lambda side: abs(math.log(side / min(size))))
    settings, scale = table[nearest], min(size) / nearest

    def once(key: jax.Array) -> jax.Array:
        if not settings.weight:
            return _strokes(size, key, settings.strokes, scale)
        strokes_key, boxes_key = jax.random.split(key)
        strokes = _strokes(size, strokes_key, settings.strokes, scale)
        kind, boxes = _boxes(size, boxes_key, settings.boxes, scale)
        share = settings.weight / (1 + settings.weight)
        return jnp.where(kind < share, boxes, strokes)

    if max_area >= 1:
        return raster.unpack(once(key), size)
    limit = math.floor(max_area * size[0] * size[1])
    return raster.unpack(redraw(once, lambda p: raster.area(p) <= limit, key), size)


# The four directions of a step, 0.01 + {0, 1, 2, 3} radians from the downward axis, as
# (row, column). Odd strokes, counted from zero, take them; even ones their mirror
# images, for which the code takes 3.1415926 for pi.
_ANGLE = 0.01 + np.arange(4)
_MIRRORED = 2 * 3.1415926 - _ANGLE
_DIRECTIONS = np.stack(
    [np.stack([np.cos(a), np.sin(a)], axis=-1) for a in (_MIRRORED, _ANGLE)]
).astype(np.float32)

_SEGMENTS = 5


def _strokes(size: Size, key: jax.Array, settings: _Strokes, scale: float) -> jax.Array:
    """Returns packed strokes of one to five segments each."""
    most = settings.number[1] + 1
    number, segments, start, chance = chances(
        key, (), (most, 1), (most, 2), (3, most, _SEGMENTS)
    )
    number = whole(number, settings.number[0], most)
    segments = whole(segments, 1, _SEGMENTS)
    start = whole(start, 0, jnp.array([size]) - 1)
    angle = whole(chance[0], 0, len(_ANGLE) - 1)
    length = _scaled(whole(chance[1], 10, 9 + settings.length), scale)
    width = _scaled(whole(chance[2], 5, 4 + settings.width), scale)

    direction = jnp.asarray(_DIRECTIONS)[jnp.arange(most)[:, None] % 2, angle]
    # Corners are whole pixels, so rounding the move down rounds the corner down.
    move = jnp.floor(length[..., None] * direction).astype(jnp.int32)
    # OpenCV, which the code draws with, rounds an odd width up.
    radius = raster.brush_radius(width + 1)
    active = (jnp.arange(most)[:, None] < number) & (
        jnp.arange(_SEGMENTS)[None, :] < segments
    )
    corners = walks.clipped(start, move, 0, jnp.array([size]))
    return raster.strokes(size, corners, radius, active)


def _boxes(
    size: Size, key: jax.Array, settings: _Boxes, scale: float
) -> tuple[jax.Array, jax.Array]:
    """Returns one more random number in [0, 1) and packed boxes."""
    most = settings.number[1]
    margin = round(scale * settings.margin)
    kind, number, chance = chances(key, (), (), (2, most, 2))
    number = whole(number, *settings.number)
    room = jnp.array([size]) - 2 * margin
    shortest, longest = (max(1, round(scale * side)) for side in settings.side)
    sides = whole(chance[0], shortest, jnp.minimum(longest, room))
    place = margin + whole(chance[1], 0, room - sides)
    active = jnp.arange(most) < number
    packed = raster.boxes(
        size, place[:, 0], place[:, 1], sides[:, 0], sides[:, 1], active
    )
    return kind, packed


def _scaled(pixels: jax.Array, scale: float) -> jax.Array:
    return jnp.maximum(1, jnp.round(pixels * scale).astype(jnp.int32))
