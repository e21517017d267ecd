"""Moment matching posterior sampling: steps along the mean of the clean image, given
the known pixels (Rozet et al. 2024, "Learning Diffusion Priors from Observations by
Expectation Maximization")."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpaint.diffusion import sampler, solvers
from jaxpaint.diffusion.denoiser import Denoiser, with_way_back
from jaxpaint.diffusion.process import Process, at
from jaxpaint.diffusion.sampler import Draw, Known, Sampler, State
from jaxpaint.errors import InputError

_NOISE = 0.01
"""Standard deviation of what is taken to be unknown of a known pixel."""


def mmps(
    process: Process,
    pairs: np.ndarray,
    inner: int = 2,
    eta: float = 1.0,
    *,
    clip: bool = False,
) -> Sampler:
    """Returns the sampler; a level is a network call and `inner` ways back through it.

    What the image x at a level leaves open of the clean one, x0, is taken for Gaussian
    (section 4.2): its mean is the network's estimate D(x), its covariance V is
    (1 - abar) / sqrt(abar) dD/dx, by Tweedie's formula. Given y = H x0, the known
    pixels, the mean is

        D + V H^T (H V H^T + noise^2)^-1 (y - H D),

    the inverse by conjugate gradients. It takes the place of D in a step of DDIM. With
    the exact V of a Gaussian `inner` steps are as good as all of them; with that of a
    network, which is not symmetric, more than two do harm: docs/repaint.md.

    Args:
      process: the levels.
      pairs: levels from and to, `[N, 2]`, of `resampling.folded`.
      inner: steps of conjugate gradients at each level.
      eta: new noise of a step: 0 for none, 1 for as much as in the ancestral step.
      clip: whether that mean is clipped to [-1, 1], as images are.

    Raises:
      InputError: no step of conjugate gradients.
    """
    if inner < 1:
        raise InputError(f"mmps with {inner} inner steps; want repeats=1 or more")
    solve = solvers.ddim(eta)

    def down(
        denoise: Denoiser, known: Known, state: State, move: Any, draw: Draw
    ) -> State:
        level = move["level"]
        prediction, back = with_way_back(denoise, state.x, level)
        # The factor of dD/dx in V is divided out of the inverse and of what it inverts.
        factor = (1 - process.abar) / np.sqrt(process.abar)
        pull = _solved(
            back,
            known.seen,
            known.seen(known.image - prediction.clean),
            at(_NOISE**2 / factor, level),
            inner,
        )
        mean = prediction.clean + pull
        if clip:
            mean = jnp.clip(mean, -1, 1)
        prediction = prediction._replace(clean=mean)
        return state._replace(x=solve(process, state.x, level, prediction, draw(0)))

    return Sampler(sampler.moves_of(process, pairs), down, sampler.climb)


def _solved(
    matrix: Callable[[jax.Array], jax.Array],
    seen: Callable[[jax.Array], jax.Array],
    right: jax.Array,
    floor: jax.Array,
    steps: int,
) -> jax.Array:
    """Returns `A v` for the v with `seen(A v) + floor v = right`, A the matrix.

    By conjugate gradients (Hestenes and Stiefel 1952), for each image alone. One rests
    where the matrix, which is that of a network, bends downwards.
    """

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(a * b, axis=(1, 2, 3), keepdims=True)

    def ratio(above: jax.Array, below: jax.Array) -> jax.Array:
        positive = below > 0
        return jnp.where(positive, above / jnp.where(positive, below, 1), 0)

    def step(
        carry: tuple[jax.Array, ...], _: None
    ) -> tuple[tuple[jax.Array, ...], None]:
        result, rest, along = carry
        image = matrix(along)
        applied = seen(image) + floor * along
        size, bend = product(rest, rest), product(along, applied)
        length = ratio(size, bend)
        rest = jnp.where(bend > 0, rest - length * applied, 0)
        along = rest + ratio(product(rest, rest), size) * along
        return (result + length * image, rest, along), None

    begin = jnp.zeros_like(right), right, right
    return lax.scan(step, begin, length=steps)[0][0]
