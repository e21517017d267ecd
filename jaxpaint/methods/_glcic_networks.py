"""Completion network and context discriminators of GLCIC (Iizuka et al. 2017).

Layers and widths are those of the paper's tables 1 and 2, batch norm where its text
puts it. Both published ports differ in details, which are options here.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.layers.batch_norm import BatchNorm
from jaxpaint.layers.convolution import Conv, ConvTranspose


class Block(nn.Module):
    """A convolution, batch norm and ReLU; with padding that keeps the side."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    transposed: bool = False
    """Whether the convolution is transposed: kernels of 4 double the side."""
    norm_last: bool = False
    """Whether the norm follows the ReLU; convolutions have biases then, which a norm
    right behind them would take out again."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `[B, H, W, I]` to the sides over or, when transposed, times `stride`."""
        if self.transposed:
            x = ConvTranspose(
                self.features,
                4,
                stride=2,
                padding=1,
                use_bias=self.norm_last,
                dtype=self.dtype,
                name="conv",
            )(x)
        else:
            x = Conv(
                self.features,
                self.kernel_size,
                self.stride,
                self.dilation * (self.kernel_size // 2),
                use_bias=self.norm_last,
                dtype=self.dtype,
                dilation=self.dilation,
                name="conv",
            )(x)
        norm = BatchNorm(dtype=self.dtype, name="norm")
        if self.norm_last:
            return norm(nn.relu(x), train=train)
        return nn.relu(norm(x, train=train))


_ENCODER = ((2, 2), (2, 1), (4, 2), (4, 1), (4, 1))
"""Widths, as multiples, and strides of the layers behind the first."""

_DECODER = (
    *((4, False), (4, False)),
    *((2, True), (2, False)),
    *((1, True), (0.5, False)),
)
"""Widths, and whether a layer doubles the side."""


class Completion(nn.Module):
    """The network that draws: to a quarter of the sides, dilated layers, and back."""

    width: int
    dilations: tuple[int, ...] = (2, 4, 8, 16)
    sigmoid: bool = True
    """Whether it ends with a sigmoid; otherwise with a clip to [-1, 1]."""
    norm_last: bool = False
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `[B, H, W, 4]`, picture and mask, to float32 `[B, H, W, 3]`.

        Sides are multiples of 4.
        """
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        block = functools.partial(block, norm_last=self.norm_last, dtype=self.dtype)
        width = self.width
        x = block(width, kernel_size=5, name="encoder_0")(x, train)
        for i, (times, stride) in enumerate(_ENCODER, start=1):
            layer = block(times * width, stride=stride, name=f"encoder_{i}")
            x = layer(x, train)
        for i, dilation in enumerate(self.dilations):
            x = block(4 * width, dilation=dilation, name=f"dilated_{i}")(x, train)
        for i, (times, up) in enumerate(_DECODER):
            layer = block(
                max(1, int(times * width)), transposed=up, name=f"decoder_{i}"
            )
            x = layer(x, train)
        x = Conv(3, 3, padding=1, dtype=self.dtype, name="output")(x)
        x = x.astype(jnp.float32)
        return nn.sigmoid(x) if self.sigmoid else jnp.clip(x, -1, 1)


def levels(side: int) -> int:
    """Returns how often a side is halved, rounded up, until it is at most 5.

    Six for pictures of 256, five for 160, 128 and 96, as in the paper.
    """
    count = 0
    while side > 5:
        side = -(-side // 2)
        count += 1
    return count


class Branch(nn.Module):
    """One discriminator: convolutions of stride 2, then one dense layer and ReLU."""

    levels: int
    width: int
    features: int
    norm_last: bool = False
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `[B, H, W, 3]` to `[B, features]`; one size for one set of weights."""
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i in range(self.levels):
            x = block(
                self.width * min(2**i, 8),
                kernel_size=5,
                stride=2,
                norm_last=self.norm_last,
                dtype=self.dtype,
                name=f"encoder_{i}",
            )(x, train)
        x = x.reshape(len(x), -1)
        return nn.relu(nn.Dense(self.features, dtype=self.dtype, name="dense")(x))


class Discriminator(nn.Module):
    """Tells completed pictures from true ones by the whole and by a window of it."""

    global_levels: int
    local_levels: int
    width: int
    features: int
    norm_last: bool = False
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, window: jax.Array, train: bool) -> jax.Array:
        """Maps `[B, S, S, 3]` and `[B, L, L, 3]` to float32 logits `[B]`.

        Positive for true pictures.
        """
        judged = [
            Branch(
                count,
                self.width,
                self.features,
                self.norm_last,
                self.dtype,
                self.remat,
                name=name,
            )(x, train)
            for name, count, x in (
                ("global", self.global_levels, image),
                ("local", self.local_levels, window),
            )
        ]
        x = nn.Dense(1, dtype=self.dtype, name="output")(
            jnp.concatenate(judged, axis=-1)
        )
        return x.astype(jnp.float32)[:, 0]
