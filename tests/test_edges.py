"""The edge detector, beside scikit-image's and on drawn shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data, feature

from jaxpaint import edges


def test_edges_are_those_of_scikit_image():
    gray = data.camera()[100:228, 150:310].astype(np.float32) / 255
    want = feature.canny(gray, 2.0, 0.1, 0.2, mode="nearest")
    image = jnp.asarray(gray * 2 - 1)[None, ..., None]
    got = np.asarray(jax.jit(edges.canny)(image))[0, ..., 0] > 0.5
    assert want.mean() > 0.05
    assert (want & got).sum() / (want | got).sum() > 0.98


def test_a_weak_line_counts_only_where_it_leads_to_a_strong_one():
    weak = np.zeros((1, 5, 40), bool)
    weak[0, 1, :30], weak[0, 3, 33:] = True, True
    strong = np.zeros_like(weak)
    strong[0, 1, 0] = True
    got = np.asarray(edges._connected(jnp.asarray(strong), jnp.asarray(weak)))
    want = weak & (np.arange(5)[None, :, None] == 1)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("turns", range(4))
def test_turned_pictures_have_turned_edges(turns):
    image = np.full((1, 32, 32, 3), -1.0, np.float32)
    image[:, 6:20, 9:27] = 1
    plain = edges.canny(jnp.asarray(image))
    turned = edges.canny(jnp.asarray(np.rot90(image, turns, (1, 2)).copy()))
    np.testing.assert_array_equal(np.rot90(plain, turns, (1, 2)), turned)
    assert plain.sum() > 40
    assert not np.any(edges.canny(jnp.zeros((1, 16, 16, 3))))
