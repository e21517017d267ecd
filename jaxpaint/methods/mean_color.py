"""Mean color: every hole pixel becomes the mean of the known ones; a yardstick."""

import jax
import jax.numpy as jnp

from jaxpaint.images import compose
from jaxpaint.types import Method, Window, classical


def make() -> Method:
    """Returns the method, which learned methods are measured against."""
    return classical(_mean_fill, Window(margin=8, relative=1.0))


def _mean_fill(image: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
    del key
    axes = (1, 2)
    known = jnp.sum(jnp.where(mask > 0, 0, image), axes, keepdims=True)
    count = jnp.sum(1 - mask, axes, keepdims=True)
    mean = known / jnp.maximum(count, 1)
    return compose(image, jnp.broadcast_to(mean, image.shape), mask)
