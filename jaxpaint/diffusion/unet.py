"""The U-Net of guided-diffusion, which is with other flags that of DDPM.

Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, and Ho et
al., "Denoising Diffusion Probabilistic Models", 2020, as diffusers' `UNet2DModel`
stores it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.diffusion.blocks import (
    Conv,
    GroupNorm,
    embed,
    encode,
    middle,
    network_blocks,
)
from jaxpaint.errors import InputError


class UNet(nn.Module):
    """Maps noisy pictures and their timesteps to the noise, and what else is asked."""

    channels: int
    """Of which `multipliers` tell the multiples; products must be multiples of 32."""
    out_channels: int
    """3, or 6 with a learned variance."""
    blocks: int
    """Residual blocks of a level."""
    multipliers: tuple[float, ...]
    """Of the levels, from fine to coarse."""
    attention: tuple[int, ...]
    """Downsampling factors of levels with attention, which the middle always has."""
    heads: int = 4
    head_channels: int = 0
    """Channels of a head; 0: as `heads` divides them."""
    heads_up: int = 0
    """Heads on the way up, without `head_channels`; 0: `heads`."""
    classes: int = 0
    """Of labels; 0: no labels."""
    scale_shift: bool = True
    """Whether the timestep scales and shifts features, or is added to them."""
    resample_blocks: bool = False
    """Whether residual blocks halve and double the sides."""
    convolve_resampled: bool = True
    """Whether convolutions do, without `resample_blocks`."""
    joint_heads: bool = True
    """Whether query, key and value of one head lie together, or those of all heads."""
    dropout: float = 0.0
    sine_first: bool = False
    """Order of the embedding's halves: cosines first, or sines."""
    frequency_shift: float = 0.0
    """See `timestep_features`."""
    norm_epsilon: float = 1e-5
    pad_end: bool = False
    """Whether convolutions with stride 2 pad by one at the end, or at both ends."""
    dtype: Any = jnp.float32
    """Of most of the computation; norms, embeddings and the last layer have float32."""
    remat: bool = False
    """Whether blocks are computed again for gradients."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        label: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Maps `[B, H, W, C]` to float32 `[B, H, W, out_channels]`.

        Args:
          x: noisy pictures; sides are multiples of `2 ** (levels - 1)`.
          t: timesteps `[B]` as numbered in training, whatever steps a sampler leaves
            out.
          label: integers `[B]`, with `classes` only.
          train: apply dropout, which takes the random key `dropout`.

        Raises:
          InputError: sides or labels that do not fit the network.
        """
        made = network_blocks(
            scale_shift=self.scale_shift,
            resample_blocks=self.resample_blocks,
            convolve_resampled=self.convolve_resampled,
            joint_heads=self.joint_heads,
            heads=self.heads,
            head_channels=self.head_channels,
            dropout=self.dropout,
            norm_epsilon=self.norm_epsilon,
            pad_end=self.pad_end,
            train=train,
            dtype=self.dtype,
            remat=self.remat,
        )
        embedding = embed(
            t,
            self.channels,
            sine_first=self.sine_first,
            shift=self.frequency_shift,
        )
        if bool(self.classes) != (label is not None):
            raise InputError(
                f"the network knows {self.classes} classes, but labels are "
                f"{'given' if self.classes == 0 else 'missing'}"
            )
        if label is not None:
            table = nn.Embed(
                self.classes,
                4 * self.channels,
                embedding_init=nn.initializers.normal(1.0),
                name="label",
            )
            embedding = embedding + table(label)
        # Every block begins with it.
        embedding = nn.silu(embedding)

        maps = encode(
            made,
            x,
            embedding,
            channels=self.channels,
            blocks=self.blocks,
            multipliers=self.multipliers,
            attention=self.attention,
            dtype=self.dtype,
        )
        h = middle(made, maps[-1], embedding)
        heads = self.heads_up or self.heads
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            features = round(multiplier * self.channels)
            for i in range(self.blocks + 1):
                name = f"up{level}_{i}"
                h = jnp.concatenate([h, maps.pop()], axis=-1)
                h = made.res(features=features, name=name)(h, embedding)
                if 2**level in self.attention:
                    h = made.attention(heads=heads, name=f"{name}_attention")(h)
            if level:
                up = made.up(features=features, name=f"up{level}_resample")
                h = up(h, embedding)
        h = nn.silu(GroupNorm(self.norm_epsilon, name="norm")(h))
        return Conv(self.out_channels, zero=True, name="output")(h)
