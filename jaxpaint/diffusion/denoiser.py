"""From a network's output to what samplers work with: an estimate of the clean image.

A sampler knows no network. It calls a `Denoiser`, which `of_network` makes out of a
network, and the closed-form priors of `jaxpaint.diffusion.gaussian` are others.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.diffusion.process import Process, at


class Prediction(NamedTuple):
    """What is thought of an image `[B, H, W, C]` at a level."""

    clean: jax.Array
    """Estimate of the clean image, clipped where the denoiser clips."""
    noise: jax.Array
    """The noise in the image, as the network says it: not derived from `clean`."""
    log_variance: jax.Array
    """Logarithm of the variance of a step to the next cleaner level."""
    score: jax.Array | float = 0.0
    """Guidance: gradient of the log-probability of what is wanted, by the image."""


Denoiser = Callable[[jax.Array, jax.Array], Prediction]
"""`(images [B, H, W, C] at a level, its number: int32 scalar or [B]) -> Prediction`."""

Network = Callable[[jax.Array, jax.Array], jax.Array]
"""`(images, timesteps [B]) -> output`, with the numbers of the training process."""


def with_way_back(
    denoise: Denoiser, x: jax.Array, level: jax.Array
) -> tuple[Prediction, Callable[[jax.Array], jax.Array]]:
    """Returns what is thought of `x`, and what the transposed derivative of the clean
    estimate makes of an image: a way back through the network for each use."""

    def clean(x: jax.Array) -> tuple[jax.Array, Prediction]:
        prediction = denoise(x, level)
        return prediction.clean, prediction

    _, back, prediction = jax.vjp(clean, x, has_aux=True)
    return prediction, lambda image: back(image)[0]


def clean_of_noise(process: Process, x: jax.Array, level: jax.Array, noise: jax.Array):
    """Returns the clean image that with `noise` gives `x`."""
    return at(np.sqrt(1 / process.abar), level) * x - (
        at(np.sqrt(1 / process.abar - 1), level) * noise
    )


def noise_of_clean(process: Process, x: jax.Array, level: jax.Array, clean: jax.Array):
    """Returns the noise that with `clean` gives `x`."""
    return (at(np.sqrt(1 / process.abar), level) * x - clean) / at(
        np.sqrt(1 / process.abar - 1), level
    )


def clean_of_velocity(
    process: Process, x: jax.Array, level: jax.Array, velocity: jax.Array
):
    """Returns the clean image; velocity is `sqrt(abar) noise - sqrt(1 - abar) clean`.

    Salimans and Ho (2022), section 4.
    """
    return at(np.sqrt(process.abar), level) * x - (
        at(np.sqrt(1 - process.abar), level) * velocity
    )


def _as_it_is(process: Process, x: jax.Array, level: jax.Array, clean: jax.Array):
    del process, x, level
    return clean


TARGETS = {
    "noise": clean_of_noise,
    "clean": _as_it_is,
    "velocity": clean_of_velocity,
}
"""What networks are trained to say, and how the clean image follows from it."""


def learned_log_variance(
    process: Process, level: jax.Array, share: jax.Array
) -> jax.Array:
    """Returns the log-variance of a step between the two bounds (Nichol and Dhariwal
    2021, equation 15); `share` -1 is the lower bound and 1 the upper one, not clipped.
    """
    low = at(process.posterior_log_variance, level)
    high = at(np.log(process.betas), level)
    share = (share + 1) / 2
    return share * high + (1 - share) * low


def small_log_variance(process: Process) -> np.ndarray:
    """Returns the log-variance of steps that fits a known clean image, `[N]`."""
    return process.posterior_log_variance


def large_log_variance(process: Process) -> np.ndarray:
    """Returns the log-variance of steps that fits pure noise, `[N]`."""
    first = process.posterior_variance[min(1, len(process) - 1)]
    return np.log(np.append(first, process.betas[1:]))


VARIANCES = {"small": small_log_variance, "large": large_log_variance}
"""Log-variances of steps for networks that do not say one (Ho et al. 2020, 3.2)."""


def of_network(
    network: Network,
    process: Process,
    *,
    target: str = "noise",
    variance: str | None = None,
    clip: bool = True,
) -> Denoiser:
    """Returns the denoiser that a network is.

    Args:
      network: its last channels, as many as the image has, are the share of
        `learned_log_variance` if `variance` is None.
      process: the levels, which know the network's timesteps.
      target: a name out of `TARGETS`.
      variance: a name out of `VARIANCES`; None: the network says it.
      clip: whether the clean estimate is clipped to [-1, 1].
    """

    def denoise(x: jax.Array, level: jax.Array) -> Prediction:
        batch = jnp.broadcast_to(level, x.shape[:1])
        output = network(x, jnp.asarray(process.timesteps)[batch])
        if variance is None:
            output, share = jnp.split(output, 2, axis=-1)
            log_variance = learned_log_variance(process, level, share)
        else:
            log_variance = at(VARIANCES[variance](process), level)
        clean = TARGETS[target](process, x, level, output)
        if target == "noise":
            noise = output
        else:
            noise = noise_of_clean(process, x, level, clean)
        if clip:
            clean = jnp.clip(clean, -1, 1)
        return Prediction(clean, noise, log_variance)

    return denoise


def guided(
    denoise: Denoiser,
    process: Process,
    log_probability: Callable[[jax.Array, jax.Array], jax.Array],
    scale: float = 1.0,
) -> Denoiser:
    """Returns a denoiser guided by a classifier (Dhariwal and Nichol 2021, section 4).

    `log_probability` is `(images, timesteps [B]) -> [B]`, of the class that is wanted.
    """

    def denoise_guided(x: jax.Array, level: jax.Array) -> Prediction:
        batch = jnp.broadcast_to(level, x.shape[:1])
        timesteps = jnp.asarray(process.timesteps)[batch]
        score = jax.grad(lambda x: jnp.sum(log_probability(x, timesteps)))(x)
        return denoise(x, level)._replace(score=scale * score)

    return denoise_guided
