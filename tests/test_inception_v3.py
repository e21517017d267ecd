"""The Inception of FID: names and shapes of its file, and what sets it apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint.errors import InputError
from jaxpaint.features import inception_v3


@pytest.fixture
def arrays(monkeypatch):
    """Stands in for the published file: every array of the part that is used."""
    rng = np.random.default_rng(0)
    found = {}
    for name, shape in inception_v3._shapes().items():
        found[f"{name}.conv.weight"] = rng.normal(0, 0.1, shape).astype(np.float32)
        for norm in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.bn.{norm}"] = np.ones(shape[0], np.float32)
    found["fc.weight"] = np.zeros((1008, 2048), np.float32)
    monkeypatch.setattr(inception_v3.torch_file, "load", lambda path: found)
    return found


def test_the_file_has_94_convolutions_of_known_shapes(arrays):
    params = inception_v3.read("file")
    assert len(params) == 94
    kernels = sum(layer["kernel"].size for layer in params.values())
    assert kernels == 21_751_136
    image = jax.ShapeDtypeStruct((2, 64, 48, 3), jnp.float32)
    assert jax.eval_shape(inception_v3.describe, params, image).shape == (2, 2048)
    # Norms are folded in: with ones everywhere, (y - 1) / sqrt(1 + 0.001) + 1.
    weight = arrays["Conv2d_1a_3x3.conv.weight"].transpose(2, 3, 1, 0)
    layer = params["Conv2d_1a_3x3"]
    np.testing.assert_allclose(layer["kernel"], weight / np.sqrt(1.001), rtol=1e-6)
    np.testing.assert_allclose(layer["bias"], 1 - 1 / np.sqrt(1.001), rtol=1e-4)


def test_other_files_are_refused(arrays):
    arrays["Mixed_6c.branch7x7_2.conv.weight"] = np.zeros((160, 160, 7, 1), np.float32)
    with pytest.raises(InputError, match=r"Mixed_6c\.branch7x7_2\.conv\.weight is"):
        inception_v3.read("file")
    del arrays["Mixed_7c.branch_pool.bn.bias"]
    with pytest.raises(InputError, match=r"missing: Mixed_7c\.branch_pool\.bn\.bias"):
        inception_v3.read("file")


def test_padded_pixels_do_not_count_in_means():
    np.testing.assert_allclose(inception_v3._mean(jnp.ones((1, 4, 5, 2))), 1)
