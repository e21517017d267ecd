"""Generator and critics of DeepFill v1 (Yu et al. 2018).

As the official TensorFlow code builds them, and with its names of the generator's
layers. There is no normalization anywhere.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.images import compose
from jaxpaint.layers import nearest
from jaxpaint.layers.contextual_attention import contextual_attention
from jaxpaint.layers.same_conv import SameConv

_DILATIONS = {7: 2, 8: 4, 9: 8, 10: 16}


class Generator(nn.Module):
    """A coarse network and a refinement with contextual attention.

    `width` is that of the first layer, 32 in the released models.
    """

    width: int = 32
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, image: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Maps a picture and its hole to the coarse and the refined picture.

        Args:
          image: `[B, H, W, 3]` in [-1, 1], sides multiples of 8; what is under the hole
            is not read.
          mask: `[B, H, W, 1]`, 1 = hole.

        Returns:
          Float32 `[B, H, W, 3]` in [-1, 1], twice; known pixels are predicted too.
        """
        conv = nn.remat(SameConv) if self.remat else SameConv
        conv = functools.partial(conv, dtype=self.dtype)
        one, two, four = self.width, 2 * self.width, 4 * self.width

        def encode(x: jax.Array, name: str, widths: tuple[int, ...]) -> jax.Array:
            """Layers 1 to 5: to a quarter of the sides."""
            x = conv(widths[0], 5, name=f"{name}1")(x)
            x = conv(widths[1], stride=2, name=f"{name}2_downsample")(x)
            x = conv(widths[2], name=f"{name}3")(x)
            x = conv(widths[3], stride=2, name=f"{name}4_downsample")(x)
            return conv(four, name=f"{name}5")(x)

        def widen(x: jax.Array, name: str) -> jax.Array:
            """Layers 6 to 10, of which four are dilated."""
            x = conv(four, name=f"{name}6")(x)
            for number, dilation in _DILATIONS.items():
                x = conv(four, dilation=dilation, name=f"{name}{number}_atrous")(x)
            return x

        def decode(x: jax.Array, name: str) -> jax.Array:
            """Layers 11 to 17: back to a picture."""
            x = conv(four, name=f"{name}11")(x)
            x = conv(four, name=f"{name}12")(x)
            x = conv(two, upsample=True, name=f"{name}13_upsample")(x)
            x = conv(two, name=f"{name}14")(x)
            x = conv(one, upsample=True, name=f"{name}15_upsample")(x)
            x = conv(one // 2, name=f"{name}16")(x)
            x = conv(3, activation=_linear, name=f"{name}17")(x)
            return jnp.clip(x.astype(jnp.float32), -1, 1)

        known = jnp.where(mask > 0.5, 0.0, image)
        about = [jnp.ones_like(mask), mask]
        x = encode(
            jnp.concatenate([known, *about], axis=-1), "conv", (one, two, two, four)
        )
        coarse = decode(widen(x, "conv"), "conv")
        pasted = jnp.concatenate([compose(known, coarse, mask), *about], axis=-1)
        seen = widen(encode(pasted, "xconv", (one, one, two, two)), "xconv")
        x = encode(pasted, "pmconv", (one, one, two, four))
        x = conv(four, activation=nn.relu, name="pmconv6")(x)
        # Reduced in two steps, here and in the attention: one would take other pixels.
        x = x.astype(jnp.float32)
        small = nearest.resize(mask, *x.shape[1:3])
        x = contextual_attention(x, x, small).output
        x = conv(four, name="pmconv9")(x.astype(self.dtype))
        x = conv(four, name="pmconv10")(x)
        refined = decode(jnp.concatenate([seen, x], axis=-1), "allconv")
        return coarse, refined


class Critic(nn.Module):
    """Rates pictures of one size: four convolutions of stride 2 and a dense layer.

    The released ones have features of 64, 128, 256, and at last 512 for the critic of
    the box around the hole or 256 for that of the whole picture.
    """

    width: int
    last: int
    """Features of the last convolution."""
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, 3]` to float32 `[B]`, greater for true pictures."""
        conv = nn.remat(SameConv) if self.remat else SameConv
        leaky = functools.partial(nn.leaky_relu, negative_slope=0.2)
        widths = (self.width, 2 * self.width, 4 * self.width, self.last)
        for number, width in enumerate(widths, start=1):
            layer = conv(
                width,
                5,
                stride=2,
                activation=leaky,
                dtype=self.dtype,
                name=f"conv{number}",
            )
            x = layer(x)
        dense = nn.Dense(
            1,
            dtype=self.dtype,
            kernel_init=nn.initializers.glorot_uniform(),
            name="output",
        )
        return dense(x.reshape(len(x), -1))[:, 0].astype(jnp.float32)


def _linear(x: jax.Array) -> jax.Array:
    return x
