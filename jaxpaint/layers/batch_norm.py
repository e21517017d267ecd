"""Batch normalization whose running statistics agree with PyTorch's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class BatchNorm(nn.Module):
    """Normalizes each channel over batch and pixels (Ioffe & Szegedy 2015).

    Unlike `flax.linen.BatchNorm`, the running variance takes the unbiased batch
    variance (divided by n - 1), as in PyTorch, whose checkpoints it reads. Statistics
    are computed in float32. Under `jit` with a sharded batch they are those of the
    whole batch: synchronized without any axis name.
    """

    momentum: float = 0.9
    """Share of the old running statistics: 1 - PyTorch's momentum."""
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    scale_init: Callable = nn.initializers.ones
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, H, W, C]` to itself; `train` uses and records batch statistics.

        Without `train` the running statistics are used and left alone; scale and bias
        take gradients either way.
        """
        channels = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, channels)
        bias = self.param("bias", self.bias_init, channels)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var = self.variable("batch_stats", "var", jnp.ones, channels)
        if train:
            wide = x.astype(jnp.float32)
            batch_mean = jnp.mean(wide, axis=(0, 1, 2))
            batch_var = jnp.maximum(
                jnp.mean(jnp.square(wide), axis=(0, 1, 2)) - jnp.square(batch_mean), 0
            )
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = batch_var * (count / max(count - 1, 1))
                keep = self.momentum
                mean.value = keep * mean.value + (1 - keep) * batch_mean
                var.value = keep * var.value + (1 - keep) * unbiased
        else:
            batch_mean, batch_var = mean.value, var.value
        factor = scale * jax.lax.rsqrt(batch_var + self.epsilon)
        offset = bias - batch_mean * factor
        y = x * factor[None, None, None] + offset[None, None, None]
        return y.astype(self.dtype)
