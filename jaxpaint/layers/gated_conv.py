"""Gated convolution: a convolution that learns where its own output counts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.layers.elu import elu
from jaxpaint.layers.same_conv import convolve_same


class GatedConv(nn.Module):
    """`activation(features) * sigmoid(gate)`, both from one convolution.

    Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019, equation
    3. The first half of the kernel's outputs are the features, the second the gate.
    Pads with zeros as TensorFlow's `SAME`.
    """

    features: int
    """Channels of the output, half of the kernel's."""
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    upsample: bool = False
    """Whether the convolution sees `x` with each pixel doubled along both axes."""
    activation: Callable[[jax.Array], jax.Array] = elu
    gain: float = 1.0
    """Of the features' kernel over Glorot's, at the start. The gate halves what passes;
    with 1 a deep stack begins with an output of nearly nothing."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, I]` to `[B, ceil(H / stride), .., features]` of `dtype`."""
        size = (self.kernel_size, self.kernel_size, x.shape[-1], 2 * self.features)
        kernel = self.param("kernel", self._kernel_init, size)
        bias = self.param("bias", nn.initializers.zeros, (2 * self.features,))
        y = convolve_same(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            dilation=self.dilation,
            upsample=self.upsample,
        )
        y = y + bias.astype(self.dtype)[None, None, None]
        features, gate = jnp.split(y, 2, axis=-1)
        return self.activation(features) * nn.sigmoid(gate)

    def _kernel_init(self, key: jax.Array, size: tuple[int, ...]) -> jax.Array:
        kernel = nn.initializers.glorot_uniform()(key, size)
        return kernel.at[..., : self.features].multiply(self.gain)
