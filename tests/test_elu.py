"""The exponential linear unit against flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxpaint.layers.elu import elu

SMALL = np.geomspace(1e-20, 1e3, 2000).astype(np.float32)
X = np.concatenate([-np.float32([1e30]), -SMALL, [0], SMALL, np.float32([1e30])])


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float32, 5e-7), (jnp.bfloat16, 1e-2)])
def test_values_are_those_of_flax(dtype, rtol):
    x = jnp.asarray(X, dtype)
    assert elu(x).dtype == dtype
    got, want = (jax.jit(f)(x).astype(jnp.float32) for f in (elu, nn.elu))
    np.testing.assert_allclose(got, want, rtol=rtol)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_those_of_flax(dtype):
    x = jnp.asarray(X, dtype)
    got, want = (jax.jit(jax.vmap(jax.grad(f)))(x) for f in (elu, nn.elu))
    assert got.dtype == dtype
    atol = 1e-6 if dtype == jnp.float32 else 1e-2
    np.testing.assert_allclose(
        got.astype(jnp.float32), want.astype(jnp.float32), atol=atol
    )
    twice = jax.grad(lambda x: jax.grad(elu)(x) ** 2)(jnp.float32(-1))
    np.testing.assert_allclose(twice, 2 * np.exp(-2), rtol=1e-6)
