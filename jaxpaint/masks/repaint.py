"""The six test masks of RePaint (Lugmayr et al. 2022), section 5.

Geometry as in the mask files of the paper at 256 x 256 pixels, turned to 1 = hole. Half
and Expand scale with the image, the two pixel patterns do not.
"""

import jax
import jax.numpy as jnp

from jaxpaint.masks.lama import lama_thick, lama_thin
from jaxpaint.masks.raster import Size


def wide(size: Size, key: jax.Array) -> jax.Array:
    """Returns a "Wide" mask: thick strokes of LaMa, at most half hole; `[H, W, 1]`."""
    return lama_thick(size, key, max_area=0.5)


def narrow(size: Size, key: jax.Array) -> jax.Array:
    """Returns a "Narrow" mask: thin strokes of LaMa, at most half hole; `[H, W, 1]`."""
    return lama_thin(size, key, max_area=0.5)


def super_resolve_2x(size: Size, key: jax.Array) -> jax.Array:
    """Returns holes everywhere but at odd rows and columns (from 0); `[H, W, 1]`."""
    del key
    row, column = _grid(size)
    return _mask((row % 2 == 0) | (column % 2 == 0))


def alternating_lines(size: Size, key: jax.Array) -> jax.Array:
    """Returns holes in every second row, the first included; `[H, W, 1]`."""
    del key
    row, column = _grid(size)
    return _mask((row % 2 == 0) & (column >= 0))


def half(size: Size, key: jax.Array) -> jax.Array:
    """Returns a hole over the right half, the middle column included; `[H, W, 1]`."""
    del key
    row, column = _grid(size)
    return _mask((row >= 0) & (column >= size[1] // 2))


def expand(size: Size, key: jax.Array) -> jax.Array:
    """Returns a hole around the centre quarter (per side), as known; `[H, W, 1]`."""
    del key
    known = jnp.array(True)
    for index, length in zip(_grid(size), size, strict=True):
        start = (length - length // 4) // 2
        known = known & (index >= start) & (index < start + length // 4)
    return _mask(~known)


def _grid(size: Size) -> tuple[jax.Array, jax.Array]:
    """Returns row numbers `[H, 1]` and column numbers `[1, W]`."""
    return jnp.arange(size[0])[:, None], jnp.arange(size[1])[None, :]


def _mask(hole: jax.Array) -> jax.Array:
    return hole[:, :, None].astype(jnp.float32)
