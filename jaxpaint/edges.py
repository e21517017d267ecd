"""Edges of pictures by a classical detector, as lines for guided methods.

Canny, "A Computational Approach to Edge Detection", 1986: smoothing, gradients, the
ridges of their magnitude, and hysteresis.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

_LUMA = (0.299, 0.587, 0.114)
_TIE = 1e-4


def canny(
    image: jax.Array,
    *,
    sigma: float = 2.0,
    low: float = 0.1,
    high: float = 0.2,
) -> jax.Array:
    """Returns the edges of pictures; float32 `[B, H, W, 1]`, 1 = edge.

    Beyond the borders a picture is continued by its border pixels, and the border
    itself has no edges.

    Args:
      image: `[B, H, W, 1 or 3]` in [-1, 1].
      sigma: of the Gaussian that smooths, in pixels.
      low: gradients above this go on with an edge. Black beside white has a gradient of
        4 before smoothing (Sobel's weights, brightness from 0 to 1).
      high: gradients above this begin an edge.
    """
    gray = image if image.shape[-1] == 1 else image @ jnp.array(_LUMA)[:, None]
    gray = (gray[..., 0] + 1) / 2
    radius = int(4 * sigma + 0.5)
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(-radius, radius + 1)]
    weights = [weight / sum(weights) for weight in weights]
    smooth = _filter(_filter(gray, weights, 1), weights, 2)
    down = _filter(_filter(smooth, [-1, 0, 1], 1), [1, 2, 1], 2)
    right = _filter(_filter(smooth, [1, 2, 1], 1), [-1, 0, 1], 2)
    magnitude = jnp.hypot(down, right)
    ridge = _inside(_is_ridge(magnitude, down, right))
    weak, strong = ridge & (magnitude >= low), ridge & (magnitude >= high)
    return _connected(strong, weak)[..., None].astype(jnp.float32)


def _filter(x: jax.Array, taps: list[float], axis: int) -> jax.Array:
    """Returns the cross-correlation of `[B, H, W]` along an axis."""
    radius, side = len(taps) // 2, x.shape[axis]
    pads = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
    padded = jnp.pad(x, pads, mode="edge")
    return sum(
        (
            tap * lax.slice_in_dim(padded, i, i + side, axis=axis)
            for i, tap in enumerate(taps)
            if tap
        ),
        start=jnp.zeros_like(x),
    )


def _shifted(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """Returns at each pixel the one so many rows and columns further; 0 outside."""
    height, width = x.shape[1:]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)))
    return padded[:, 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]


def _is_ridge(magnitude: jax.Array, down: jax.Array, right: jax.Array) -> jax.Array:
    """Whether no neighbor along the gradient, on either side, has a larger one.

    Neighbors at other than eight directions are interpolated.
    """
    y, x = jnp.abs(down), jnp.abs(right)
    steep = y > x
    share = jnp.minimum(x, y) / jnp.maximum(jnp.maximum(x, y), 1e-12)
    same = down * right >= 0

    def beyond(sign: int) -> jax.Array:
        diagonal = jnp.where(
            same,
            _shifted(magnitude, sign, sign),
            jnp.where(
                steep,
                _shifted(magnitude, sign, -sign),
                _shifted(magnitude, -sign, sign),
            ),
        )
        straight = jnp.where(
            steep, _shifted(magnitude, sign, 0), _shifted(magnitude, 0, sign)
        )
        return share * diagonal + (1 - share) * straight

    # Both pixels beside a step have the same gradient but for rounding.
    most = magnitude * (1 + _TIE)
    return (most >= beyond(1)) & (most >= beyond(-1)) & (magnitude > 0)


def _inside(edges: jax.Array) -> jax.Array:
    """Returns `edges` without those on the border."""
    return jnp.pad(edges[:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1)))


def _connected(strong: jax.Array, weak: jax.Array) -> jax.Array:
    """Returns the pixels of `weak` that touching pixels of it connect with `strong`.

    Each round goes one pixel further; there are no more rounds than pixels.
    """

    def grow(edges: jax.Array) -> jax.Array:
        for axis in (1, 2):
            pads = [(1, 1) if i == axis else (0, 0) for i in range(3)]
            padded, side = jnp.pad(edges, pads), edges.shape[axis]
            parts = [lax.slice_in_dim(padded, i, i + side, axis=axis) for i in range(3)]
            edges = parts[0] | parts[1] | parts[2]
        return edges & weak

    def go_on(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        count, _, changed = carry
        return changed & (count < math.prod(strong.shape[1:]))

    def step(carry: tuple[jax.Array, jax.Array, jax.Array]):
        count, edges, _ = carry
        new = grow(edges)
        return count + 1, new, jnp.any(new != edges)

    start = (jnp.int32(0), strong, jnp.bool_(True))
    return lax.while_loop(go_on, step, start)[1]
