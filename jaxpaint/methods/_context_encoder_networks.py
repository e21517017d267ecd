"""Generator and discriminator of Context Encoders (Pathak et al. 2016).

Both halve or double the side of their maps with each layer, from and to maps of 4 x 4
pixels, so that the sides of pictures decide how many layers there are. Convolutions
have no bias (the official code sets them to zero before every step) and kernels of 4.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.layers.batch_norm import BatchNorm
from jaxpaint.layers.channelwise_dense import ChannelwiseDense
from jaxpaint.layers.convolution import Conv, ConvTranspose

_INIT = nn.initializers.normal(0.02)


def levels(side: int) -> int:
    """Returns how often 4 is doubled to reach `side`."""
    return int(math.log2(side // 4))


def features(width: int, count: int) -> list[int]:
    """Returns the features of maps from 4 x 4 upwards: 8, 4, 2, 1, 1 .. widths."""
    return [width * max(1, 8 >> i) for i in range(count)]


def _scale_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return 1 + _INIT(key, shape)


class Block(nn.Module):
    """A convolution, batch norm, and a leaky ReLU of slope `leak`."""

    features: int
    stride: int = 2
    padding: int = 1
    transposed: bool = False
    norm: bool = True
    leak: float = 0.2
    kernel_size: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `[B, H, W, I]` to half or, when transposed, twice the sides."""
        layer = ConvTranspose if self.transposed else Conv
        x = layer(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_INIT,
            name="conv",
        )(x)
        if self.norm:
            x = BatchNorm(dtype=self.dtype, scale_init=_scale_init, name="norm")(
                x, train=train
            )
        return nn.leaky_relu(x, self.leak)


class Generator(nn.Module):
    """Encoder, bottleneck and decoder.

    With the released sizes (128 to 64): convolutions of stride 2 to 64, 64, 128, 256,
    512 features; one over the whole 4 x 4 map to 4000; its transpose; transposed
    convolutions of stride 2 to 256, 128, 64 and 3 features; tanh. `channelwise` puts
    a `ChannelwiseDense` and a 1 x 1 convolution in the place of the bottleneck.
    """

    image_size: int
    """Side of the pictures in training; others fit if not `channelwise`."""
    patch_size: int
    """Side of the prediction."""
    encoder_width: int
    decoder_width: int
    bottleneck: int
    channelwise: bool
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps float32 `[B, S, S, 3]` to float32 `[B, P, P, 3]`, both in [-1, 1]."""
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        down = features(self.encoder_width, levels(self.image_size))[::-1]
        first, *up = features(self.decoder_width, levels(self.patch_size))
        for i, width in enumerate(down):
            x = block(width, norm=i > 0, dtype=self.dtype, name=f"encoder_{i}")(
                x, train
            )
        if self.channelwise:
            x = ChannelwiseDense(dtype=self.dtype, kernel_init=_INIT, name="dense")(x)
        else:
            x = block(self.bottleneck, 1, 0, dtype=self.dtype, name="bottleneck")(
                x, train
            )
        x = block(
            first,
            1,
            0,
            transposed=not self.channelwise,
            kernel_size=1 if self.channelwise else 4,
            leak=0.0,
            dtype=self.dtype,
            name="decoder_0",
        )(x, train)
        for i, width in enumerate(up, start=1):
            x = block(
                width, transposed=True, leak=0.0, dtype=self.dtype, name=f"decoder_{i}"
            )(x, train)
        x = ConvTranspose(
            3,
            4,
            stride=2,
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_INIT,
            name="output",
        )(x)
        return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
    """Tells predictions from true pixels; sees nothing of their surroundings.

    For patches of 64: convolutions of stride 2 to 64, 128, 256 and 512 features, then
    one over the whole 4 x 4 map to one number.
    """

    patch_size: int
    width: int
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `[B, P, P, 3]` to float32 logits `[B]`: positive for true pixels."""
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i, width in enumerate(features(self.width, levels(self.patch_size))[::-1]):
            x = block(width, norm=i > 0, dtype=self.dtype, name=f"encoder_{i}")(
                x, train
            )
        x = Conv(
            1, 4, use_bias=False, dtype=self.dtype, kernel_init=_INIT, name="output"
        )(x)
        return x.astype(jnp.float32)[:, 0, 0, 0]
