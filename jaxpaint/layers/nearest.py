"""Nearest resizing with aligned corners, as DeepFill resizes masks and features."""

import jax
import numpy as np


def indices(length: int, count: int) -> np.ndarray:
    """Returns which of `length` pixels the `count` pixels of a resized axis show.

    First and last pixel stay first and last. All in float32 and in this order, as
    TensorFlow computes it: elsewhere ties fall to other pixels, for 54 to 27 and more.
    """
    ends = (length - 1, count - 1) if count > 1 else (length, count)
    scale = np.float32(ends[0]) / np.float32(ends[1])
    middle = np.arange(count, dtype=np.float32) * scale + np.float32(0.5)
    return np.minimum(np.floor(middle).astype(np.int32), length - 1)


def resize(x: jax.Array, height: int, width: int) -> jax.Array:
    """Maps `[B, H, W, C]` to `[B, height, width, C]`; see `indices`."""
    rows, columns = indices(x.shape[1], height), indices(x.shape[2], width)
    return x[:, rows][:, :, columns]
