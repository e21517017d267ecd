"""The generator of DeepFill v2 (Yu et al. 2019).

As the official TensorFlow code builds them, and with its names of layers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.images import compose
from jaxpaint.layers import nearest
from jaxpaint.layers.contextual_attention import contextual_attention
from jaxpaint.layers.convolution import Conv
from jaxpaint.layers.gated_conv import GatedConv

_DILATIONS = {7: 2, 8: 4, 9: 8, 10: 16}


class Generator(nn.Module):
    """A coarse network and a refinement with contextual attention.

    `width` is the kernel's outputs of the first layer, 48 in the released models, of
    which a gated convolution emits half.
    """

    width: int = 48
    gain: float = 1.0
    """Of the layers' first weights, see `GatedConv`."""
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, image: jax.Array, mask: jax.Array, sketch: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Maps a picture and its hole to the coarse and the refined picture.

        Args:
          image: `[B, H, W, 3]` in [-1, 1], sides multiples of 8; what is under the hole
            is not read.
          mask: `[B, H, W, 1]`, 1 = hole.
          sketch: `[B, H, W, 1]`, 1 = line, of the guided network.

        Returns:
          Float32 `[B, H, W, 3]` in [-1, 1], twice; known pixels are predicted too.
        """
        gated = nn.remat(GatedConv) if self.remat else GatedConv
        gated = functools.partial(gated, gain=self.gain, dtype=self.dtype)
        one, two, four = self.width // 2, self.width, 2 * self.width

        def encode(x: jax.Array, name: str, widths: tuple[int, ...]) -> jax.Array:
            """Layers 1 to 5: to a quarter of the sides."""
            x = gated(widths[0], 5, name=f"{name}1")(x)
            x = gated(widths[1], stride=2, name=f"{name}2_downsample")(x)
            x = gated(widths[2], name=f"{name}3")(x)
            x = gated(widths[3], stride=2, name=f"{name}4_downsample")(x)
            return gated(four, name=f"{name}5")(x)

        def widen(x: jax.Array, name: str) -> jax.Array:
            """Layers 6 to 10, of which four are dilated."""
            x = gated(four, name=f"{name}6")(x)
            for number, dilation in _DILATIONS.items():
                x = gated(four, dilation=dilation, name=f"{name}{number}_atrous")(x)
            return x

        def decode(x: jax.Array, name: str) -> jax.Array:
            """Layers 11 to 17: back to a picture."""
            x = gated(four, name=f"{name}11")(x)
            x = gated(four, name=f"{name}12")(x)
            x = gated(two, upsample=True, name=f"{name}13_upsample")(x)
            x = gated(two, name=f"{name}14")(x)
            x = gated(one, upsample=True, name=f"{name}15_upsample")(x)
            x = gated(one // 2, name=f"{name}16")(x)
            last = Conv(
                3,
                3,
                padding=1,
                dtype=self.dtype,
                kernel_init=nn.initializers.glorot_uniform(),
                name=f"{name}17",
            )
            return jnp.tanh(last(x).astype(jnp.float32))

        known = jnp.where(mask > 0.5, 0.0, image)
        lines = [] if sketch is None else [sketch * mask]
        x = jnp.concatenate([known, *lines, jnp.ones_like(mask), mask], axis=-1)
        x = encode(x, "conv", (one, two, two, four))
        coarse = decode(widen(x, "conv"), "conv")
        pasted = compose(known, coarse, mask)
        seen = widen(encode(pasted, "xconv", (one, one, two, two)), "xconv")
        x = encode(pasted, "pmconv", (one, one, two, four))
        x = gated(four, activation=nn.relu, name="pmconv6")(x)
        # Reduced in two steps, here and in the attention: one would take other pixels.
        x = x.astype(jnp.float32)
        small = nearest.resize(mask, *x.shape[1:3])
        x = contextual_attention(x, x, small).output
        x = gated(four, name="pmconv9")(x.astype(self.dtype))
        x = gated(four, name="pmconv10")(x)
        refined = decode(jnp.concatenate([seen, x], axis=-1), "allconv")
        return coarse, refined
