"""PiGDM: steps guided by how the clean estimate depends on the image (Song et al.
2023, "Pseudoinverse-Guided Diffusion Models for Inverse Problems")."""

from typing import Any

import numpy as np

from jaxpaint.diffusion import sampler, solvers
from jaxpaint.diffusion.denoiser import Denoiser, with_way_back
from jaxpaint.diffusion.process import Process, at
from jaxpaint.diffusion.sampler import Draw, Known, Sampler, State


def pigdm(process: Process, pairs: np.ndarray, eta: float = 1.0) -> Sampler:
    """Returns the sampler: algorithm 1 for noiseless inpainting.

    Every step also goes back through the network, which costs about two more calls.
    """
    solve = solvers.ddim(eta)

    def down(
        denoise: Denoiser, known: Known, state: State, move: Any, draw: Draw
    ) -> State:
        level = move["level"]
        prediction, back = with_way_back(denoise, state.x, level)
        pull = back(known.seen(known.image - prediction.clean))
        x = solve(process, state.x, level, prediction, draw(0))
        return state._replace(x=x + at(np.sqrt(process.abar), level) * pull)

    return Sampler(sampler.moves_of(process, pairs), down, sampler.climb)
