"""What results score: for each picture, and as sets of features."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint import distances, metrics
from jaxpaint.distances import Interval
from jaxpaint.images import to_float

BATCH = 16
"""Pictures that are scored or described at once, at most."""

HIGHER_IS_BETTER = ("psnr", "ssim", "hole_psnr", "hole_ssim", "diversity")

Distance = Callable[[jax.Array, jax.Array], jax.Array]
"""Of pairs of pictures `[B, H, W, 3]` in [-1, 1], such as LPIPS: `[B]`."""

Describe = Callable[[jax.Array], jax.Array]
"""Features `[B, D]` of pictures in [-1, 1]."""


class Network(NamedTuple):
    """What describes pictures for the distances of sets."""

    name: str
    kernel: str
    """What the kernel distance of its features is called."""
    frechet: str
    """What their Frechet distance is called."""
    paired: bool
    """Whether a result is not compared with its own truth; see `distances.kernel`."""
    checksum: str
    """Of its file."""
    describe: Describe
    """Jitted."""


class Row(NamedTuple):
    """The scores of one result."""

    method: str
    mask: str
    picture: str
    scores: dict[str, float]


class Figure(NamedTuple):
    """One entry of a table."""

    method: str
    mask: str
    metric: str
    value: float
    interval: Interval
    pictures: int


@functools.cache
def _scorer(distance: Distance | None) -> Callable:
    def score(result: jax.Array, truth: jax.Array, mask: jax.Array):
        scores = {
            "hole_l1": metrics.hole_l1(result, truth, mask),
            "l1": metrics.l1(result, truth),
            "psnr": jnp.minimum(metrics.psnr(result, truth), 100.0),
            "hole_psnr": jnp.minimum(metrics.hole_psnr(result, truth, mask), 100.0),
        }
        if min(result.shape[1:3]) >= 11:
            scores["ssim"] = metrics.ssim(result, truth)
            scores["hole_ssim"] = metrics.hole_ssim(result, truth, mask)
        if distance is not None:
            scores["lpips"] = distance(result, truth)
        return scores

    return jax.jit(score)


def score(
    results: np.ndarray,
    truth: np.ndarray,
    holes: np.ndarray,
    distance: Distance | None = None,
) -> Iterator[dict[str, float]]:
    """Yields the scores of each result, rounded to 6 digits.

    PSNR is capped at 100 dB, so that means exist.

    Args:
      results: uint8 `[N, S, S, 3]`.
      truth: likewise.
      holes: boolean `[N, S, S]`.
      distance: of pairs, called `lpips`; None: none.
    """
    for part in _parts(len(results)):
        found = _scorer(distance)(
            to_float(results[part]),
            to_float(truth[part]),
            holes[part][..., None].astype(np.float32),
        )
        columns = {name: np.asarray(values) for name, values in found.items()}
        real = len(set(part.tolist()))
        for i in range(real):
            yield {name: float(f"{c[i]:.6g}") for name, c in columns.items()}


def diversity(samples: Sequence[np.ndarray], holes: np.ndarray) -> Iterator[float]:
    """Yields how far the samples for each hole lie apart, rounded to 6 digits.

    Samples are uint8 `[N, S, S, 3]`, holes boolean `[N, S, S]`.
    """
    for part in _parts(len(holes)):
        stacked = np.stack([to_float(pixels[part]) for pixels in samples])
        hole = holes[part][..., None].astype(np.float32)
        values = np.asarray(_diversity(stacked, hole))
        for i in range(len(set(part.tolist()))):
            yield float(f"{values[i]:.6g}")


_diversity = jax.jit(metrics.diversity)


def features(describe: Describe, pictures: np.ndarray) -> np.ndarray:
    """Returns float32 features `[N, D]` of uint8 pictures; `describe` is jitted."""
    found = []
    for part in _parts(len(pictures)):
        real = len(set(part.tolist()))
        batch = jnp.asarray(to_float(pictures[part]))
        found.append(np.asarray(describe(batch))[:real])
    return np.concatenate(found)


def _parts(count: int) -> Iterator[np.ndarray]:
    """Yields indices of batches of one size; the last one is repeated to fill up.

    The size is a power of two, so that few are compiled for.
    """
    size = min(BATCH, 1 << (count - 1).bit_length())
    for first in range(0, count, size):
        yield np.minimum(np.arange(first, first + size), count - 1)


def means(rows: Iterable[Row]) -> Iterator[Figure]:
    """Yields the mean of each score over the pictures of a method and mask."""
    columns: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        for metric, value in row.scores.items():
            columns.setdefault((row.method, row.mask, metric), []).append(value)
    for (method, mask, metric), values in columns.items():
        interval = distances.bootstrap(np.array(values))
        yield Figure(
            method, mask, metric, float(np.mean(values)), interval, len(values)
        )


def set_distances(
    label: str, mask: str, network: Network, found: np.ndarray, truth: np.ndarray
) -> Iterator[Figure]:
    """Yields the distances of features of results from those of their truths.

    Only the kernel distance has an interval: resampled pictures have fewer different
    ones, which the Frechet distance takes for a distance.
    """
    paired = network.paired
    interval = distances.kernel_interval(found, truth, paired=paired)
    value = distances.kernel(found, truth, paired=paired)
    yield Figure(label, mask, network.kernel, value, interval, len(found))
    value = distances.frechet(found, truth)
    nowhere = Interval(float("nan"), float("nan"))
    yield Figure(label, mask, network.frechet, value, nowhere, len(found))
