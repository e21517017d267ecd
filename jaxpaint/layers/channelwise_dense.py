"""Channel-wise fully connected layer (Pathak et al. 2016, section 3.1)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class ChannelwiseDense(nn.Module):
    """A dense layer from all pixels to all pixels, another one for each channel.

    `y[n, q, c] = sum_p x[n, p, c] kernel[c, p, q] + bias[c, q]` with pixels p, q row
    by row: `C (H W)^2` weights where a dense layer over everything has `(C H W)^2`.
    A convolution that follows it mixes the channels.
    """

    dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.normal(0.02)
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape, of `dtype`; H and W are fixed."""
        batch, height, width, channels = x.shape
        pixels = height * width
        kernel = self.param("kernel", self.kernel_init, (channels, pixels, pixels))
        bias = self.param("bias", self.bias_init, (channels, pixels))
        flat = x.reshape(batch, pixels, channels).astype(self.dtype)
        y = jnp.einsum("npc,cpq->nqc", flat, kernel.astype(self.dtype))
        y = y + bias.T.astype(self.dtype)[None]
        return y.reshape(x.shape)
