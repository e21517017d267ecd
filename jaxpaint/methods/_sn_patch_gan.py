"""SN-PatchGAN, the discriminator of DeepFill v2 (Yu et al. 2019), and its losses."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.layers.spectral_norm import SpectralConv


class Discriminator(nn.Module):
    """SN-PatchGAN: judges every place of a picture, at six scales of features."""

    width: int = 64
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps picture, mask and, if guided, sketch, `[B, H, W, 4 or 5]`, to float32
        scores `[B, H / 64, W / 64, 4 width]`, positive for true pictures.
        """
        conv = nn.remat(SpectralConv) if self.remat else SpectralConv
        for number, factor in enumerate((1, 2, 4, 4, 4, 4), start=1):
            x = conv(factor * self.width, 5, 2, self.dtype, name=f"conv{number}")(x)
            # The last layer too, as in the official code.
            x = nn.leaky_relu(x, 0.2)
        return x.astype(jnp.float32)


def hinge(real: jax.Array, fake: jax.Array, factor: float = 0.5) -> jax.Array:
    """Returns the discriminator's loss of scores, the mean over all places.

    The official code takes half of each term, the paper (section 3.3) all of it.
    """
    return factor * (jnp.mean(nn.relu(1 - real)) + jnp.mean(nn.relu(1 + fake)))


def absolute(
    coarse: jax.Array,
    refined: jax.Array,
    truth: jax.Array,
    weights: jax.Array | float = 1.0,
) -> jax.Array:
    """Returns the generator's mean absolute errors; the official weights are 1, in the
    hole and elsewhere.
    """
    errors = jnp.abs(truth - coarse) + jnp.abs(truth - refined)
    return jnp.mean(weights * errors)
