"""LanPaint: Langevin steps at each level before a deterministic step to the next one
(Zheng et al. 2025)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.diffusion.denoiser import Denoiser
from jaxpaint.diffusion.process import Process, at, diffuse
from jaxpaint.diffusion.sampler import DOWN, Draw, Known, Sampler, State


def lanpaint(
    process: Process, inner: int = 5, weight: float = 8.0, step: float = 0.5
) -> Sampler:
    """Returns the sampler, in its overdamped form; `N (inner + 1)` network calls.

    The hole follows the model's score; known pixels are drawn towards the picture, and
    pushed `weight` times away from what the model thinks of them, so that the two talk
    to each other both ways. No gradient of the network is needed.

    Args:
      process: the levels.
      inner: Langevin steps at each of them.
      weight: of the picture against the model in known pixels (lambda).
      step: length of a Langevin step, in units of the level's noise variance. The
        authors' 0.15 mixes less in as many calls: docs/repaint.md.
    """
    levels = np.repeat(np.arange(len(process))[::-1], inner + 1).astype(np.int32)
    turn = np.tile(np.arange(inner + 1, dtype=np.int32), len(process))
    moves = {
        "kind": np.full(len(levels), DOWN, np.int32),
        "level": levels,
        "turn": turn,
    }

    def down(
        denoise: Denoiser, known: Known, state: State, move: Any, draw: Draw
    ) -> State:
        level, turn = move["level"], move["turn"]
        signal = at(np.sqrt(process.abar), level)
        variance = at(1 - process.abar, level)
        rate = known.paste(jnp.float32(1), jnp.float32(1 + weight)) / variance
        length = step * variance

        def relax(x: jax.Array, force: jax.Array, time: jax.Array, noise: jax.Array):
            """Solves dx = (force - rate x) dt + sqrt(2) dW exactly."""
            stay = jnp.exp(-rate * time)
            return (
                stay * x
                + (1 - stay) * force / rate
                + jnp.sqrt((1 - stay**2) / rate) * noise
            )

        # Inner steps after the first are split in halves around the network call.
        entered = known.paste(state.x, diffuse(process, known.image, level, draw(0)))
        halfway = relax(state.x, state.memory, length / 2, draw(1))
        x = jnp.where(turn == 0, entered, jnp.where(turn < inner, halfway, state.x))
        prediction = denoise(x, level)
        clean = prediction.clean
        pushed = signal * ((1 + weight) * known.image - weight * clean) + weight * x
        force = known.paste(signal * clean, pushed) / variance
        first = relax(x, force, length, draw(2))
        corrected = x + (force - state.memory) * length
        later = relax(corrected, state.memory, length / 2, draw(2))
        kept = (x - signal * clean) / jnp.sqrt(variance)
        stepped = (
            at(np.sqrt(process.abar_before), level) * clean
            + at(np.sqrt(1 - process.abar_before), level) * kept
        )
        moved = jnp.where(turn == 0, first, jnp.where(turn < inner, later, stepped))
        return state._replace(x=moved, memory=force)

    return Sampler(moves, down)
