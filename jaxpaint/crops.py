"""Squares cut out of pictures and put back on the device, for networks of one size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxpaint.types import Window


class Crop(NamedTuple):
    """A square of each picture at the size of a network, and the way back."""

    image: jax.Array
    """`[B, S, S, C]`; pixels of mixed origin show what is known of them."""
    mask: jax.Array
    """`[B, S, S, 1]`, 1 = hole: less than half of the pixel is known."""
    take: tuple[jax.Array, jax.Array]
    """Weights `[B, S, H]` and `[B, S, W]` that cut the square out."""
    put: tuple[jax.Array, jax.Array]
    """Weights `[B, H, S]` and `[B, W, S]` that bring results back."""

    def cut(self, picture: jax.Array) -> jax.Array:
        """Returns the square `[B, S, S, C]` of another picture `[B, H, W, C]`."""
        return resample(picture, *self.take)

    def back(self, result: jax.Array) -> jax.Array:
        """Returns `[B, S, S, C]` at its place in `[B, H, W, C]`; continued outside."""
        return resample(result, *self.put)


def around_hole(image: jax.Array, mask: jax.Array, size: int) -> Crop:
    """Returns squares that show the hole with its surroundings, scaled to `size`.

    Pictures are scaled down where the hole would take more than half of the square's
    side, never up; a square larger than the picture is filled up by mirroring. A
    picture of `size` comes back as it is.
    """
    sides = image.shape[1:3]
    low, high = zip(*(extent(mask, axes) for axes in ((2, 3), (1, 3))), strict=True)
    longer = jnp.maximum(high[0] - low[0], high[1] - low[1])
    scale = jnp.clip(2 * longer / size, 1, max(1, max(sides) / size))
    take, put = [], []
    for side, first, last in zip(sides, low, high, strict=True):
        room = side - scale * size
        start = jnp.round((first + last - scale * size) / 2)
        start = jnp.where(room < 0, jnp.round(room / 2), jnp.clip(start, 0, room))
        take.append(sampling(start, scale, size, side, reflect=True))
        put.append(sampling(-start / scale, 1 / scale, side, size, reflect=False))
    share = resample(1 - mask, *take)
    known = resample(jnp.where(mask > 0.5, 0, image), *take)
    hole = (share < 0.5).astype(jnp.float32)
    known = known / jnp.maximum(share, 1e-6)
    return Crop(known, hole, (take[0], take[1]), (put[0], put[1]))


def window(size: int) -> Window:
    """Returns how much of a photo `around_hole` must get, to cut out such squares."""
    return Window(margin=size // 8, relative=0.5, size=size)


def extent(mask: jax.Array, axes: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Returns the first pixel of the hole along the other axis, and the one behind."""
    found = jnp.any(mask > 0.5, axis=axes)
    return jnp.argmax(found, axis=1), found.shape[1] - jnp.argmax(
        found[:, ::-1], axis=1
    )


def sampling(
    start: jax.Array, scale: jax.Array, count: int, length: int, *, reflect: bool
) -> jax.Array:
    """Returns weights `[B, count, length]` that resample one axis of a picture.

    Sample i covers pixels from `start + i scale` to `start + (i + 1) scale`, with
    linear interpolation or, for large scales, a triangle over two samples. Outside, the
    picture is mirrored with `reflect`, otherwise continued by its border. A start of 0
    and a scale of 1 give the identity exactly.
    """
    middle = start[:, None] + (jnp.arange(count) + 0.5)[None] * scale[:, None]
    if reflect:
        middle = middle % (2 * length)
        middle = jnp.minimum(middle, 2 * length - middle)
    middle = jnp.clip(middle, 0.5, length - 0.5) - 0.5
    distance = jnp.abs(middle[:, :, None] - jnp.arange(length)[None, None])
    width = jnp.maximum(scale, 1)[:, None, None]
    weights = jnp.maximum(1 - distance / width, 0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def resample(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Returns a picture `[B, H, W, C]` resampled with the weights of both axes."""
    return jnp.einsum(
        "byh,bhwc,bxw->byxc", rows, image, columns, precision=jax.lax.Precision.HIGHEST
    )
