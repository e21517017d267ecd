"""Convolution and transposed convolution with the sizes and paddings of PyTorch.

Published networks count padding in pixels on both sides, which flax's `"SAME"` does not
give for even kernels and strides; kernels here are `[kh, kw, in, out]`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> jax.Array:
    """Returns the cross-correlation of `[B, H, W, I]` with `[kh, kw, I, O]`.

    The output's side is `(H + 2 padding - dilation (kh - 1) - 1) // stride + 1`.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_LAYOUT,
    )


def convolve_transposed(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0
) -> jax.Array:
    """Returns the adjoint of `convolve`: pixel i adds to `i stride - padding + k`.

    Maps `[B, H, W, I]` with `[kh, kw, I, O]`, which is not flipped, to the side
    `(H - 1) stride - 2 padding + kh`.
    """
    height, width = kernel.shape[:2]
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        [(k - 1 - padding, k - 1 - padding) for k in (height, width)],
        lhs_dilation=(stride, stride),
        dimension_numbers=_LAYOUT,
    )


class Conv(nn.Module):
    """Convolution with square kernels; parameters `kernel` and, on request, `bias`."""

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.he_normal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, I]` to `[B, H', W', features]` of `dtype`."""
        size = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, size)
        y = convolve(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        return _add_bias(self, y)


class ConvTranspose(nn.Module):
    """Transposed convolution with square kernels; parameters as in `Conv`."""

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.he_normal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, I]` to `[B, H', W', features]` of `dtype`."""
        size = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, size)
        y = convolve_transposed(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
        )
        return _add_bias(self, y)


def _add_bias(module: Conv | ConvTranspose, y: jax.Array) -> jax.Array:
    if not module.use_bias:
        return y
    bias = module.param("bias", module.bias_init, (module.features,))
    return y + bias.astype(module.dtype)[None, None, None]
