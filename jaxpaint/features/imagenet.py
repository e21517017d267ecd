"""The scale of images on which networks of torchvision were trained."""

import jax
import jax.numpy as jnp
import numpy as np

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalize(image: jax.Array) -> jax.Array:
    """Returns images `[B, H, W, 3]` in [-1, 1] with mean 0, deviation 1 on ImageNet."""
    mean, std = jnp.asarray(_MEAN), jnp.asarray(_STD)
    return ((image + 1) / 2 - mean[None, None, None]) / std[None, None, None]


def restore(image: jax.Array) -> jax.Array:
    """Returns the inverse of `normalize`."""
    mean, std = jnp.asarray(_MEAN), jnp.asarray(_STD)
    return (image * std[None, None, None] + mean[None, None, None]) * 2 - 1
