"""Convolution with the paddings of TensorFlow's `SAME`, zeros around the picture."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.layers.convolution import convolve, convolve_upsampled
from jaxpaint.layers.elu import elu


class SameConv(nn.Module):
    """Convolution with a bias, and its activation."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    upsample: bool = False
    """Whether the convolution sees `x` with each pixel doubled along both axes."""
    activation: Callable[[jax.Array], jax.Array] = elu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, I]` to `[B, ceil(H / stride), .., features]` of `dtype`."""
        size = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), size)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = convolve_same(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            dilation=self.dilation,
            upsample=self.upsample,
        )
        return self.activation(y + bias.astype(self.dtype)[None, None, None])


def convolve_same(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    dilation: int = 1,
    upsample: bool = False,
) -> jax.Array:
    """Returns the cross-correlation of `[B, H, W, I]` with `[k, k, I, O]`, k odd.

    Sides are those of `x` divided by the stride and rounded up; with `upsample`, for a
    stride of 1, pixels are doubled along both axes first.
    """
    size = kernel.shape[0]
    if upsample:
        return convolve_upsampled(x, kernel, padding=size // 2)
    if stride == 1:
        return convolve(x, kernel, padding=dilation * (size // 2), dilation=dilation)
    x = pad_same(x, size, stride, dilation)
    return convolve(x, kernel, stride=stride, dilation=dilation)


def pad_same(x: jax.Array, size: int, stride: int, dilation: int = 1) -> jax.Array:
    """Returns `x` with the zeros of TensorFlow's `SAME`: odd ones at the far end."""
    pads = []
    for side in x.shape[1:3]:
        reach = dilation * (size - 1) + 1
        total = max((-(-side // stride) - 1) * stride + reach - side, 0)
        pads.append((total // 2, total - total // 2))
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))
