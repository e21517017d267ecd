"""Attention in chunks is the plain formula, and needs less memory."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint.layers.attention import _in_chunks, attend

# Batch, queries, keys, heads, d, e. The first is taken at once, the second by head, the
# third in chunks as well, which it does not fill.
CASES = [(2, 5, 5, 3, 8, 8), (2, 500, 600, 2, 4, 4), (1, 1021, 1030, 1, 3, 5)]


def plain(query, key, value):
    scores = jnp.einsum("bthd,bshd->bhts", query, key) / query.shape[-1] ** 0.5
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("bhts,bshe->bthe", weights, value)


def arrays(case, scale=1.0):
    batch, tokens, others, heads, d, e = case
    rng = np.random.default_rng(sum(case))
    shapes = [(tokens, heads, d), (others, heads, d), (others, heads, e)]
    return [
        jnp.asarray(scale * rng.standard_normal((batch, *shape)), jnp.float32)
        for shape in shapes
    ]


@pytest.mark.parametrize(
    ("attend", "case"),
    [*((attend, case) for case in CASES), (partial(_in_chunks, size=150), CASES[1])],
)
def test_values_and_gradients_are_those_of_the_formula(attend, case) -> None:
    inputs = arrays(case)
    weights = jnp.asarray(np.random.default_rng(1).standard_normal(case[1]))

    def loss(attend):
        def of(*inputs):
            result = attend(*inputs)
            return jnp.sum(jnp.sin(result) * weights[None, :, None, None]), result

        return jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2), has_aux=True))

    (_, got), got_grads = loss(attend)(*inputs)
    (_, want), want_grads = loss(plain)(*inputs)
    np.testing.assert_allclose(got, want, atol=2e-6)
    for ours, theirs in zip(got_grads, want_grads, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_gradients_have_gradients() -> None:
    inputs = arrays(CASES[1])

    def steepness(attend):
        def of(*inputs):
            grad = jax.grad(lambda *x: jnp.sum(jnp.sin(attend(*x))))(*inputs)
            return jnp.sum(jnp.square(grad))

        return jax.jit(jax.grad(of, argnums=(0, 1, 2)))(*inputs)

    for ours, theirs in zip(steepness(attend), steepness(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_large_scores_do_not_overflow() -> None:
    inputs = arrays(CASES[0], scale=40.0)
    np.testing.assert_allclose(attend(*inputs), plain(*inputs), atol=1e-4)


def test_half_precision_is_softened_in_float32() -> None:
    inputs = [x.astype(jnp.bfloat16) for x in arrays(CASES[2])]
    got = attend(*inputs)
    assert got.dtype == jnp.bfloat16
    want = plain(*(x.astype(jnp.float32) for x in inputs))
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=4e-3)


def largest(text: str) -> int:
    """The most numbers that an array of a lowered program has."""
    shapes = re.findall(r"tensor<((?:\d+x)+)\w+>", text)
    return max(math.prod(map(int, shape[:-1].split("x"))) for shape in shapes)


def test_scores_of_all_pairs_are_never_there_at_once() -> None:
    inputs = arrays((1, 2100, 2100, 1, 4, 4))
    grad = jax.jit(jax.grad(lambda *x: jnp.sum(attend(*x)), argnums=(0, 1, 2)))
    assert 400 * 2100 < largest(grad.lower(*inputs).as_text()) < 500 * 2100
    # An accelerator may hold so many, but not these.
    few, many = (
        [jax.ShapeDtypeStruct((2, tokens, 2, 8), "float32")] * 3
        for tokens in (2100, 16384)
    )
    for shapes, bound in [(few, 4 * 2100**2), (many, 4 * 1024 * 16384)]:
        lowered = grad.trace(*shapes).lower(lowering_platforms=("tpu",))
        assert largest(lowered.as_text()) == bound


def test_it_can_be_mapped() -> None:
    inputs = [jnp.stack([x, 2 * x]) for x in arrays(CASES[1])]
    got = jax.vmap(attend)(*inputs)
    np.testing.assert_allclose(got[1], attend(*(x[1] for x in inputs)), atol=1e-6)
