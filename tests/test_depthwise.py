import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxpaint.layers.depthwise import convolve_depthwise


def grouped(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the same by the compiler's grouped convolution."""
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize(
    ("stride", "size", "sides"),
    [
        (1, (3, 3), (4, 5)),
        (2, (3, 3), (8, 7)),
        (2, (5, 5), (7, 8)),
        (2, (3, 2), (4, 9)),
    ],
)
def test_values_and_gradients_are_those_of_a_grouped_convolution(stride, size, sides):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, *sides, 3))
    kernel = jax.random.normal(keys[1], (*size, 3))
    out = [-(-side // stride) for side in sides]
    cotangent = jax.random.normal(keys[2], (2, *out, 3))

    @jax.jit
    def both(x, kernel, cotangent):
        return [
            (y, pull(cotangent))
            for y, pull in (
                jax.vjp(lambda x, k: grouped(x, k, stride), x, kernel),
                jax.vjp(
                    lambda x, k: convolve_depthwise(x, k, stride=stride), x, kernel
                ),
            )
        ]

    want, got = both(x, kernel, cotangent)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_half_precision_is_summed_in_float32():
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 2)).astype(jnp.bfloat16)
    kernel = jax.random.normal(jax.random.key(1), (5, 5, 2)).astype(jnp.bfloat16)
    wide = x.astype(jnp.float32), kernel.astype(jnp.float32)
    got = jax.jit(functools.partial(convolve_depthwise, stride=1))(x, kernel)
    want = jax.jit(functools.partial(grouped, stride=1))(*wide)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))
