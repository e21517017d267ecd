"""Depthwise convolution: each channel with a kernel of its own.

GPUs and TPUs get the compiler's grouped convolution. On CPUs that one is many times
slower than the sum over the kernel's taps of the shifted picture, which fuses into one
loop and whose gradients do, too.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax


def convolve_depthwise(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Returns `[B, ceil(H / stride), ceil(W / stride), C]` of `[B, H, W, C]`.

    The kernel is `[kh, kw, C]`. Padding as TensorFlow's `"SAME"`: where it is odd, the
    further pixel is at the bottom and on the right.
    """

    def compiled(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel[:, :, None],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )

    by_taps = functools.partial(_by_taps, stride=stride)
    return lax.platform_dependent(x, kernel, cpu=by_taps, default=compiled)


def _by_taps(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    size = kernel.shape[:2]
    sides = [-(-length // stride) for length in x.shape[1:3]]
    # From the first to the last window, plus one.
    reach = [(side - 1) * stride + 1 for side in sides]
    pads = [
        max(span + k - 1 - length, 0)
        for span, k, length in zip(reach, size, x.shape[1:3], strict=True)
    ]
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    # Padded once, and not anew for each tap inside of the loop.
    padded = lax.optimization_barrier(
        jnp.pad(
            x.astype(dtype),
            ((0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)),
        )
    )
    y = jnp.zeros((len(x), *sides, x.shape[3]), dtype)
    for i, j in itertools.product(*map(range, size)):
        seen = padded[:, i : i + reach[0] : stride, j : j + reach[1] : stride]
        y += seen * kernel[i, j].astype(dtype)[None, None, None]
    return y.astype(x.dtype)
