"""Distances of feature sets against scipy and plain sums; intervals."""

import numpy as np
import pytest
from scipy import linalg, stats

from jaxpaint import distances
from jaxpaint.errors import InputError


def sets(rows=40, columns=6, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(columns, columns))
    return rng.normal(size=(rows, columns)), rng.normal(size=(rows, columns)) @ mixing


@pytest.mark.parametrize("columns", [6, 60])
def test_frechet_is_that_of_the_matrix_root(columns):
    a, b = sets(columns=columns)
    first, second = (np.cov(x, rowvar=False) for x in (a, b))
    # Regularized a little where there are fewer rows than columns.
    small = 1e-9 * np.eye(columns)
    root = linalg.sqrtm((first + small) @ (second + small)).real
    want = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first + second - 2 * root)
    assert distances.frechet(a, b) == pytest.approx(want, rel=1e-3)
    assert distances.frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_kernel_is_the_sum_over_pairs():
    a, b = sets(rows=7)

    def k(x, y):
        return (x @ y / len(x) + 1) ** 3

    def within(rows):
        pairs = [
            k(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j
        ]
        return np.mean(pairs)

    between = np.mean([k(x, y) for x in a for y in b])
    want = within(a) + within(b) - 2 * between
    assert distances.kernel(a, b) == pytest.approx(want)
    assert distances.kernel(a, a, paired=True) == pytest.approx(0, abs=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    found = [
        distances.bootstrap(rng.normal(3, 1, 60), seed=seed) for seed in range(200)
    ]
    share = np.mean([low < 3 < high for low, high in found])
    assert 0.88 < share < 0.99
    a, b = sets()
    low, high = distances.kernel_interval(a, b, paired=True)
    assert low < distances.kernel(a, b, paired=True) < high


def test_wilsons_interval_is_that_of_scipy():
    want = stats.binomtest(17, 40).proportion_ci(method="wilson")
    assert distances.proportion(17, 40) == pytest.approx(
        (want.low, want.high), abs=1e-6
    )


def test_sets_that_do_not_fit_are_refused():
    a, b = sets()
    for pair in [(a[:1], b), (a, b[:, :3]), (a[0], b)]:
        with pytest.raises(InputError, match="features have shapes"):
            distances.frechet(*pair)
    with pytest.raises(InputError, match="40 and 39 rows"):
        distances.kernel(a, b[1:], paired=True)
