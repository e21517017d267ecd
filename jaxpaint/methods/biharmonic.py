"""Biharmonic fill: a thin plate clamped at the hole's border; best on thin holes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxpaint import images, multigrid
from jaxpaint.poisson import harmonic_fill, pixels, planes
from jaxpaint.types import Method, Window, classical

# Rows of the pixel list worked on at once: enough to vectorise, few enough to follow
# the hole closely.
_CHUNK = 4096

Carry = Any

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
    barrier = jnp.all(hole >= 0)

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
    """Solves on a list of pixels with room for a quarter of the image, or all of it."""
    size = hole.size
    solve = partial(_fill_list, tolerance=tolerance, iterations=iterations)
    return jax.lax.cond(
        jnp.sum(hole > 0.5) <= size // 4,
        partial(solve, capacity=size // 4),
        partial(solve, capacity=size),
        known,
        hole,
    )


def _fill_list(
    known: jax.Array,
    hole: jax.Array,
    *,
    capacity: int,
    tolerance: float,
    iterations: int,
) -> jax.Array:
    """Conjugate gradients on a list of pixels, worked through chunk by chunk.

    Only as many chunks are worked on as the hole fills, so that one compiled program
    costs what the hole costs.
    """
    _, channels, height, width = known.shape
    size = height * width
    chunk = min(_CHUNK, capacity)
    capacity = -(-capacity // chunk) * chunk
    flat = hole.reshape(size) > 0.5
    # Where in the list each pixel is; known pixels are its last row, which stays zero.
    entry = jnp.cumsum(flat, dtype=jnp.int32)
    chunks = -(-entry[-1] // chunk)
    entry = jnp.where(flat, entry - 1, capacity)
    place = jnp.full(capacity, size).at[entry].set(jnp.arange(size), mode="drop")

    def over_chunks(work: Callable[[jax.Array, Carry], Carry], carry: Carry) -> Carry:
        return jax.lax.fori_loop(0, chunks, lambda i, c: work(i * chunk, c), carry)

    def read(x: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, start, chunk, axis=-2)

    def write(x: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(x, part, start, axis=-2)

    def mirrored(index: jax.Array, length: int) -> jax.Array:
        # L L with zero normal derivative is the stencil on the mirrored image.
        index = jnp.where(index < 0, -1 - index, index)
        index = jnp.where(index >= length, 2 * length - 1 - index, index)
        return jnp.clip(index, 0, length - 1)

    def find_neighbors(start: jax.Array, neighbors: jax.Array) -> jax.Array:
        pixel = jax.lax.dynamic_slice_in_dim(place, start, chunk)
        row, column = jnp.divmod(pixel, width)
        found = [
            entry[mirrored(row + dy, height) * width + mirrored(column + dx, width)]
            for dy, dx, _ in _NEIGHBORS
        ]
        found = jnp.where(pixel < size, jnp.stack(found), capacity)
        return write(neighbors, found[..., None], start)

    neighbors = jnp.zeros((len(_NEIGHBORS), capacity, 1), jnp.int32)
    neighbors = over_chunks(find_neighbors, neighbors)

    def stencil(x: jax.Array, start: jax.Array) -> jax.Array:
        index = read(neighbors, start)[..., 0]
        total = 20 * read(x, start)
        for i, (_, _, weight) in enumerate(_NEIGHBORS):
            total += weight * x.at[index[i]].get(mode="promise_in_bounds")
        return total

    barrier = jnp.all(hole >= 0)
    once = multigrid.separately(multigrid.laplacian, known, barrier)
    right_side = -(hole * multigrid.laplacian(once)).reshape(channels, size).T
    right_side = right_side.at[place].get(mode="fill", fill_value=0)
    norm = jnp.sum(right_side**2)
    bound = tolerance**2 * norm

    def unfinished(carry: Carry) -> jax.Array:
        i, _, _, _, norm = carry
        return (i < iterations) & (norm > bound)

    def step(carry: Carry) -> Carry:
        i, x, residual, direction, norm = carry

        def apply(start: jax.Array, carry: Carry) -> Carry:
            image, curvature = carry
            part = stencil(direction, start)
            curvature += jnp.sum(part * read(direction, start))
            return write(image, part, start), curvature

        zero = jnp.zeros_like(norm)
        image, curvature = over_chunks(apply, (jnp.zeros_like(x), zero))
        alpha = norm / curvature

        def advance(start: jax.Array, carry: Carry) -> Carry:
            x, residual, norm = carry
            part = read(residual, start) - alpha * read(image, start)
            x = write(x, read(x, start) + alpha * read(direction, start), start)
            return x, write(residual, part, start), norm + jnp.sum(part**2)

        x, residual, next_norm = over_chunks(advance, (x, residual, zero))
        beta = next_norm / norm

        def turn(start: jax.Array, direction: jax.Array) -> jax.Array:
            part = read(residual, start) + beta * read(direction, start)
            return write(direction, part, start)

        return i + 1, x, residual, over_chunks(turn, direction), next_norm

    zeros = jnp.zeros_like(right_side)
    direction = jnp.pad(right_side, [(0, 1), (0, 0)])
    carry = (0, zeros, right_side, direction, norm)
    solution = jax.lax.while_loop(unfinished, step, carry)[1]
    solution = jnp.pad(solution, [(0, 1), (0, 0)])
    fill = solution.at[entry].get(mode="promise_in_bounds")
    return fill.T.reshape(known.shape)


def make(*, tolerance: float = 1e-4, iterations: int = 3000, wide: int = 8) -> Method:
    """Returns the method; see `biharmonic_fill` for the options."""
    return classical(
        lambda image, mask, key: biharmonic_fill(
            image, mask, tolerance=tolerance, iterations=iterations, wide=wide
        ),
        Window(margin=4, splits=True),
    )
