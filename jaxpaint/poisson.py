"""Smooth fills: the Laplace equation on the hole of an image."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxpaint import images, multigrid


def planes(image: jax.Array) -> jax.Array:
    """Returns `[B, H, W, C]` as `[B, C, H, W]`."""
    return jnp.moveaxis(image, -1, 1)


def pixels(image: jax.Array) -> jax.Array:
    """Returns `[B, C, H, W]` as `[B, H, W, C]`."""
    return jnp.moveaxis(image, 1, -1)


@partial(jax.jit, static_argnames=("tolerance", "iterations"))
def harmonic_fill(
    image: jax.Array,
    mask: jax.Array,
    *,
    tolerance: float = 1e-5,
    iterations: int = 200,
) -> jax.Array:
    """Returns the image with its hole filled by the solution of Laplace's equation.

    5-point Laplacian, known pixels as Dirichlet values, zero normal derivative at the
    image border; conjugate gradients preconditioned by one multigrid V-cycle, so that
    the number of iterations (about ten) hardly depends on the hole's width. The result
    stays within the range of the known pixels around the hole. An image without any
    known pixel becomes 0.

    Args:
      image: `[B, H, W, C]`; what lies under the hole is not read.
      mask: `[B, H, W, 1]`, 1 = hole.
      tolerance: residual norm relative to that of the right side.
      iterations: upper bound.
    """
    hole = planes(mask)
    known = jnp.where(hole > 0.5, 0, planes(image))
    ones = jnp.ones_like(hole)
    levels = multigrid.hierarchy(multigrid.grid(hole, ones, ones))
    right_side = hole * multigrid.neighbor_sum(known)
    fill = multigrid.solve(
        levels,
        right_side,
        jnp.zeros_like(right_side),
        tolerance=tolerance,
        iterations=iterations,
    )
    return images.compose(image, pixels(fill), mask)


def blend(
    image: jax.Array,
    fill: jax.Array,
    mask: jax.Array,
    *,
    tolerance: float = 1e-5,
    iterations: int = 200,
) -> jax.Array:
    """Returns the image with `fill` blended into its hole, with gradients of the fill.

    The Poisson equation of Perez et al. (2003): on the hole the Laplacian of the fill,
    known pixels as Dirichlet values, zero normal derivative of the change at the image
    border. The change is therefore harmonic, and takes at the hole's border what the
    fill differs there from the image. Not clipped.

    Args:
      image: `[B, H, W, C]`; what lies under the hole is not read.
      fill: `[B, H, W, C]`, with values on the known pixels around the hole as well.
      mask: `[B, H, W, 1]`, 1 = hole.
      tolerance: see `harmonic_fill`.
      iterations: likewise.
    """
    change = harmonic_fill(
        image - fill, mask, tolerance=tolerance, iterations=iterations
    )
    return images.compose(image, fill + change, mask)


def paste(
    image: jax.Array, fill: jax.Array, mask: jax.Array, *, blended: bool
) -> jax.Array:
    """Returns the image with its hole filled by a network's picture `fill`.

    Known pixels come back bit for bit. Blended, the hole is clipped to [-1, 1].

    Args:
      image: `[B, H, W, C]`, of 1 or 3 channels.
      fill: `[B, H, W, 3]`; a grey image gets the mean of its channels.
      mask: `[B, H, W, 1]`, 1 = hole.
      blended: see `blend`; removes seams where the network draws known pixels
        otherwise than they are.
    """
    if image.shape[-1] == 1:
        fill = jnp.mean(fill, axis=-1, keepdims=True)
    if blended:
        fill = jnp.clip(blend(image, fill, mask), -1, 1)
    return images.compose(image, fill, mask)
