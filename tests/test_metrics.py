"""Scores against scikit-image and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxpaint import metrics


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, (2, 20, 24, 3))
    result = (truth + rng.normal(0, [[[[0.1]]], [[[0.3]]]], truth.shape)).clip(-1, 1)
    return jnp.asarray(result, jnp.float32), jnp.asarray(truth, jnp.float32)


def test_psnr_and_ssim_are_those_of_scikit_image(pair):
    result, truth = (np.asarray(x, np.float64) for x in pair)
    psnr, ssim = (np.asarray(f(*pair)) for f in (metrics.psnr, jax.jit(metrics.ssim)))
    for i in range(2):
        a, b = (truth[i] + 1) / 2, (result[i] + 1) / 2
        assert psnr[i] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1))
        want = structural_similarity(
            a,
            b,
            data_range=1,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert ssim[i] == pytest.approx(want, abs=1e-5)


def test_equal_pictures_score_best(pair):
    truth = pair[1]
    assert np.isinf(np.asarray(metrics.psnr(truth, truth))).all()
    np.testing.assert_allclose(metrics.ssim(truth, truth), 1, atol=1e-6)
    np.testing.assert_array_equal(metrics.l1(truth, truth), 0)


def test_l1_is_a_share_of_the_range_and_that_of_the_hole_sees_the_hole_only():
    truth = -jnp.ones((2, 4, 4, 3))
    mask = jnp.zeros((2, 4, 4, 1)).at[0, 0, :2].set(1)
    result = truth.at[0, 0, :2].set(0.0)
    np.testing.assert_allclose(metrics.l1(result, truth), [0.5 * 2 / 16, 0])
    np.testing.assert_allclose(metrics.hole_l1(result, truth, mask), [0.5, 0])
    worse = result.at[:, 3].set(1.0)
    np.testing.assert_allclose(metrics.hole_l1(worse, truth, mask), [0.5, 0])


def test_hole_scores_see_the_hole_only(pair):
    result, truth = pair
    mask = jnp.zeros((2, 20, 24, 1)).at[:, 8:12, 6:14].set(1)
    # The whole picture as hole gives the score of the picture.
    whole = jnp.ones_like(mask)
    np.testing.assert_allclose(
        metrics.hole_psnr(result, truth, whole), metrics.psnr(result, truth), rtol=1e-5
    )
    np.testing.assert_allclose(
        metrics.hole_ssim(result, truth, whole), metrics.ssim(result, truth), rtol=1e-5
    )
    filled = jnp.where(mask > 0, result, truth)
    far = filled.at[:, -1, -1].set(1.0)  # in no window around a hole pixel
    for score in (metrics.hole_psnr, metrics.hole_ssim):
        np.testing.assert_array_equal(
            score(filled, truth, mask), score(far, truth, mask)
        )
    np.testing.assert_allclose(metrics.hole_ssim(filled, truth, 0 * mask), 1)


def test_diversity_is_the_mean_distance_of_all_pairs():
    samples = jnp.asarray([0.0, 0.2, 0.6])[:, None, None, None, None]
    samples = jnp.broadcast_to(samples, (3, 2, 4, 4, 3))
    mask = jnp.zeros((2, 4, 4, 1)).at[0].set(1)
    got = metrics.diversity(samples, mask)
    np.testing.assert_allclose(got, [(0.1 + 0.2 + 0.3) / 3, 0], atol=1e-6)
