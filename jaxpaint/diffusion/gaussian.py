"""Priors whose denoiser and whose inpainting posterior are known in closed form.

Samplers are measured on them: with a perfect denoiser, what is wrong with a result is
the sampler's fault. Signals of n samples are images `[B, 1, n, 1]`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.diffusion.denoiser import VARIANCES, Denoiser, Prediction, noise_of_clean
from jaxpaint.diffusion.process import Process, at


class Mixture(NamedTuple):
    """A mixture of K Gaussians in n dimensions, float64."""

    weights: np.ndarray
    """`[K]`"""
    means: np.ndarray
    """`[K, n]`"""
    covariances: np.ndarray
    """`[K, n, n]`"""


def smooth(length: int = 32, reach: float = 12.0, variance: float = 0.25) -> Mixture:
    """Returns one Gaussian of mean 0, whose samples i and j have the covariance
    `variance exp(-|i - j| / reach)`."""
    place = np.arange(length)
    covariance = variance * np.exp(-np.abs(place[:, None] - place) / reach)
    return Mixture(np.ones(1), np.zeros((1, length)), covariance[None])


def two_waves(length: int = 32) -> Mixture:
    """Returns two such Gaussians around a wave and its negative."""
    wave = 0.6 * np.sin(2 * np.pi * np.arange(length) / length)
    covariance = 0.3 * smooth(length).covariances[0]
    return Mixture(np.full(2, 0.5), np.stack([wave, -wave]), np.stack([covariance] * 2))


def denoiser(mixture: Mixture, process: Process, variance: str = "small") -> Denoiser:
    """Returns the posterior mean of the clean signal, which is the best denoiser."""
    spectra, axes = np.linalg.eigh(mixture.covariances)
    spectra, axes = spectra.astype(np.float32)[None], axes.astype(np.float32)
    means = mixture.means.astype(np.float32)[None]
    weights = np.log(mixture.weights).astype(np.float32)[None]

    def denoise(x: jax.Array, level: jax.Array) -> Prediction:
        abar = jnp.asarray(process.abar, jnp.float32)[level]
        # Along the axes of each component: [B, K, n].
        offset = x[:, 0, None, :, 0] - jnp.sqrt(abar) * means
        along = jnp.einsum("bki,kij->bkj", offset, axes)
        spread = abar * spectra + 1 - abar
        fit = -0.5 * jnp.sum(along**2 / spread + jnp.log(spread), axis=-1)
        share = jax.nn.softmax(fit + weights)
        shrunk = along * (jnp.sqrt(abar) * spectra / spread)
        each = means + jnp.einsum("bkj,kij->bki", shrunk, axes)
        clean = jnp.sum(share[..., None] * each, axis=1)[:, None, :, None]
        return Prediction(
            clean,
            noise_of_clean(process, x, level, clean),
            at(VARIANCES[variance](process), level),
        )

    return denoise


def conditional(mixture: Mixture, known: np.ndarray, values: np.ndarray) -> Mixture:
    """Returns the mixture of the unknown samples, given the known ones.

    Args:
      mixture: the prior.
      known: boolean `[n]`.
      values: of the known samples, in their order.
    """
    logs, means, covariances = [], [], []
    for weight, mean, covariance in zip(*mixture, strict=True):
        inner = covariance[np.ix_(known, known)]
        cross = covariance[np.ix_(~known, known)]
        offset = values - mean[known]
        solved = np.linalg.solve(inner, np.column_stack([offset, cross.T]))
        means.append(mean[~known] + cross @ solved[:, 0])
        covariances.append(covariance[np.ix_(~known, ~known)] - cross @ solved[:, 1:])
        logs.append(
            np.log(weight) - 0.5 * (offset @ solved[:, 0] + np.linalg.slogdet(inner)[1])
        )
    weights = np.exp(np.array(logs) - np.max(logs))
    return Mixture(weights / weights.sum(), np.stack(means), np.stack(covariances))


def moments(mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean `[n]` and covariance `[n, n]` of a mixture."""
    mean = mixture.weights @ mixture.means
    offset = mixture.means - mean
    between = np.einsum("k,ki,kj->ij", mixture.weights, offset, offset)
    within = np.einsum("k,kij->ij", mixture.weights, mixture.covariances)
    return mean, within + between


def draw(mixture: Mixture, count: int, generator: np.random.Generator) -> np.ndarray:
    """Returns samples `[count, n]`."""
    component = generator.choice(len(mixture.weights), count, p=mixture.weights)
    roots = np.stack([np.linalg.cholesky(c) for c in mixture.covariances])
    noise = generator.standard_normal((count, mixture.means.shape[1]))
    return mixture.means[component] + np.einsum("bij,bj->bi", roots[component], noise)


def frechet(samples: np.ndarray, mixture: Mixture) -> float:
    """Returns the squared Frechet distance of the Gaussian fits of samples `[B, n]` and
    of a mixture, as a share of the trace of the mixture's covariance."""
    mean, covariance = moments(mixture)
    found = np.cov(samples.T)
    spectrum, axes = np.linalg.eigh(covariance)
    root = axes * np.sqrt(np.maximum(spectrum, 0)) @ axes.T
    cross = np.linalg.eigvalsh(root @ found @ root)
    distance = (
        np.sum((samples.mean(axis=0) - mean) ** 2)
        + np.trace(found + covariance)
        - 2 * np.sum(np.sqrt(np.maximum(cross, 0)))
    )
    return float(distance / np.trace(covariance))
