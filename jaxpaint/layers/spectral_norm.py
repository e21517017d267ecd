"""Spectral normalization: a kernel divided by its largest singular value.

Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018,
with one power iteration for each call, as in the official code of DeepFill v2.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxpaint.layers.same_conv import convolve_same

COLLECTION = "spectral_norm"
"""Linen's collection with the vectors `u` of the power iterations."""

_EPS = 1e-12


def spectral_norm(kernel: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the normalized kernel and the vector after one power iteration.

    The kernel `[.., O]` counts as a matrix `[N, O]`; `u` is `[1, O]`. Gradients flow
    through the kernel and take both vectors as constants, unlike the official code,
    which differentiates the iteration too.
    """
    matrix = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])
    fixed = lax.stop_gradient(matrix)
    v = _unit(lax.stop_gradient(u) @ fixed.T)
    u = _unit(v @ fixed)
    sigma = jnp.sum((v @ matrix) * u)
    return (kernel / sigma).astype(kernel.dtype), u


class SpectralConv(nn.Module):
    """Convolution with a spectrally normalized kernel, zeros around the picture.

    Pads as TensorFlow's `SAME`. The bias is not normalized.
    """

    features: int
    kernel_size: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, I]` to `[B, ceil(H / stride), .., features]` of `dtype`.

        The new vector is stored where the collection is mutable, in training; elsewhere
        it stays as it is, and the output depends on nothing but the variables.
        """
        size = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), size)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        u = self.variable(
            COLLECTION,
            "u",
            lambda: nn.initializers.truncated_normal(1.0)(
                self.make_rng("params"), (1, self.features)
            ),
        )
        normal, new = spectral_norm(kernel, u.value)
        if self.is_mutable_collection(COLLECTION) and not self.is_initializing():
            u.value = new
        y = convolve_same(
            x.astype(self.dtype), normal.astype(self.dtype), stride=self.stride
        )
        return y + bias.astype(self.dtype)[None, None, None]


def _unit(x: jax.Array) -> jax.Array:
    return x / (jnp.linalg.norm(x) + _EPS)
