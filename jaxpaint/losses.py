"""Reconstruction losses: pure functions of images and feature maps, in float32.

Images are `[B, H, W, C]`, masks `[B, H, W, 1]` of 0 and 1. Means run over every
element of the whole tensor, batch included.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


def masked_l1(output: jax.Array, truth: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the absolute difference where `mask` is 1, averaged over all elements.

    The terms "hole" and "valid" of Liu et al. (2018), section 3.3, which divide by the
    number of all elements and not of those in the mask.
    """
    difference = output.astype(jnp.float32) - truth.astype(jnp.float32)
    return jnp.mean(jnp.abs(difference) * mask)


def perceptual(features: Sequence[jax.Array], truth: Sequence[jax.Array]) -> jax.Array:
    """Returns the sum over layers of the mean absolute difference of feature maps.

    Liu et al. (2018), equation 3, of one of its two images.
    """
    return sum(
        (_mean_l1(x, y) for x, y in zip(features, truth, strict=True)),
        start=jnp.float32(0),
    )


def style(features: Sequence[jax.Array], truth: Sequence[jax.Array]) -> jax.Array:
    """Returns the sum over layers of the mean absolute difference of Gram matrices.

    Liu et al. (2018), equations 4 and 5, of one of the two images; the normalization
    is that of `gram`, once.
    """
    return sum(
        (_mean_l1(gram(x), gram(y)) for x, y in zip(features, truth, strict=True)),
        start=jnp.float32(0),
    )


def gram(features: jax.Array) -> jax.Array:
    """Returns `F^T F / (H W C)` of feature maps `[B, H, W, C]`: float32 `[B, C, C]`.

    The division comes before the product, which would overflow in 16 bits.
    """
    _, height, width, channels = features.shape
    scale = (height * width * channels) ** -0.5
    scaled = features * jnp.asarray(scale, features.dtype)
    return jnp.einsum(
        "bhwc,bhwd->bcd", scaled, scaled, preferred_element_type=jnp.float32
    )


def total_variation(image: jax.Array, region: jax.Array) -> jax.Array:
    """Returns the absolute differences of neighbours that both lie in `region`.

    Averaged over all pairs of the tensor, for each direction on its own, and added up.
    Liu et al. (2018), equation 6, with a `region` from `dilate`.
    """
    image = image.astype(jnp.float32)
    below = jnp.abs(image[:, 1:] - image[:, :-1]) * region[:, 1:] * region[:, :-1]
    right = (jnp.abs(image[:, :, 1:] - image[:, :, :-1]) * region[:, :, 1:]) * region[
        :, :, :-1
    ]
    return jnp.mean(below) + jnp.mean(right)


def dilate(mask: jax.Array) -> jax.Array:
    """Returns a mask grown by one pixel, diagonals included."""
    return nn.max_pool(mask, (3, 3), padding="SAME")


def spatial_discount(height: int, width: int, discount: float) -> np.ndarray:
    """Returns weights that fall from the border of a box inwards, `[1, H, W, 1]`.

    `max(discount ** i, discount ** j)` with i and j the distances in pixels to the
    nearest horizontal and vertical border. Yu et al. (2018), section 3.2; as in the
    official code, the first row and column count as 0 and the last ones as 1. With
    `masked_l1`, whose mask may be any weights, this is the spatially discounted L1.
    """
    rows, columns = (
        discount ** np.minimum(np.arange(side), side - np.arange(side))
        for side in (height, width)
    )
    weights = np.maximum(rows[:, None], columns[None, :])
    return weights[None, :, :, None].astype(np.float32)


def _mean_l1(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(jnp.abs(x.astype(jnp.float32) - y.astype(jnp.float32)))
