"""The U-Net of partial convolutions (Liu et al. 2018)."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.layers.batch_norm import BatchNorm
from jaxpaint.layers.partial_conv import PartialConv

_SLOPE = 0.2


class UNet(nn.Module):
    """The network of Liu et al. (2018), section 3.2 and table 1 of its supplement."""

    levels: int
    width: int
    max_width: int
    first_bias: bool = False
    window_scale: bool = True
    freeze_encoder_norm: bool = False
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, image: jax.Array, known: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, H, W, C]` and its mask, **1 = known**, to an image and its mask.

        Sides need not be multiples of `2 ** levels`: those of the encoder are rounded
        up, and the decoder crops to them. Where the new mask is 0, the image is.
        """
        block = nn.remat(Block) if self.remat else Block
        block = functools.partial(
            block, window_scale=self.window_scale, dtype=self.dtype
        )
        channels = image.shape[-1]
        tensors, outputs = [(image, known)], [channels]
        for level in range(1, self.levels + 1):
            first = level == 1
            outputs.append(min(self.width * 2 ** (level - 1), self.max_width))
            encode = block(
                features=outputs[-1],
                kernel_size=7 if first else 5 if level <= 3 else 3,
                stride=2,
                use_bias=first and self.first_bias,
                norm=not first,
                use_statistics=train and not self.freeze_encoder_norm,
                slope=0.0,
                name=f"enc{level}",
            )
            x, mask = tensors[-1]
            tensors.append(encode([x], [mask]))
        x, mask = tensors.pop()
        for level in range(self.levels, 0, -1):
            last = level == 1
            decode = block(
                features=outputs[level - 1],
                kernel_size=3,
                upsample=True,
                use_bias=last,
                norm=not last,
                use_statistics=train,
                slope=1.0 if last else _SLOPE,
                name=f"dec{level}",
            )
            skip, skip_mask = tensors.pop()
            x, mask = decode([x, skip], [mask, skip_mask])
        return x, mask


class Block(nn.Module):
    """Partial convolution, batch norm and leaky ReLU."""

    features: int
    kernel_size: int
    stride: int = 1
    upsample: bool = False
    use_bias: bool = False
    norm: bool = True
    use_statistics: bool = False
    """Whether the norm takes, and records, the statistics of the batch."""
    slope: float = 0.0
    """Of the activation for negative values; 1: no activation."""
    window_scale: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Sequence[jax.Array], known: Sequence[jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Maps tensors and their masks to one; see `PartialConv`."""
        x, mask = PartialConv(
            self.features,
            self.kernel_size,
            self.stride,
            self.kernel_size // 2,
            upsample=self.upsample,
            use_bias=self.use_bias,
            window_scale=self.window_scale,
            dtype=self.dtype,
            name="conv",
        )(inputs, known)
        if self.norm:
            x = BatchNorm(dtype=self.dtype, name="norm")(x, train=self.use_statistics)
        if self.slope != 1:
            x = nn.leaky_relu(x, self.slope)
        return x, mask
