"""RePaint: resampling with known pixels pasted at each level (Lugmayr et al. 2022).

Where the published algorithm and the official code differ, this is the code: the noise
of known pixels is scaled by sqrt(1 - abar), and they are pasted before the network is
called, at the level of its input; not before the first call, and not after the last.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.diffusion import sampler, solvers
from jaxpaint.diffusion.denoiser import Denoiser
from jaxpaint.diffusion.process import Process, at, diffuse
from jaxpaint.diffusion.sampler import Draw, Known, Sampler, State
from jaxpaint.diffusion.solvers import Solver


def repaint(
    process: Process, pairs: np.ndarray, solver: Solver = solvers.ancestral
) -> Sampler:
    """Returns the sampler.

    Without climbs in `pairs` this is plain replacement of known pixels (Song et al.
    2021b); with `solvers.ddim` it needs fewer levels.

    Args:
      process: the levels.
      pairs: levels from and to, `[N, 2]`: those of `resampling.folded`, or, as in the
        official code, of `resampling.stepwise`.
      solver: how a step is taken. Draw 0 is its noise, draw 1 that of known pixels.
    """
    moves = sampler.moves_of(process, pairs)
    moves["paste"] = np.arange(len(pairs)) > 0

    def down(
        denoise: Denoiser, known: Known, state: State, move: Any, draw: Draw
    ) -> State:
        level = move["level"]
        pasted = known.paste(state.x, diffuse(process, known.image, level, draw(1)))
        x = jnp.where(move["paste"], pasted, state.x)
        prediction = denoise(x, level)
        return state._replace(x=solver(process, x, level, prediction, draw(0)))

    return Sampler(moves, down, sampler.climb)


def repaint_pasted_after(
    process: Process, pairs: np.ndarray, eta: float = 1.0
) -> Sampler:
    """Returns the sampler with known pixels pasted after each step, as algorithm 1 and
    diffusers' `RePaintScheduler` have it.

    The same law, with exact known pixels at the end. Steps are those of DDIM with the
    network's own noise; one draw serves the step and the known pixels.
    """
    spread, rest = solvers.ddim_tables(process, eta)
    before = process.abar_before

    def down(
        denoise: Denoiser, known: Known, state: State, move: Any, draw: Draw
    ) -> State:
        level, noise = move["level"], draw(0)
        prediction = denoise(state.x, level)
        signal = at(np.sqrt(before), level)
        x = (
            signal * prediction.clean
            + at(rest, level) * prediction.noise
            + at(spread, level) * noise
        )
        seen: jax.Array = signal * known.image + at(np.sqrt(1 - before), level) * noise
        return state._replace(x=known.paste(x, seen))

    return Sampler(sampler.moves_of(process, pairs), down, sampler.climb)
