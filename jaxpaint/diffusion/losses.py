"""Training losses of diffusion models, a value for each image."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.diffusion import denoiser
from jaxpaint.diffusion.process import Process, at

_BIN = 1 / 255
"""Half the distance of two neighbouring grey values."""


def terms(
    process: Process,
    output: jax.Array,
    clean: jax.Array,
    x: jax.Array,
    level: jax.Array,
    noise: jax.Array,
    *,
    target: str = "noise",
    learned_variance: bool = True,
    simple: float = 1.0,
    bound: float = 1.0,
) -> dict[str, jax.Array]:
    """Returns `total` and its terms, each `[B]`.

    `simple` is the mean squared error of what the network says (Ho et al. 2020,
    equation 14); `bound` the term of the variational bound that belongs to the level,
    in bits, for networks with a learned variance (Nichol and Dhariwal 2021, section
    3.1). With both, the bound teaches the variance only: L_hybrid.

    Args:
      process: the levels.
      output: of the network for `x`, `[B, H, W, C or 2 C]`.
      clean: training images, in [-1, 1].
      x: these, brought to the level with `noise`.
      level: `[B]`.
      noise: standard normal.
      target: a name out of `denoiser.TARGETS`.
      learned_variance: whether the output's second half is the share of the variance.
      simple: weight of that term.
      bound: weight of that term; the official rescaled losses have N / 1000 beside
        `simple` and N alone.
    """
    share = None
    if learned_variance:
        output, share = jnp.split(output, 2, axis=-1)
    found, total = {}, jnp.float32(0)
    if simple:
        wanted = {
            "noise": noise,
            "clean": clean,
            "velocity": at(np.sqrt(process.abar), level) * noise
            - at(np.sqrt(1 - process.abar), level) * clean,
        }[target]
        found["simple"] = _mean((wanted - output) ** 2)
        total += simple * found["simple"]
        output = jax.lax.stop_gradient(output)
    if share is not None and bound:
        estimate = denoiser.TARGETS[target](process, x, level, output)
        log_variance = denoiser.learned_log_variance(process, level, share)
        found["bound"] = _bound(process, clean, x, level, estimate, log_variance)
        total += bound * found["bound"]
    return {"total": total, **found}


def _bound(
    process: Process,
    clean: jax.Array,
    x: jax.Array,
    level: jax.Array,
    estimate: jax.Array,
    log_variance: jax.Array,
) -> jax.Array:
    """Returns bits per pixel and channel `[B]`: divergence from the true step, at level
    0 what it takes to tell the grey values."""

    def mean(clean: jax.Array) -> jax.Array:
        return (
            at(process.posterior_clean, level) * clean
            + at(process.posterior_noisy, level) * x
        )

    true = at(process.posterior_log_variance, level)
    difference = (mean(clean) - mean(estimate)) ** 2 * jnp.exp(-log_variance)
    divergence = 0.5 * (
        log_variance - true - 1 + jnp.exp(true - log_variance) + difference
    )
    likelihood = _log_likelihood(clean, mean(estimate), 0.5 * log_variance)
    nats = jnp.where(level == 0, -_mean(likelihood), _mean(divergence))
    return nats / np.float32(np.log(2))


def _log_likelihood(
    clean: jax.Array, mean: jax.Array, log_deviation: jax.Array
) -> jax.Array:
    """Returns the log-probability of grey values under Gaussians (Ho et al. 2020,
    equation 13), with a tanh in the place of the error function."""
    centred, precision = clean - mean, jnp.exp(-log_deviation)

    def below(offset: float) -> jax.Array:
        z = precision * (centred + offset)
        return 0.5 * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))

    upper, lower = below(_BIN), below(-_BIN)
    inner = jnp.where(clean > 0.999, 1 - lower, upper - lower)
    inner = jnp.where(clean < -0.999, upper, inner)
    return jnp.log(jnp.maximum(inner, 1e-12))


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=(1, 2, 3))
