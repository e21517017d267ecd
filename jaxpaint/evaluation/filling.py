"""Fills the holes of an evaluation with one method, picture by picture on disk."""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxpaint import methods
from jaxpaint.evaluation import results
from jaxpaint.evaluation.results import Contestant, Evaluation
from jaxpaint.files import Picture, write_picture
from jaxpaint.images import to_float, to_uint8
from jaxpaint.training import mesh as meshes


class Filler:
    """Fills batches of one shape, spread over all devices."""

    def __init__(self, contestant: Contestant, batch_size: int):
        self._method = methods.make(contestant.method, **contestant.options)
        devices = jax.device_count()
        self.size = -(-batch_size // devices) * devices
        mesh = meshes.make(1, [self.size])
        self._over, self._everywhere = meshes.over_batch(mesh), meshes.replicated(mesh)
        self._params = jax.device_put(contestant.params, self._everywhere)
        self._compiled: Any = None

    def compile(self, side: int) -> None:
        """Compiles for squares of a side, once."""
        if self._compiled is None:
            image, mask = (
                jax.ShapeDtypeStruct(
                    (self.size, side, side, channels), np.float32, sharding=self._over
                )
                for channels in (3, 1)
            )
            run = jax.jit(self._method.inpaint, out_shardings=self._everywhere)
            key = jax.device_put(jax.random.key(0), self._everywhere)
            self._compiled = run.lower(self._params, image, mask, key).compile()

    def __call__(
        self, pixels: np.ndarray, holes: np.ndarray, key: jax.Array
    ) -> np.ndarray:
        """Returns up to `size` squares, uint8 `[N, S, S, 3]`, with holes filled.

        What lies under a hole is not read; known pixels come back as they are.
        """
        self.compile(pixels.shape[1])
        rows = np.minimum(np.arange(self.size), len(pixels) - 1)
        hole = holes[rows][..., None]
        image = np.where(hole, np.float32(0), to_float(pixels[rows]))
        placed = (
            jax.device_put(x, self._over) for x in (image, hole.astype(np.float32))
        )
        key = jax.device_put(key, self._everywhere)
        filled = to_uint8(np.asarray(self._compiled(self._params, *placed, key)))
        return np.where(hole, filled, pixels[rows])[: len(pixels)]


def fill_all(
    evaluation: Evaluation,
    contestants: Sequence[Contestant],
    batch_size: int,
    samples: int,
    tell: Callable[..., None],
) -> None:
    """Writes the results that are not there yet, and how long they took.

    `tell` is called with the number of pictures of each batch and what they are.
    """
    squares = evaluation.squares
    for contestant in contestants:
        label, filler = contestant.label, Filler(contestant, batch_size)
        for kind, holes in evaluation.holes.items():
            for sample in range(samples):
                spent = fill(
                    filler,
                    squares.names,
                    squares.pixels,
                    holes,
                    evaluation.results_of(label, kind, sample),
                    jax.random.fold_in(jax.random.key(evaluation.seed), sample),
                    functools.partial(tell, what=f"{label}, {kind}"),
                )
                results.add_seconds(evaluation.folder / "seconds.json", {label: spent})


def fill(
    filler: Filler,
    names: Sequence[str],
    pixels: np.ndarray,
    holes: np.ndarray,
    folder: Path,
    key: jax.Array,
    tell: Callable[[int], Any],
) -> tuple[float, int]:
    """Writes `folder/NAME.png` for every picture that is not there yet.

    Batches are always the same ones, so that a run in pieces gives what one in one
    piece gives.

    Args:
      filler: the method.
      names: of the pictures.
      pixels: uint8 `[N, S, S, 3]`.
      holes: boolean `[N, S, S]`.
      folder: made if missing.
      key: of the method's draws.
      tell: called with the number of pictures of each batch, when it is done.

    Returns:
      Seconds that the method took, writing left out, and for how many pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seconds, count = 0.0, 0
    for first in range(0, len(names), filler.size):
        part = slice(first, first + filler.size)
        paths = [folder / f"{name}.png" for name in names[part]]
        if not all(path.exists() for path in paths):
            filler.compile(pixels.shape[1])
            start = time.perf_counter()
            filled = filler(pixels[part], holes[part], jax.random.fold_in(key, first))
            seconds += time.perf_counter() - start
            count += len(filled)
            for path, result in zip(paths, filled, strict=True):
                if not path.exists():
                    write_picture(path, Picture(result))
        tell(len(paths))
    return seconds, count
