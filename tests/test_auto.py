"""`auto` picks by hole: what is thin, what is connected, what each gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxpaint import methods
from jaxpaint.errors import InputError
from jaxpaint.multigrid import erode, grow_within
from jaxpaint.poisson import harmonic_fill

KEY = jax.random.key(0)


def blobs(seed):
    noise = np.random.default_rng(seed).normal(size=(1, 1, 70, 90))
    return (ndimage.gaussian_filter(noise, (0, 0, 3, 3)) > 0.02).astype(np.float32)


def test_erode_keeps_what_lies_deeper_than_the_distance():
    hole = blobs(0)
    distance = ndimage.distance_transform_cdt(
        np.pad(hole[0, 0], 9, constant_values=1), "taxicab"
    )[9:-9, 9:-9]
    for steps in (0, 1, 4):
        actual = np.asarray(erode(jnp.asarray(hole), steps))[0, 0]
        np.testing.assert_array_equal(actual, distance > steps)


def test_grow_within_finds_the_connected_holes_of_the_seeds():
    hole = blobs(1)
    labels, _ = ndimage.label(hole[0, 0], np.ones((3, 3)))
    row, column = np.argwhere(labels == labels[labels > 0][0])[0]
    seed = jnp.zeros(hole.shape).at[0, 0, row, column].set(1)
    actual = np.asarray(grow_within(jnp.asarray(hole), seed))[0, 0]
    np.testing.assert_array_equal(actual, labels == labels[row, column])


def test_thin_holes_are_denoised_and_wide_ones_harmonic():
    y, x = np.mgrid[:64, :64] / 6.0
    image = jnp.asarray(0.5 * np.sin(x + y)[None, ..., None], jnp.float32)
    thin = jnp.zeros((1, 64, 64, 1)).at[:, 50:53, 5:60].set(1)
    wide = jnp.zeros((1, 64, 64, 1)).at[:, 5:35, 5:35].set(1)
    auto = methods.make("auto", thin=8)
    filled = auto.inpaint({}, image, jnp.maximum(thin, wide), KEY)
    smooth = harmonic_fill(image, wide)
    np.testing.assert_allclose(
        np.asarray(filled * wide), np.asarray(smooth * wide), atol=1e-4
    )
    denoised = methods.make("iterated_denoising").inpaint({}, image, thin, KEY)
    error, expected, harmonic = (
        float(jnp.sum(jnp.abs(fill - image) * thin))
        for fill in (filled, denoised, harmonic_fill(image, thin))
    )
    assert error < 1.5 * expected
    assert error < 0.5 * harmonic


def test_a_negative_distance_is_refused():
    with pytest.raises(InputError, match="thin is -1"):
        methods.make("auto", thin=-1)
