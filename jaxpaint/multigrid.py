"""Laplace problems on the hole of an image: operator, multigrid, conjugate gradients.

Everything here works on planes `[B, C, H, W]` (channels first: the innermost axis is
then long enough to vectorise) with one hole per image `[B, 1, H, W]`. Outside the
image the normal derivative is zero.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Operator = Callable[[jax.Array], jax.Array]

_JACOBI_WEIGHT = 0.8
# Few levels compile sooner; many sweeps on the coarsest make up for it.
_COARSEST_SIDE = 40
_COARSEST_SWEEPS = 32


class Grid(NamedTuple):
    """A graph Laplacian with Dirichlet values outside the hole, on one level.

    All arrays are `[B, 1, H, W]` and zero outside the hole.
    """

    right: jax.Array
    """Weight of the edge to the right neighbour; both ends in the hole."""
    below: jax.Array
    """Weight of the edge to the neighbour below; both ends in the hole."""
    boundary: jax.Array
    """Sum of the weights of the edges to known pixels."""
    diagonal: jax.Array
    """Sum of the weights of all edges."""
    inverse: jax.Array
    """1 / diagonal."""


def from_left(x: jax.Array) -> jax.Array:
    """Returns each pixel's left neighbour; 0 outside."""
    return jnp.pad(x[..., :-1], [(0, 0)] * 3 + [(1, 0)])


def from_right(x: jax.Array) -> jax.Array:
    """Returns each pixel's right neighbour; 0 outside."""
    return jnp.pad(x[..., 1:], [(0, 0)] * 3 + [(0, 1)])


def from_above(x: jax.Array) -> jax.Array:
    """Returns each pixel's upper neighbour; 0 outside."""
    return jnp.pad(x[..., :-1, :], [(0, 0)] * 2 + [(1, 0), (0, 0)])


def from_below(x: jax.Array) -> jax.Array:
    """Returns each pixel's lower neighbour; 0 outside."""
    return jnp.pad(x[..., 1:, :], [(0, 0)] * 2 + [(0, 1), (0, 0)])


def neighbor_sum(x: jax.Array) -> jax.Array:
    """Returns the sum of the four neighbours; those outside count 0."""
    return from_left(x) + from_right(x) + from_above(x) + from_below(x)


def neighbor_count(height: int, width: int) -> jax.Array:
    """Returns the number of neighbours inside an image, `[1, 1, height, width]`."""
    return neighbor_sum(jnp.ones((1, 1, height, width)))


def laplacian(x: jax.Array) -> jax.Array:
    """Returns the 5-point Laplacian of `[B, C, H, W]`, zero normal derivative."""
    return neighbor_sum(x) - neighbor_count(*x.shape[-2:]) * x


def grid(hole: jax.Array, right: jax.Array, below: jax.Array) -> Grid:
    """Returns the finest level of a weighted Laplacian.

    Args:
      hole: `[B, 1, H, W]`, 1 = unknown.
      right: `[B, 1, H, W]` weights of the edges to the right; the last column is not
        read.
      below: the same for the edges downwards.
    """
    right = right.at[..., -1].set(0)
    below = below.at[..., -1, :].set(0)
    known = 1 - hole
    boundary = hole * (
        right * from_right(known)
        + from_left(right * known)
        + below * from_below(known)
        + from_above(below * known)
    )
    return _grid(
        right * hole * from_right(hole), below * hole * from_below(hole), boundary
    )


def _grid(right: jax.Array, below: jax.Array, boundary: jax.Array) -> Grid:
    diagonal = boundary + right + from_left(right) + below + from_above(below)
    inverse = jnp.where(diagonal > 0, 1 / jnp.where(diagonal > 0, diagonal, 1), 0)
    return Grid(right, below, boundary, diagonal, inverse)


def apply(level: Grid, x: jax.Array) -> jax.Array:
    """Returns the positive definite operator of the level applied to `x`.

    `x` must be zero outside the hole; so is the result.
    """
    return (
        level.diagonal * x
        - level.right * from_right(x)
        - from_left(level.right * x)
        - level.below * from_below(x)
        - from_above(level.below * x)
    )


def _pad_even(x: jax.Array) -> jax.Array:
    return jnp.pad(x, [(0, 0), (0, 0), (0, x.shape[-2] % 2), (0, x.shape[-1] % 2)])


def hierarchy(finest: Grid) -> list[Grid]:
    """Returns the levels from `finest` down to one that smoothing alone solves.

    Edges between two coarse cells add up the fine edges that cross, halved because the
    centres are twice as far apart. Edges to known pixels shrink less: their length
    grows from 1 to (2^l + 1) / 2 fine pixels on level l, so that hole borders that no
    coarse cell resolves keep their place.
    """
    levels = [finest]
    while min(levels[-1].right.shape[-2:]) > _COARSEST_SIDE:
        fine = levels[-1]
        right, below, boundary = map(_pad_even, (fine.right, fine.below, fine.boundary))
        right = 0.5 * (right[..., ::2, 1::2] + right[..., 1::2, 1::2])
        below = 0.5 * (below[..., 1::2, ::2] + below[..., 1::2, 1::2])
        side = 2.0 ** (len(levels) - 1)
        boundary = (
            (side + 1)
            / (2 * side + 1)
            * (
                boundary[..., ::2, ::2]
                + boundary[..., 1::2, ::2]
                + boundary[..., ::2, 1::2]
                + boundary[..., 1::2, 1::2]
            )
        )
        levels.append(_grid(right, below, boundary))
    return levels


def _coarsen(x: jax.Array) -> jax.Array:
    """Transpose of `_refine`: bilinear weights, summed."""
    x = _pad_even(x)
    p = jnp.pad(x, [(0, 0), (0, 0), (0, 0), (1, 1)])
    x = 0.75 * (x[..., ::2] + x[..., 1::2]) + 0.25 * (p[..., :-2:2] + p[..., 3::2])
    p = jnp.pad(x, [(0, 0), (0, 0), (1, 1), (0, 0)])
    return 0.75 * (x[..., ::2, :] + x[..., 1::2, :]) + 0.25 * (
        p[..., :-2:2, :] + p[..., 3::2, :]
    )


def _refine(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Bilinear interpolation between cell centres, cut to the finer `shape`."""
    height, width = x.shape[-2:]
    x = jnp.stack(
        [0.75 * x + 0.25 * from_above(x), 0.75 * x + 0.25 * from_below(x)], axis=-2
    ).reshape(*x.shape[:-2], 2 * height, width)
    x = jnp.stack(
        [0.75 * x + 0.25 * from_left(x), 0.75 * x + 0.25 * from_right(x)], axis=-1
    ).reshape(*x.shape[:-2], 2 * height, 2 * width)
    return x[..., : shape[-2], : shape[-1]]


def separately(function: Operator, x: jax.Array, barrier: jax.Array) -> jax.Array:
    """Returns `function(x)`, kept out of the fusions of whatever reads it.

    On CPU, XLA fuses chains of stencils and computes inner ones again for every
    neighbour that an outer one reads (measured: 11 times the time of both), and drops
    `optimization_barrier` before it fuses. A conditional whose predicate it cannot
    know is a border. Elsewhere this is a plain call.

    Args:
      function: keeps shape and dtype.
      x: its argument.
      barrier: scalar bool, always true at run time, not known at compile time.
    """
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: jax.lax.cond(barrier, function, lambda x: x, x),
        default=function,
    )


def v_cycle(levels: list[Grid], residual: jax.Array) -> jax.Array:
    """Returns an approximate solution of `apply(levels[0], x) = residual`.

    One symmetric V-cycle with two damped Jacobi sweeps before and after, so that it can
    precondition conjugate gradients.
    """
    level = levels[0]
    barrier = jnp.all(level.diagonal[0, 0, 0, 0] >= 0)
    smoother = _JACOBI_WEIGHT * level.inverse

    def sweep(x: jax.Array) -> jax.Array:
        return x + smoother * (residual - apply(level, x))

    x = smoother * residual
    if len(levels) == 1:
        return jax.lax.fori_loop(0, _COARSEST_SWEEPS, lambda _, x: sweep(x), x)
    x = separately(sweep, x, barrier)
    rest = separately(lambda x: residual - apply(level, x), x, barrier)
    coarse = jnp.where(levels[1].diagonal > 0, _coarsen(rest), 0)
    correction = _refine(v_cycle(levels[1:], coarse), residual.shape)
    x = x + jnp.where(level.diagonal > 0, correction, 0)
    return jax.lax.fori_loop(0, 2, lambda _, x: sweep(x), x)


def conjugate_gradients(
    operator: Operator,
    precondition: Operator,
    right_side: jax.Array,
    start: jax.Array,
    *,
    tolerance: float,
    iterations: int,
) -> jax.Array:
    """Returns x with `operator(x) = right_side`, each item of the batch on its own.

    Args:
      operator: symmetric positive definite on the unknowns, maps zero to zero.
      precondition: symmetric positive definite approximation of its inverse.
      right_side: `[B, ...]`.
      start: first guess, of the same shape.
      tolerance: an item stops at this residual norm relative to that of its right
        side, and stays as it is while others go on.
      iterations: upper bound.
    """
    axes = tuple(range(1, right_side.ndim))

    def dot(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(a * b, axis=axes, keepdims=True)

    bound = tolerance**2 * dot(right_side, right_side)

    def unfinished(carry: tuple) -> jax.Array:
        i, _, _, _, _, norm = carry
        return (i < iterations) & jnp.any(norm > bound)

    def step(carry: tuple) -> tuple:
        i, x, residual, direction, rho, norm = carry
        # The preconditioner stands once in the loop and not before it as well: it is
        # most of the time to compile.
        z = precondition(residual)
        next_rho = dot(residual, z)
        active = norm > bound
        direction = z + jnp.where(active, next_rho / rho, 0) * direction
        image = operator(direction)
        curvature = dot(direction, image)
        safe = active & (curvature > 0)
        alpha = jnp.where(safe, next_rho / jnp.where(safe, curvature, 1), 0)
        x = x + alpha * direction
        residual = residual - alpha * image
        next_rho = jnp.where(next_rho > 0, next_rho, 1)
        return i + 1, x, residual, direction, next_rho, dot(residual, residual)

    residual = right_side - operator(start)
    norm = dot(residual, residual)
    zero, one = jnp.zeros_like(start), jnp.ones_like(norm)
    carry = (0, start, residual, zero, one, norm)
    return jax.lax.while_loop(unfinished, step, carry)[1]


def solve(
    levels: list[Grid],
    right_side: jax.Array,
    start: jax.Array,
    *,
    tolerance: float,
    iterations: int,
) -> jax.Array:
    """Returns x with `apply(levels[0], x) = right_side`; see `conjugate_gradients`."""
    return conjugate_gradients(
        lambda x: apply(levels[0], x),
        lambda x: v_cycle(levels, x),
        right_side,
        start,
        tolerance=tolerance,
        iterations=iterations,
    )


def erode(hole: jax.Array, distance: int) -> jax.Array:
    """Returns the pixels more than `distance` steps inside the hole, `[B, 1, H, W]`.

    A step leads to one of the four neighbours. What lies outside the image is hole.
    """

    def step(_: int, x: jax.Array) -> jax.Array:
        outside = 1 - x
        near = jnp.maximum(outside, neighbor_sum(outside))
        return 1 - jnp.minimum(near, 1)

    return jax.lax.fori_loop(0, distance, step, hole)


def grow_within(hole: jax.Array, seed: jax.Array) -> jax.Array:
    """Returns the connected parts of the hole that contain seeds, `[B, 1, H, W]`.

    Pixels are connected to their eight neighbours.
    """

    def widen(x: jax.Array, before: Operator, after: Operator) -> jax.Array:
        return jnp.maximum(x, jnp.maximum(before(x), after(x)))

    def step(_: int, x: jax.Array) -> jax.Array:
        return hole * widen(widen(x, from_left, from_right), from_above, from_below)

    def unfinished(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        return carry[1]

    def several(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        grown = jax.lax.fori_loop(0, 16, step, carry[0])
        return grown, jnp.any(grown != carry[0])

    seed = hole * seed
    return jax.lax.while_loop(unfinished, several, (seed, jnp.any(seed > 0)))[0]
