"""One step of an unconditional sampler, from a level to the next cleaner one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.diffusion.denoiser import Prediction, clean_of_noise, noise_of_clean
from jaxpaint.diffusion.process import Process, at

Solver = Callable[[Process, jax.Array, jax.Array, Prediction, jax.Array], jax.Array]
"""`(process, x, level, prediction, noise) -> x at level - 1`."""


def ancestral(
    process: Process,
    x: jax.Array,
    level: jax.Array,
    prediction: Prediction,
    noise: jax.Array,
) -> jax.Array:
    """Draws from the learned reverse step (Ho et al. 2020, algorithm 2).

    Its mean follows from the clipped clean image, not from the noise as the algorithm
    prints it; guidance moves it by its gradient times the variance.
    """
    mean = (
        at(process.posterior_clean, level) * prediction.clean
        + at(process.posterior_noisy, level) * x
        + jnp.exp(prediction.log_variance) * prediction.score
    )
    spread = jnp.where(level > 0, jnp.exp(prediction.log_variance / 2), 0)
    return mean + spread * noise


def ddim(eta: float = 0.0) -> Solver:
    """Returns the solver of Song et al. (2021), equation 12.

    `eta` 0 is deterministic, 1 has the variance of the ancestral step. The noise that
    is kept follows from the clipped clean image.
    """

    def solve(
        process: Process,
        x: jax.Array,
        level: jax.Array,
        prediction: Prediction,
        noise: jax.Array,
    ) -> jax.Array:
        clean = prediction.clean
        kept = noise_of_clean(process, x, level, clean)
        if not isinstance(prediction.score, float):
            kept = kept - at(np.sqrt(1 - process.abar), level) * prediction.score
            clean = clean_of_noise(process, x, level, kept)
        spread, rest = ddim_tables(process, eta)
        return (
            at(np.sqrt(process.abar_before), level) * clean
            + at(rest, level) * kept
            + at(spread, level) * noise
        )

    return solve


def ddim_tables(process: Process, eta: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factors `[N]` of new noise and of the noise that is kept.

    What is kept is never negative, where float64 rounding would make it so.
    """
    before, now = process.abar_before, process.abar
    spread = eta * np.sqrt((1 - before) / (1 - now) * (1 - now / before))
    return spread, np.sqrt(np.maximum(1 - before - spread**2, 0))
