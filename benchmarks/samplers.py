"""Quality of samplers against network calls, with a perfect denoiser.

    python benchmarks/samplers.py --runs 6

Signals of 32 samples from a Gaussian, or from a mixture of two around opposite waves,
of which the first half is known: the posterior of the other half is known in closed
form. For each sampler: calls forward and backward, the squared Frechet distance of its
results to the posterior as a share of the variance of that (mean, and median, over
runs with signals of their own), and the ratio of standard deviations for the
Gaussian. Needs no weights.
"""

import argparse
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.diffusion import gaussian, process, resampling, sampler, solvers
from jaxpaint.diffusion.ddnm import ddnm
from jaxpaint.diffusion.lanpaint import lanpaint
from jaxpaint.diffusion.mmps import mmps
from jaxpaint.diffusion.pigdm import pigdm
from jaxpaint.diffusion.process import Process
from jaxpaint.diffusion.repaint import repaint
from jaxpaint.diffusion.resampling import Resampling
from jaxpaint.diffusion.sampler import Sampler

LENGTH = 32
COUNT = 600


class Row(NamedTuple):
    """A line of the table."""

    respacing: str
    make: Callable[[Process], Sampler]
    backward: int = 0
    """Ways back through the network for each call."""


def pairs(levels: int, jump: int = 1, repeats: int = 1) -> np.ndarray:
    """Returns the moves of a schedule."""
    return resampling.folded(resampling.levels(levels, Resampling(jump, repeats)))


def rows() -> dict[str, Row]:
    """Returns the lines by name."""
    found: dict[str, Row] = {}
    for levels, jump, repeats in (
        (250, 1, 1),
        (250, 10, 10),
        (100, 10, 10),
        (100, 10, 5),
        (50, 10, 10),
        (50, 5, 5),
        (25, 5, 5),
    ):
        moves = pairs(levels, jump, repeats)
        name = f"RePaint {levels}/{jump}/{repeats}" if repeats > 1 else "replacement"
        found[name] = Row(str(levels), functools.partial(repaint, pairs=moves))
    found["RePaint 50/10/10, DDIM"] = Row(
        "50", lambda p: repaint(p, pairs(50, 10, 10), solvers.ddim(0.0))
    )
    for levels, jump, repeats in ((100, 1, 1), (100, 10, 3), (50, 5, 2), (50, 1, 1)):
        moves = pairs(levels, jump, repeats)
        name = f"DDNM {levels}" + f"/{jump}/{repeats}" * (repeats > 1)
        found[name] = Row(str(levels), functools.partial(ddnm, pairs=moves))
    for levels, inner in ((10, 5), (20, 5), (12, 9), (20, 10), (25, 11), (50, 5)):
        make = functools.partial(lanpaint, inner=inner)
        found[f"LanPaint {levels}x{inner}"] = Row(f"quad{levels}", make)
    found["LanPaint 20x5, even levels"] = Row("20", lanpaint)
    for levels in (25, 50, 60, 100):
        make = functools.partial(pigdm, pairs=pairs(levels))
        found[f"PiGDM {levels}"] = Row(f"quad{levels}", make, 1)
    for levels, inner in ((10, 1), (20, 1), (60, 1), (40, 2), (24, 4), (100, 2)):
        make = functools.partial(mmps, pairs=pairs(levels), inner=inner)
        found[f"MMPS {levels}x{inner}"] = Row(f"quad{levels}", make, inner)
    make = functools.partial(mmps, pairs=pairs(24), inner=4, eta=0.7)
    found["MMPS 24x4, eta 0.7"] = Row("quad24", make, 4)
    return found


def measure(
    prior: gaussian.Mixture, row: Row, runs: int
) -> tuple[list[float], list[float], int]:
    """Returns distances and ratios of deviations of all runs, and network calls."""
    spaced = process.make("linear", 1000, row.respacing)
    chosen, denoise = row.make(spaced), gaussian.denoiser(prior, spaced)
    known = np.arange(LENGTH) < LENGTH // 2
    mask = jnp.broadcast_to(
        jnp.asarray(~known, jnp.float32)[None, None, :, None], (COUNT, 1, LENGTH, 1)
    )

    @jax.jit
    def run(signal: jax.Array, key: jax.Array) -> jax.Array:
        image = jnp.broadcast_to(signal[None, None, :, None], mask.shape)
        return sampler.run(chosen, denoise, sampler.Known(image, mask), key)

    distances, ratios = [], []
    for seed in range(runs):
        signal = gaussian.draw(prior, 1, np.random.default_rng(seed))[0]
        posterior = gaussian.conditional(prior, known, signal[known])
        drawn = run(jnp.asarray(signal, jnp.float32), jax.random.key(seed))
        found = np.asarray(drawn, np.float64)[:, 0, ~known, 0]
        distances.append(gaussian.frechet(found, posterior))
        _, covariance = gaussian.moments(posterior)
        ratios.append(np.sqrt(np.trace(np.cov(found.T)) / np.trace(covariance)))
    return distances, ratios, chosen.network_calls()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=6)
    runs = parser.parse_args().runs
    print("| sampler | calls | backward | Gaussian | deviations | mixture |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, row in rows().items():
        one, ratios, calls = measure(gaussian.smooth(LENGTH), row, runs)
        two, _, _ = measure(gaussian.two_waves(LENGTH), row, runs)
        print(
            f"| {name} | {calls} | {calls * row.backward} "
            f"| {np.mean(one):.3f} ({np.median(one):.3f}) | {np.mean(ratios):.3f} "
            f"| {np.mean(two):.3f} ({np.median(two):.3f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
