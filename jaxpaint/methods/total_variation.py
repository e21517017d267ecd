"""Total variation fill: keeps straight edges across thin scratches."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxpaint import images, multigrid
from jaxpaint.multigrid import from_above, from_below, from_left, from_right
from jaxpaint.poisson import harmonic_fill, pixels, planes
from jaxpaint.types import Method, Window, classical


@partial(jax.jit, static_argnames=("epsilon", "rounds", "stop", "tolerance"))
def total_variation_fill(
    image: jax.Array,
    mask: jax.Array,
    *,
    epsilon: float = 0.02,
    rounds: int = 15,
    stop: float = 2e-3,
    tolerance: float = 1e-4,
) -> jax.Array:
    """Returns the image whose hole has the least total variation.

    Minimises the sum of sqrt(|grad u|^2 + epsilon^2) with known pixels fixed (Chan and
    Shen 2002, "Mathematical models for local nontexture inpaintings"), forward
    differences, |grad u|^2 summed over the channels so that their edges agree. Lagged
    diffusivity (Vogel and Oman 1996): each round fixes the weights
    1 / sqrt(|grad u|^2 + epsilon^2) and solves the weighted Laplace equation by
    multigrid-preconditioned conjugate gradients; the first u is the harmonic fill.

    Args:
      image: `[B, H, W, C]`; what lies under the hole is not read.
      mask: `[B, H, W, 1]`, 1 = hole.
      epsilon: gradient, in units of the image, below which variation counts little.
      rounds: upper bound of re-weightings.
      stop: an image is done when no pixel changes by more in a round.
      tolerance: of each linear solve, relative to its right side.
    """
    hole = planes(mask)
    known = jnp.where(hole > 0.5, 0, planes(image))
    start = planes(harmonic_fill(image, mask))

    def unfinished(carry: tuple) -> jax.Array:
        i, _, change = carry
        return (i < rounds) & jnp.any(change > stop)

    def reweight(carry: tuple) -> tuple:
        i, u, change = carry
        # The last column's and row's differences lead outside: zero.
        right = jnp.diff(u, axis=-1, append=u[..., -1:])
        below = jnp.diff(u, axis=-2, append=u[..., -1:, :])
        square = jnp.sum(right**2 + below**2, axis=1, keepdims=True)
        weight = jax.lax.rsqrt(square + epsilon**2)
        levels = multigrid.hierarchy(multigrid.grid(hole, weight, weight))
        right_side = hole * (
            weight * (from_right(known) + from_below(known))
            + from_left(weight * known)
            + from_above(weight * known)
        )
        solution = multigrid.solve(
            levels,
            right_side,
            hole * u,
            tolerance=tolerance,
            iterations=100,
        )
        new = jnp.where((hole > 0.5) & (change > stop), solution, u)
        return i + 1, new, jnp.max(jnp.abs(new - u), axis=(1, 2, 3), keepdims=True)

    change = jnp.full((image.shape[0], 1, 1, 1), jnp.inf)
    fill = jax.lax.while_loop(unfinished, reweight, (0, start, change))[1]
    return images.compose(image, pixels(fill), mask)


def make(
    *,
    epsilon: float = 0.02,
    rounds: int = 15,
    stop: float = 2e-3,
    tolerance: float = 1e-4,
) -> Method:
    """Returns the method; see `total_variation_fill` for the options."""
    return classical(
        lambda image, mask, key: total_variation_fill(
            image,
            mask,
            epsilon=epsilon,
            rounds=rounds,
            stop=stop,
            tolerance=tolerance,
        ),
        Window(margin=4, splits=True),
    )
