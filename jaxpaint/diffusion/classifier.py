"""Classifiers of noisy pictures, which guide a diffusion model to a class.

Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, section 4:
the encoder of the U-Net and a pool.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.diffusion.blocks import (
    Dense,
    GroupNorm,
    embed,
    encode,
    head_count,
    middle,
    network_blocks,
    parts,
)
from jaxpaint.errors import InputError, unknown_name
from jaxpaint.layers.attention import attend

_HIDDEN = 2048


class Classifier(nn.Module):
    """Maps noisy pictures and their timesteps to logits of classes."""

    image_size: int
    """Side of square pictures: the attention pool knows no other."""
    channels: int
    classes: int
    blocks: int
    multipliers: tuple[float, ...]
    attention: tuple[int, ...]
    pool: str = "attention"
    """`attention`, `adaptive` (the mean), `spatial` or `spatial_v2` (a small network
    on the means of all blocks)."""
    heads: int = 1
    head_channels: int = 64
    scale_shift: bool = True
    resample_blocks: bool = True
    convolve_resampled: bool = True
    joint_heads: bool = True
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps `[B, H, W, C]` and timesteps `[B]` to float32 `[B, classes]`.

        Fields are those of `UNet`. The released classifiers of guided-diffusion have
        the pool `attention`; with it, H and W are `image_size`.

        Raises:
          InputError: sides that do not fit the network, or an unknown pool.
        """
        if self.pool not in _POOLS:
            raise unknown_name("pool", self.pool, _POOLS)
        size = (self.image_size, self.image_size)
        if self.pool == "attention" and x.shape[1:3] != size:
            raise InputError(
                f"pictures have {x.shape[2]} x {x.shape[1]} pixels; the classifier's "
                f"attention pool wants {size[0]} x {size[1]}"
            )
        made = network_blocks(
            scale_shift=self.scale_shift,
            resample_blocks=self.resample_blocks,
            convolve_resampled=self.convolve_resampled,
            joint_heads=self.joint_heads,
            heads=self.heads,
            head_channels=self.head_channels,
            dropout=self.dropout,
            norm_epsilon=1e-5,
            pad_end=False,
            train=train,
            dtype=self.dtype,
            remat=self.remat,
        )
        embedding = nn.silu(embed(t, self.channels))
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
        maps.append(middle(made, maps[-1], embedding))
        return _POOLS[self.pool](self, [m.astype(jnp.float32) for m in maps])


# Each maps the maps of all blocks to logits, in a compact method.


def _attention(network: Classifier, maps: list[jax.Array]) -> jax.Array:
    """The mean looks at all pixels, which know their places (as in CLIP)."""
    h = nn.silu(GroupNorm(name="norm")(maps[-1]))
    tokens = h.reshape(len(h), -1, h.shape[-1])
    tokens = jnp.concatenate([jnp.mean(tokens, axis=1, keepdims=True), tokens], axis=1)
    places = network.param(
        "places",
        nn.initializers.normal(1 / math.sqrt(tokens.shape[-1])),
        tokens.shape[1:],
    )
    tokens = tokens + places[None]
    heads = head_count(tokens.shape[-1], network.heads, network.head_channels)
    mixed = Dense(3 * tokens.shape[-1], name="pool_qkv")(tokens)
    query, key, value = parts(mixed, heads, joint=False)
    seen = attend(query[:, :1], key, value).reshape(len(h), -1)
    return Dense(network.classes, name="pool_out")(seen)


def _adaptive(network: Classifier, maps: list[jax.Array]) -> jax.Array:
    h = nn.silu(GroupNorm(name="norm")(maps[-1]))
    return Dense(network.classes, zero=True, name="pool_out")(jnp.mean(h, axis=(1, 2)))


def _spatial(network: Classifier, maps: list[jax.Array], *, norm: bool) -> jax.Array:
    means = jnp.concatenate([jnp.mean(m, axis=(1, 2)) for m in maps], axis=-1)
    h = Dense(_HIDDEN, name="pool_hidden")(means)
    h = nn.silu(GroupNorm(name="norm")(h)) if norm else nn.relu(h)
    return Dense(network.classes, name="pool_out")(h)


_POOLS = {
    "attention": _attention,
    "adaptive": _adaptive,
    "spatial": functools.partial(_spatial, norm=False),
    "spatial_v2": functools.partial(_spatial, norm=True),
}
