"""Partial convolution (Liu et al. 2018, equations 1 and 2)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxpaint.layers.convolution import convolve, convolve_upsampled, doubled

# Output pixels (of a batch) from which doubling is worth avoiding: for fewer the sums
# over the kernel cost more than the multiplications that they save.
_DOUBLED = 512


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
    upsample: bool = False
    """Whether the first input has half the sides of the others, rounded up, and its
    pixels are doubled along both axes; with stride 1 and dilation 1."""
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
          inputs: tensors `[B, H, W, C_i]` with equal sides but for `upsample`, joined
            along the channels in this order. Their unknown pixels are never read, NaN
            included.
          known: for each of them a mask `[B, H, W, 1]` of 0 and 1, **1 = known**; by
            default all is known, and the layer replaces zero padding ("partial
            convolution based padding", Liu et al. 2018b). Takes no gradient.
        """
        if known is None:
            known = [jnp.ones((1, *x.shape[1:3], 1)) for x in inputs]
        known = [lax.stop_gradient(mask.astype(jnp.float32)) for mask in known]
        # One map of counts serves the channels of all tensors.
        counts = [mask * x.shape[-1] for x, mask in zip(inputs, known, strict=True)]
        seen_inputs = [
            jnp.where(mask > 0, x.astype(self.dtype), 0)
            for x, mask in zip(inputs, known, strict=True)
        ]
        size, channels = self.kernel_size, sum(x.shape[-1] for x in inputs)
        kernel = self.param(
            "kernel", self.kernel_init, (size, size, channels, self.features)
        )
        y = self._convolve(seen_inputs, kernel.astype(self.dtype))
        if self.upsample:
            height, width = counts[1].shape[1:3]
            counts[0] = doubled(counts[0])[:, :height, :width]
        ratio, seen = renormalization(
            functools.reduce(jnp.add, counts),
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

    def _convolve(self, inputs: Sequence[jax.Array], kernel: jax.Array) -> jax.Array:
        first, *rest = inputs
        height, width = inputs[-1].shape[1:3]
        even = height % 2 == width % 2 == 0
        if self.upsample and even and len(first) * height * width > _DOUBLED:
            # Faster than doubling the pixels, with the same result.
            channels = first.shape[-1]
            return convolve_upsampled(
                first, kernel[:, :, :channels], padding=self.padding
            ) + convolve(
                jnp.concatenate(rest, axis=-1),
                kernel[:, :, channels:],
                padding=self.padding,
            )
        if self.upsample:
            first = doubled(first)[:, :height, :width]
        return convolve(
            jnp.concatenate([first, *rest], axis=-1),
            kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )


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
