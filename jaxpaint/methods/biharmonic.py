"""Biharmonic fill: a thin plate clamped at the hole's border; best on thin holes."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxpaint import images, multigrid
from jaxpaint.poisson import harmonic_fill, pixels, planes
from jaxpaint.types import Method, Window, classical

# The biharmonic stencil: weights of the twelve neighbours; the centre has 20.
_STENCIL = {(0, 1): -8.0, (1, 1): 2.0, (0, 2): 1.0}
_NEIGHBORS = [
    (dy, dx, weight)
    for (a, b), weight in _STENCIL.items()
    for dy, dx in {
        (a, b),
        (b, a),
        (-a, b),
        (a, -b),
        (-a, -b),
        (-b, a),
        (b, -a),
        (-b, -a),
    }
]


@partial(jax.jit, static_argnames=("tolerance", "iterations", "wide"))
def biharmonic_fill(
    image: jax.Array,
    mask: jax.Array,
    *,
    tolerance: float = 1e-4,
    iterations: int = 3000,
    wide: int = 8,
) -> jax.Array:
    """Returns the image with its hole filled by the biharmonic equation.

    Solves (L L u)(p) = 0 for all p of the hole, L the 5-point Laplacian with zero
    normal derivative at the image border, other pixels fixed; then clips each channel
    to the range of its known pixels. Damelin and Hoang 2018, "On surface completion
    and image inpainting by biharmonic functions"; the discretisation is that of
    scikit-image's `inpaint_biharmonic`.

    Thin holes are solved by conjugate gradients on a list of the hole's pixels, so that
    cost follows the hole; wide ones on the whole grid, preconditioned by two multigrid
    V-cycles, since the condition grows with the fourth power of the width.

    Args:
      image: `[B, H, W, C]`; what lies under the hole is not read.
      mask: `[B, H, W, 1]`, 1 = hole.
      tolerance: residual norm relative to that of the right side.
      iterations: upper bound.
      wide: inner distance in pixels above which a hole counts as wide.
    """

    def fill_one(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        image, mask = (x[None] for x in inputs)
        hole = planes(mask)
        known = jnp.where(hole > 0.5, 0, planes(image))
        low = jnp.min(jnp.where(hole > 0.5, jnp.inf, known), (2, 3), keepdims=True)
        high = jnp.max(jnp.where(hole > 0.5, -jnp.inf, known), (2, 3), keepdims=True)
        options = {"tolerance": tolerance, "iterations": iterations}
        fill = jax.lax.cond(
            jnp.any(multigrid.erode(hole, wide) > 0),
            partial(_fill_wide, **options),
            partial(_fill_thin, **options),
            known,
            hole,
        )
        fill = jnp.where(jnp.isfinite(low), jnp.clip(fill, low, high), 0)
        return images.compose(image, pixels(fill), mask)[0]

    return jax.lax.map(fill_one, (image, mask))


def _fill_wide(
    known: jax.Array, hole: jax.Array, *, tolerance: float, iterations: int
) -> jax.Array:
    ones = jnp.ones_like(hole)
    levels = multigrid.hierarchy(multigrid.grid(hole, ones, ones))
    barrier = jnp.any(hole > 0)

    def twice_laplacian(x: jax.Array) -> jax.Array:
        once = multigrid.separately(multigrid.laplacian, x, barrier)
        return hole * multigrid.laplacian(once)

    start = planes(harmonic_fill(pixels(known), pixels(hole), tolerance=1e-4))
    return multigrid.conjugate_gradients(
        twice_laplacian,
        lambda r: jax.lax.fori_loop(0, 2, lambda _, r: multigrid.v_cycle(levels, r), r),
        -twice_laplacian(known),
        hole * start,
        tolerance=tolerance,
        iterations=iterations,
    )


def _fill_thin(
    known: jax.Array, hole: jax.Array, *, tolerance: float, iterations: int
) -> jax.Array:
    """Solves on a list of the hole's pixels, cut to the smallest length that holds it.

    Lists of three lengths, H W / 12, H W / 6 and H W, are compiled.
    """
    height, width = hole.shape[-2:]
    capacities = [-(-height * width // share) for share in (12, 6, 1)]
    count = jnp.sum(hole > 0.5)
    smallest = jnp.sum(count > jnp.array(capacities))
    solve = partial(_fill_list, tolerance=tolerance, iterations=iterations)
    branches = [partial(solve, capacity=capacity) for capacity in capacities]
    return jax.lax.switch(smallest, branches, known, hole)


def _fill_list(
    known: jax.Array,
    hole: jax.Array,
    *,
    capacity: int,
    tolerance: float,
    iterations: int,
) -> jax.Array:
    _, channels, height, width = known.shape
    size = height * width
    flat = hole.reshape(size) > 0.5
    place = jnp.nonzero(flat, size=capacity, fill_value=size)[0]
    # List position of each pixel; what is known or outside the list points to a row of
    # zeros behind its end.
    entry = jnp.full(size + 1, capacity).at[place].set(jnp.arange(capacity))
    entry = entry.at[size].set(capacity)
    row, column = jnp.divmod(jnp.minimum(place, size - 1), width)

    def mirrored(index: jax.Array, length: int) -> jax.Array:
        # L L with zero normal derivative is the stencil on the mirrored image.
        index = jnp.where(index < 0, -1 - index, index)
        index = jnp.where(index >= length, 2 * length - 1 - index, index)
        return jnp.clip(index, 0, length - 1)

    def neighbor(dy: int, dx: int) -> jax.Array:
        return mirrored(row + dy, height) * width + mirrored(column + dx, width)

    neighbors = [(entry[neighbor(dy, dx)], w) for dy, dx, w in _NEIGHBORS]
    live = (place < size)[:, None]

    def gather(x: jax.Array, index: jax.Array) -> jax.Array:
        return x.at[index].get(mode="promise_in_bounds")

    def stencil(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x[0], [(0, 1), (0, 0)])
        total = 20 * x[0]
        for index, weight in neighbors:
            total += weight * gather(padded, index)
        return jnp.where(live, total, 0)[None]

    barrier = jnp.any(hole > 0)
    once = multigrid.separately(multigrid.laplacian, known, barrier)
    right_side = -multigrid.laplacian(once).reshape(channels, size).T
    right_side = jnp.where(live, gather(right_side, jnp.minimum(place, size - 1)), 0)
    solution = multigrid.conjugate_gradients(
        stencil,
        lambda r: r,
        right_side[None],
        jnp.zeros((1, capacity, channels), known.dtype),
        tolerance=tolerance,
        iterations=iterations,
    )[0]
    fill = jnp.zeros((size, channels), known.dtype).at[place].set(solution, mode="drop")
    return fill.T.reshape(known.shape)


def make(*, tolerance: float = 1e-4, iterations: int = 3000, wide: int = 8) -> Method:
    """Returns the method; see `biharmonic_fill` for the options."""
    return classical(
        lambda image, mask, key: biharmonic_fill(
            image, mask, tolerance=tolerance, iterations=iterations, wide=wide
        ),
        Window(margin=4, splits=True),
    )
