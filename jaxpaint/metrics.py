"""How far a result is from the truth: one number per picture, `[B]` float32.

Pictures are `[B, H, W, C]` in [-1, 1]. Figures are those of the literature, for a range
of 0 to 1: an `l1` of 0.01 is one percent.
"""

import functools

import jax
import jax.numpy as jnp

_AXES = (1, 2, 3)


def l1(result: jax.Array, truth: jax.Array) -> jax.Array:
    """Returns the mean absolute difference over the whole picture."""
    return jnp.mean(jnp.abs(result - truth), _AXES) / 2


def hole_l1(result: jax.Array, truth: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean absolute difference over the hole; 0 where there is none."""
    total = jnp.sum(jnp.abs(result - truth) * mask, _AXES) / 2
    return total / jnp.maximum(jnp.sum(mask, _AXES) * truth.shape[-1], 1)


def hole_psnr(result: jax.Array, truth: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns `psnr` of the hole's pixels alone; infinite where there are none."""
    total = jnp.sum(jnp.square((result - truth) / 2) * mask, _AXES)
    count = jnp.maximum(jnp.sum(mask, _AXES) * truth.shape[-1], 1)
    return -10 * jnp.log10(total / count)


def psnr(result: jax.Array, truth: jax.Array) -> jax.Array:
    """Returns the peak signal-to-noise ratio in dB; infinite where both are equal."""
    return -10 * jnp.log10(jnp.mean(jnp.square((result - truth) / 2), _AXES))


def ssim(result: jax.Array, truth: jax.Array) -> jax.Array:
    """Returns the structural similarity, averaged over pixels and channels.

    Wang et al. 2004: Gaussian window of 11 pixels with sigma 1.5, constants 0.01 and
    0.03. Windows that would reach over the edge are left out; pictures have at least 11
    pixels a side.
    """
    return jnp.mean(_ssim_map(result, truth), _AXES)


def hole_ssim(result: jax.Array, truth: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean of `ssim` over windows whose middle is a hole pixel.

    Those that would reach over the edge are left out; 1 where none is left.
    """
    score = jnp.mean(_ssim_map(result, truth), axis=-1, keepdims=True)
    inside = mask[:, 5:-5, 5:-5]
    loss = jnp.sum((1 - score) * inside, _AXES)
    return 1 - loss / jnp.maximum(jnp.sum(inside, _AXES), 1)


def diversity(samples: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns how far answers `[N, B, H, W, C]` to the same holes lie apart, `[B]`.

    The mean of `hole_l1` over all pairs of them.
    """
    total = jnp.zeros(samples.shape[1])
    for shift in range(1, len(samples)):
        for one, other in zip(samples[:-shift], samples[shift:], strict=True):
            total += hole_l1(one, other, mask)
    return total / max(len(samples) * (len(samples) - 1) / 2, 1)


def _ssim_map(result: jax.Array, truth: jax.Array) -> jax.Array:
    """Returns the similarity of all windows of 11 x 11: `[B, H - 10, W - 10, C]`."""
    offsets = jnp.arange(-5, 6, dtype=jnp.float32)
    window = jnp.exp(-0.5 * jnp.square(offsets / 1.5))
    window = window / jnp.sum(window)

    def blur(x: jax.Array) -> jax.Array:
        height, width = x.shape[1] - 10, x.shape[2] - 10
        rows = [window[k] * x[:, k : k + height] for k in range(11)]
        x = functools.reduce(jnp.add, rows)
        columns = [window[k] * x[:, :, k : k + width] for k in range(11)]
        return functools.reduce(jnp.add, columns)

    x, y = (result + 1) / 2, (truth + 1) / 2
    mean_x, mean_y = blur(x), blur(y)
    var_x = blur(x * x) - mean_x * mean_x
    var_y = blur(y * y) - mean_y * mean_y
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    score /= (mean_x * mean_x + mean_y * mean_y + c1) * (var_x + var_y + c2)
    return score
