"""Blocks of guided-diffusion's networks (Dhariwal & Nichol 2021, appendix A and C).

Names of parameters are ours. Initial values are those of PyTorch, and zero where a
block adds to its input, so that a network begins as the identity of its blocks.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxpaint.errors import InputError
from jaxpaint.layers.attention import attend
from jaxpaint.layers.convolution import convolve, convolve_upsampled, doubled

_GROUPS = 32


def timestep_features(
    t: jax.Array, features: int, *, sine_first: bool = False, shift: float = 0.0
) -> jax.Array:
    """Returns cosines and sines of timesteps `[B]` at many speeds: `[B, features]`.

    Speeds fall from 1 to about 1/10,000 in `features // 2` steps, the last step being
    `shift` nearer to the end. An odd last feature is 0.
    """
    half = features // 2
    speeds = jnp.exp(-math.log(10000) * jnp.arange(half) / (half - shift))
    angles = t.astype(jnp.float32)[:, None] * speeds[None]
    waves = [jnp.cos(angles), jnp.sin(angles)]
    both = jnp.concatenate(waves[::-1] if sine_first else waves, axis=-1)
    return jnp.pad(both, ((0, 0), (0, features % 2)))


class _Linear(nn.Module):
    """What both linear layers have; parameters `kernel` and `bias`."""

    features: int
    zero: bool = False
    """Whether it begins as zero."""
    dtype: Any = jnp.float32

    def _params(self, size: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Returns kernel and bias in `dtype`; size: of the kernel."""
        limit = 0.0 if self.zero else 1 / math.sqrt(math.prod(size[:-1]))

        def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.uniform(key, shape, minval=-limit, maxval=limit)

        kernel = self.param("kernel", uniform, size)
        bias = self.param("bias", uniform, size[-1:])
        return kernel.astype(self.dtype), bias.astype(self.dtype)


class Dense(_Linear):
    """A matrix for the last axis, which is also a convolution of one pixel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., I]` to `[..., features]` of `dtype`."""
        kernel, bias = self._params((x.shape[-1], self.features))
        y = jnp.einsum("...i,io->...o", x.astype(self.dtype), kernel)
        return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


class Conv(_Linear):
    """Convolution with 3 x 3 pixels."""

    stride: int = 1
    upsample: bool = False
    """Whether pixels are doubled first."""
    pad_end: bool = False
    """Whether a stride of 2 pads by one at the end only, as in diffusers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, I]` to `[B, H', W', features]` of `dtype`."""
        kernel, bias = self._params((3, 3, x.shape[-1], self.features))
        x = x.astype(self.dtype)
        if self.upsample:
            y = convolve_upsampled(x, kernel, padding=1)
        elif self.pad_end:
            x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
            y = convolve(x, kernel, stride=self.stride)
        else:
            y = convolve(x, kernel, stride=self.stride, padding=1)
        return y + bias[None, None, None]


class GroupNorm(nn.Module):
    """Normalizes 32 groups of channels over pixels (Wu & He 2018), in float32."""

    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        scale: jax.Array | None = None,
        shift: jax.Array | None = None,
    ) -> jax.Array:
        """Maps `[B, .., C]` to itself, times `1 + scale`, plus `shift`, both `[B, C]`.

        Raises:
          InputError: channels that 32 does not divide.
        """
        channels = x.shape[-1]
        if channels % _GROUPS:
            raise InputError(
                f"a block has {channels} channels; want a multiple of {_GROUPS}, the "
                "groups of its norm: change channels or multipliers"
            )
        weight = self.param("scale", nn.initializers.ones, (channels,))[None]
        bias = self.param("bias", nn.initializers.zeros, (channels,))[None]
        if scale is not None:
            weight, bias = weight * (1 + scale), bias * (1 + scale)
        if shift is not None:
            bias = bias + shift
        lead = (len(x), channels)
        weight, bias = (jnp.broadcast_to(y, lead) for y in (weight, bias))
        return jnp.astype(_normalized(x, weight, bias, self.epsilon), self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalized(
    x: jax.Array, weight: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
    """Returns the normalized `[B, .., C]` times weight plus bias, both `[B, C]`.

    In float32 at least. Gradients of any order, in reverse mode only.
    """
    x = _wide(x)
    mean, deviation = _moments(x, epsilon)
    # Both end in a division because compilers repeat cheaper operations for every
    # pixel: on CPUs that took five times as long as all the rest of the norm.
    factor = weight / deviation
    offset = (bias * deviation - mean * weight) / deviation
    return x * _over_pixels(factor, x) + _over_pixels(offset, x)


def _normalized_forward(
    x: jax.Array, weight: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _normalized(x, weight, bias, epsilon), (x, weight)


def _normalized_backward(
    epsilon: float, saved: tuple[jax.Array, jax.Array], slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, weight = _wide(saved[0]), saved[1]
    mean, deviation = _moments(x, epsilon)
    pixels = tuple(range(1, x.ndim - 1))
    for_bias = jnp.sum(slope, axis=pixels)
    for_weight = (jnp.sum(slope * x, axis=pixels) - mean * for_bias) / deviation
    count = math.prod(x.shape[1:-1])
    by_mean = _over_group(weight * for_bias) / count
    by_deviation = _over_group(weight * for_weight) / count
    factors = weight / deviation, -by_deviation / deviation / deviation
    offset = (mean * by_deviation / deviation - by_mean) / deviation
    for_slope, for_same, offset = (_over_pixels(y, x) for y in (*factors, offset))
    for_x = slope * for_slope + x * for_same + offset
    return for_x.astype(saved[0].dtype), for_weight, for_bias


_normalized.defvjp(_normalized_forward, _normalized_backward)


def _moments(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """Returns mean and deviation of its group at each channel, `[B, C]`."""
    pixels = tuple(range(1, x.ndim - 1))
    mean = _over_group(jnp.mean(x, axis=pixels))
    square = _over_group(jnp.mean(jnp.square(x), axis=pixels))
    return mean, jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0) + epsilon)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _over_pixels(y: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.expand_dims(y, tuple(range(1, x.ndim - 1)))


def _over_group(x: jax.Array) -> jax.Array:
    """Returns `[B, C]` with the mean of its group at each channel."""
    groups = x.reshape(len(x), _GROUPS, -1)
    mean = jnp.mean(groups, axis=-1, keepdims=True)
    return jnp.broadcast_to(mean, groups.shape).reshape(x.shape)


class ResBlock(nn.Module):
    """Two convolutions that add to their input, told the timestep in between."""

    features: int
    up: bool = False
    """Whether pixels are doubled."""
    down: bool = False
    """Whether 2 x 2 pixels are averaged."""
    scale_shift: bool = True
    """Whether the embedding scales and shifts after the norm, or is added before it."""
    dropout: float = 0.0
    epsilon: float = 1e-5
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        """Maps `[B, H, W, I]` to `[B, H', W', features]`; embedding: `[B, E]`."""
        norm = functools.partial(GroupNorm, self.epsilon, self.dtype)
        h = nn.silu(norm(name="norm_0")(x))
        if self.down:
            h, x = halved(h), halved(x)
        h = Conv(self.features, dtype=self.dtype, upsample=self.up, name="conv_0")(h)
        if self.up:
            x = doubled(x)
        told = Dense(self.features * (1 + self.scale_shift), name="embedding")(
            embedding
        )
        if self.scale_shift:
            scale, shift = jnp.split(told, 2, axis=-1)
            h = norm(name="norm_1")(h, scale=scale, shift=shift)
        else:
            h = norm(name="norm_1")(h + told[:, None, None].astype(h.dtype))
        h = nn.silu(h)
        h = nn.Dropout(self.dropout, deterministic=not self.train)(h)
        h = Conv(self.features, zero=True, dtype=self.dtype, name="conv_1")(h)
        if x.shape[-1] != self.features:
            x = Dense(self.features, dtype=self.dtype, name="skip")(x)
        return x + h


class AttentionBlock(nn.Module):
    """Self-attention of all pixels, added to its input."""

    heads: int
    head_channels: int = 0
    """Channels of a head; 0: as `heads` divides them."""
    joint_heads: bool = True
    """Whether query, key and value of one head lie together, or those of all heads."""
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to itself.

        Raises:
          InputError: channels that the heads do not divide.
        """
        batch, height, width, channels = x.shape
        heads = head_count(channels, self.heads, self.head_channels)
        tokens = x.reshape(batch, height * width, channels)
        normal = GroupNorm(self.epsilon, self.dtype, name="norm")(tokens)
        mixed = Dense(3 * channels, dtype=self.dtype, name="qkv")(normal)
        seen = attend(*parts(mixed, heads, joint=self.joint_heads))
        seen = seen.reshape(tokens.shape)
        seen = Dense(channels, zero=True, dtype=self.dtype, name="out")(seen)
        return x + seen.reshape(x.shape)


def head_count(channels: int, heads: int, head_channels: int) -> int:
    """Returns the number of heads: `heads`, unless there are `head_channels`.

    Raises:
      InputError: heads that do not divide the channels.
    """
    divisor = head_channels or heads
    if channels % divisor:
        what = "head_channels" if head_channels else "heads"
        raise InputError(f"{what} is {divisor}; want a divisor of {channels} channels")
    return channels // head_channels if head_channels else heads


def parts(
    mixed: jax.Array, heads: int, *, joint: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns query, key and value, `[B, T, heads, d]`, out of `[B, T, 3 heads d]`."""
    order = (heads, 3, -1) if joint else (3, heads, -1)
    split = mixed.reshape(*mixed.shape[:2], *order)
    query, key, value = (split.take(i, axis=3 if joint else 2) for i in range(3))
    return query, key, value


class Downsample(nn.Module):
    """Halves the sides by a convolution with stride 2, or by averages."""

    features: int
    convolve: bool
    pad_end: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H / 2, W / 2, C]`."""
        del embedding
        if not self.convolve:
            return halved(x)
        return Conv(
            self.features,
            dtype=self.dtype,
            stride=2,
            pad_end=self.pad_end,
            name="conv",
        )(x)


class Upsample(nn.Module):
    """Doubles the sides by repeated pixels, and a convolution if wanted."""

    features: int
    convolve: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, 2 H, 2 W, C]`."""
        del embedding
        if not self.convolve:
            return doubled(x)
        return Conv(self.features, dtype=self.dtype, upsample=True, name="conv")(x)


def halved(x: jax.Array) -> jax.Array:
    """Returns the means of 2 x 2 pixels: `[B, H / 2, W / 2, C]`."""
    batch, height, width, channels = x.shape
    grid = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    # A sum over axes would be a call of its own on CPUs, and twice as slow.
    top = grid[:, :, 0, :, 0] + grid[:, :, 0, :, 1]
    return (top + grid[:, :, 1, :, 0] + grid[:, :, 1, :, 1]) / 4


class Blocks(NamedTuple):
    """The constructors of one network's blocks; each takes `features` and `name`.

    All but `attention` make maps of (x, embedding), `attention` of x.
    """

    res: Callable[..., nn.Module]
    attention: Callable[..., nn.Module]
    down: Callable[..., nn.Module]
    up: Callable[..., nn.Module]


def network_blocks(
    *,
    scale_shift: bool,
    resample_blocks: bool,
    convolve_resampled: bool,
    joint_heads: bool,
    heads: int,
    head_channels: int,
    dropout: float,
    norm_epsilon: float,
    pad_end: bool,
    train: bool,
    dtype: Any,
    remat: bool,
) -> Blocks:
    """Returns the constructors for the fields of `jaxpaint.diffusion.unet.UNet`."""
    res = functools.partial(
        nn.remat(ResBlock) if remat else ResBlock,
        scale_shift=scale_shift,
        dropout=dropout,
        epsilon=norm_epsilon,
        train=train,
        dtype=dtype,
    )
    attention = functools.partial(
        nn.remat(AttentionBlock) if remat else AttentionBlock,
        heads=heads,
        head_channels=head_channels,
        joint_heads=joint_heads,
        epsilon=norm_epsilon,
        dtype=dtype,
    )
    if resample_blocks:
        down = functools.partial(res, down=True)
        up = functools.partial(res, up=True)
    else:
        down = functools.partial(
            Downsample, convolve=convolve_resampled, pad_end=pad_end, dtype=dtype
        )
        up = functools.partial(Upsample, convolve=convolve_resampled, dtype=dtype)
    return Blocks(res, attention, down, up)


def embed(
    t: jax.Array, channels: int, *, sine_first: bool = False, shift: float = 0.0
) -> jax.Array:
    """Returns the embedding `[B, 4 channels]` of timesteps `[B]`.

    To be called in a compact method; its layers are `time_0` and `time_1`.
    """
    features = timestep_features(t, channels, sine_first=sine_first, shift=shift)
    hidden = nn.silu(Dense(4 * channels, name="time_0")(features))
    return Dense(4 * channels, name="time_1")(hidden)


def encode(
    made: Blocks,
    x: jax.Array,
    embedding: jax.Array,
    *,
    channels: int,
    blocks: int,
    multipliers: tuple[float, ...],
    attention: tuple[int, ...],
    dtype: Any,
) -> list[jax.Array]:
    """Returns the maps of every block, from `x` down to the coarsest level.

    To be called in a compact method; layers are `input`, `down0_0`,
    `down0_0_attention`, .. `down0_resample`, `down1_0` and so on.

    Raises:
      InputError: sides that cannot be halved as often as there are levels.
    """
    factor = 2 ** (len(multipliers) - 1)
    if x.shape[1] % factor or x.shape[2] % factor:
        raise InputError(
            f"pictures have {x.shape[2]} x {x.shape[1]} pixels; want multiples of "
            f"{factor}, as the network has {len(multipliers)} levels"
        )
    features = round(multipliers[0] * channels)
    maps = [Conv(features, dtype=dtype, name="input")(x.astype(dtype))]
    for level, multiplier in enumerate(multipliers):
        features = round(multiplier * channels)
        for i in range(blocks):
            name = f"down{level}_{i}"
            h = made.res(features=features, name=name)(maps[-1], embedding)
            if 2**level in attention:
                h = made.attention(name=f"{name}_attention")(h)
            maps.append(h)
        if level < len(multipliers) - 1:
            down = made.down(features=features, name=f"down{level}_resample")
            maps.append(down(maps[-1], embedding))
    return maps


def middle(made: Blocks, x: jax.Array, embedding: jax.Array) -> jax.Array:
    """Returns the middle of a network, `[B, H, W, C]` as `x`.

    To be called in a compact method; layers are `middle_0`, `middle_attention` and
    `middle_1`.
    """
    x = made.res(features=x.shape[-1], name="middle_0")(x, embedding)
    x = made.attention(name="middle_attention")(x)
    return made.res(features=x.shape[-1], name="middle_1")(x, embedding)
