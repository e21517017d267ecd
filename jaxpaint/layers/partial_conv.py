"""Partial convolution (Liu et al. 2018, equations 1 and 2)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxpaint.layers.convolution import convolve


class PartialConv(nn.Module):
    """Convolution over known pixels only, which also says what it could compute.

    With the window sum `S` of the known entries and the number `A` of entries of a
    window, the output is `(W * (x known)) A / S + b` where `S > 0`, and 0, without the
    bias, elsewhere; the new mask is `S > 0`. Zero padding counts as unknown.
    Parameters are `kernel` `[k, k, I, features]` and, on request, `bias`.

    In the paper every channel has its own mask. Those of one tensor are always equal,
    so that one is kept for each tensor, and its window sum is multiplied by the number
    of channels: the same result for a small part of the cost.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    use_bias: bool = True
    window_scale: bool = True
    """False leaves `A` out, as some published weights need."""
    dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.he_normal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(
        self, inputs: Sequence[jax.Array], known: Sequence[jax.Array] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the output `[B, H', W', features]` and its mask `[B, H', W', 1]`.

        Args:
          inputs: tensors `[B, H, W, C_i]` with equal sides, joined along the channels
            in this order. Their unknown pixels are never read, NaN included.
          known: for each of them a mask `[B, H, W, 1]` of 0 and 1, **1 = known**; by
            default all is known, and the layer replaces zero padding ("partial
            convolution based padding", Liu et al. 2018b). Takes no gradient.
        """
        if known is None:
            known = [jnp.ones((1, *x.shape[1:3], 1)) for x in inputs]
        known = [lax.stop_gradient(mask.astype(jnp.float32)) for mask in known]
        joined = jnp.concatenate(
            [
                jnp.where(mask > 0, x.astype(self.dtype), 0)
                for x, mask in zip(inputs, known, strict=True)
            ],
            axis=-1,
        )
        channels, size = joined.shape[-1], self.kernel_size
        kernel = self.param(
            "kernel", self.kernel_init, (size, size, channels, self.features)
        )
        y = convolve(
            joined,
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        # One map serves the channels of all tensors.
        weights = [mask * x.shape[-1] for x, mask in zip(inputs, known, strict=True)]
        ratio, seen = renormalization(
            functools.reduce(jnp.add, weights),
            size * size * channels if self.window_scale else 1,
            kernel_size=size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        y = y * ratio.astype(self.dtype)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,))
            y = y + jnp.where(seen, bias.astype(self.dtype)[None, None, None], 0)
        return y, seen.astype(jnp.float32)


def renormalization(
    count: jax.Array,
    area: int,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Returns `area / S`, 0 where `S` is, and where `S` is not; both `[B, H', W', 1]`.

    `S` is the window sum of `count` `[B, H, W, 1]`, known entries of each pixel: whole
    numbers, whose sums are exact in float32.
    """
    total = lax.reduce_window(
        count.astype(jnp.float32),
        np.float32(0),
        lax.add,
        (1, kernel_size, kernel_size, 1),
        (1, stride, stride, 1),
        ((0, 0), (padding, padding), (padding, padding), (0, 0)),
        window_dilation=(1, dilation, dilation, 1),
    )
    seen = total > 0
    return jnp.where(seen, area / jnp.maximum(total, 1), 0), seen
