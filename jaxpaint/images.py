"""Pure functions on image arrays: value ranges, composition.

Images are float32 `[B, H, W, C]` in [-1, 1], masks float32 `[B, H, W, 1]`, 1 = hole.
Conversions between ranges run on the host, on numpy arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.errors import InputError
from jaxpaint.types import Batch


def to_float(image: np.ndarray) -> np.ndarray:
    """Returns a uint8 image as float32 in [-1, 1]."""
    return image.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Returns an image in [-1, 1] as uint8; inverse of `to_float` on all 256 values.

    Rounds to nearest: plain truncation would change 63 of the 256 values.
    """
    return np.clip(np.round((np.asarray(image) + 1) * 127.5), 0, 255).astype(np.uint8)


def check_size(image: jax.Array, image_size: int) -> None:
    """Raises InputError unless a training batch is `[B, image_size, image_size, 3]`."""
    if image.shape[1:] != (image_size, image_size, 3):
        raise InputError(
            f"pictures have shape {list(image.shape[1:])}; this model wants "
            f"[{image_size}, {image_size}, 3]: set data.image_size={image_size}, or "
            "the option image_size of the method"
        )


def check_batch(batch: Batch, image_size: int) -> None:
    """Raises InputError unless `check_size` passes and the masks fit the pictures."""
    image, mask = batch["image"], batch["mask"]
    check_size(image, image_size)
    if mask.shape != (*image.shape[:3], 1):
        raise InputError(
            f"masks have shape {list(mask.shape)}; want {[*image.shape[:3], 1]}"
        )


def compose(image: jax.Array, fill: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns `fill` where `mask` is 1 and `image`, bit for bit, where it is 0."""
    return jnp.where(mask > 0.5, fill.astype(image.dtype), image)
