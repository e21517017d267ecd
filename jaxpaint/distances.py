"""Distances of sets of features, and how sure a figure is: float64, on the host.

Features are `[N, D]`, one row for each picture. Which network they come from decides
what a distance is called: FID and KID are those of Inception-V3 as published, and of
nothing else.
"""

import functools
from typing import NamedTuple

import numpy as np

from jaxpaint.errors import InputError

RESAMPLES = 1000
"""Bootstrap samples behind an interval."""


class Interval(NamedTuple):
    """Where a figure lies, mostly in 95 of 100 such measurements."""

    low: float
    high: float


def frechet(features: np.ndarray, others: np.ndarray) -> float:
    """Returns the squared Frechet distance of the Gaussians that fit two sets.

    Heusel et al. 2017, equation 6: |m - m'|^2 + tr(S + S' - 2 sqrt(S S')). The trace of
    the root is the sum of the singular values of the product of two factors of S and
    S', so that no root of a matrix is taken: exact for fewer rows than columns, too.
    (With as few the figure itself depends on the number of rows: compare only sets of
    the same size.)

    Raises:
      InputError: fewer than two rows, or other columns.
    """
    (mean, factor), (other_mean, other) = (
        _moments(x) for x in _checked(features, others)
    )
    root = np.linalg.svd(factor @ other.T, compute_uv=False).sum()
    spread = np.square(factor).sum() + np.square(other).sum() - 2 * root
    return float(np.square(mean - other_mean).sum() + max(spread, 0.0))


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean, and R with R^T R the covariance."""
    mean = x.mean(axis=0)
    factor = np.linalg.qr((x - mean) / np.sqrt(len(x) - 1))[1]
    return mean, factor


def kernel(features: np.ndarray, others: np.ndarray, *, paired: bool = False) -> float:
    """Returns the squared kernel distance (MMD) of two sets, without bias.

    Binkowski et al. 2018: kernel (x . y / D + 1)^3; may be a little below 0.

    Args:
      features: `[N, D]`.
      others: `[M, D]`.
      paired: whether row i of both belongs to one picture. Such pairs are then left
        out, since they are not independent: equal sets have the distance 0.

    Raises:
      InputError: fewer than two rows, other columns, or paired sets of other sizes.
    """
    grams = _grams(features, others, paired)
    return float(_unbiased(grams, *(np.ones((1, len(g))) for g in grams[:2]))[0])


def kernel_interval(
    features: np.ndarray,
    others: np.ndarray,
    *,
    paired: bool = False,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the interval of `kernel` by resampling pictures, of which both sets have
    the same ones in the same order.

    A picture that is drawn twice is not compared with itself.
    """
    grams = _grams(features, others, paired)
    weights = _resamples(len(grams[0]), seed)
    return _interval(_unbiased(grams, weights, weights), level)


def bootstrap(values: np.ndarray, *, seed: int = 0, level: float = 0.95) -> Interval:
    """Returns the interval of the mean of values `[N]`, by resampling them.

    For two methods on the same pictures, give the differences of their values.
    """
    values = np.asarray(values, np.float64)
    return _interval(_resamples(len(values), seed) @ values / len(values), level)


def proportion(successes: int, count: int, *, z: float = 1.959964) -> Interval:
    """Returns Wilson's interval (1927) of a share, by default for 95 %; `z`: deviations
    of a normal distribution."""
    share, penalty = successes / count, z * z / count
    middle = (share + penalty / 2) / (1 + penalty)
    half = (
        z / (1 + penalty) * np.sqrt(share * (1 - share) / count + penalty / 4 / count)
    )
    return Interval(float(middle - half), float(middle + half))


def _checked(features: np.ndarray, others: np.ndarray) -> list[np.ndarray]:
    sets = [np.asarray(x, np.float64) for x in (features, others)]
    shapes = [x.shape for x in sets]
    if any(len(s) != 2 or s[0] < 2 for s in shapes) or shapes[0][1] != shapes[1][1]:
        raise InputError(
            f"features have shapes {list(shapes[0])} and {list(shapes[1])}; want "
            "[N, D] and [M, D] with at least two rows"
        )
    return sets


def _grams(
    features: np.ndarray, others: np.ndarray, paired: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the kernel within both sets and between them, 0 where not to count."""
    x, y = _checked(features, others)
    if paired and len(x) != len(y):
        raise InputError(f"paired features have {len(x)} and {len(y)} rows; want equal")

    def gram(x: np.ndarray, y: np.ndarray, diagonal: bool) -> np.ndarray:
        k = (x @ y.T / x.shape[1] + 1) ** 3
        if not diagonal:
            np.fill_diagonal(k, np.nan)
        return k

    return gram(x, x, False), gram(y, y, False), gram(x, y, not paired)


def _unbiased(
    grams: tuple[np.ndarray, np.ndarray, np.ndarray], wx: np.ndarray, wy: np.ndarray
) -> np.ndarray:
    """Returns the distance for each row of weights of the pictures."""

    def mean(gram: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        counts = ~np.isnan(gram)
        total = np.sum(left @ np.nan_to_num(gram) * right, axis=1)
        pairs = np.sum(left @ counts * right, axis=1)
        return np.divide(total, pairs, out=np.full(len(left), np.nan), where=pairs > 0)

    within, other, between = grams
    return mean(within, wx, wx) + mean(other, wy, wy) - 2 * mean(between, wx, wy)


@functools.lru_cache(maxsize=1)
def _resamples(count: int, seed: int) -> np.ndarray:
    """Returns how often each of `count` items is drawn: `[RESAMPLES, count]`."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(float)


def _interval(figures: np.ndarray, level: float) -> Interval:
    # Of very few items a resample may hold but one, which makes no pair.
    low, high = np.nanquantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
