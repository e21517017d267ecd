"""Batch norm agrees with its closed forms, and its statistics with PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxpaint import optimization
from jaxpaint.layers.batch_norm import BatchNorm

RNG = np.random.default_rng(0)
X = RNG.normal(0.5, 2, (8, 3, 5, 4)).astype(np.float32)
SCALE = RNG.normal(1, 0.2, 4).astype(np.float32)
BIAS = RNG.normal(0, 1, 4).astype(np.float32)
MEAN = RNG.normal(0, 1, 4).astype(np.float32)
VAR = RNG.uniform(0.5, 2, 4).astype(np.float32)
EPSILON = 1e-5


def variables() -> dict:
    return {
        "params": {"scale": jnp.asarray(SCALE), "bias": jnp.asarray(BIAS)},
        "batch_stats": {"mean": jnp.asarray(MEAN), "var": jnp.asarray(VAR)},
    }


def test_training_normalizes_by_the_batch_and_records_the_unbiased_variance() -> None:
    y, new = BatchNorm().apply(variables(), X, train=True, mutable=["batch_stats"])
    wide = X.astype(np.float64)
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
    want = (wide - mean) / np.sqrt(var + EPSILON) * SCALE + BIAS
    np.testing.assert_allclose(y, want, atol=2e-6)
    count = X.size // X.shape[-1]
    stats = new["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.9 * MEAN + 0.1 * mean, rtol=1e-6)
    unbiased = var * count / (count - 1)
    np.testing.assert_allclose(stats["var"], 0.9 * VAR + 0.1 * unbiased, rtol=1e-6)


def test_inference_uses_the_running_statistics() -> None:
    y, new = BatchNorm().apply(variables(), X, train=False, mutable=["batch_stats"])
    want = (X - MEAN) / np.sqrt(VAR + EPSILON) * SCALE + BIAS
    np.testing.assert_allclose(y, want, atol=2e-6)
    np.testing.assert_array_equal(new["batch_stats"]["mean"], MEAN)
    np.testing.assert_array_equal(new["batch_stats"]["var"], VAR)


def test_gradients_are_those_of_the_closed_form() -> None:
    # Ioffe & Szegedy (2015), section 3.
    cotangent = RNG.normal(size=X.shape).astype(np.float32)

    def loss(params, x):
        apply = BatchNorm().apply
        state = variables() | {"params": params}
        y, _ = apply(state, x, train=True, mutable=["batch_stats"])
        return jnp.sum(y * cotangent)

    params, x = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables()["params"], X)
    axes = (0, 1, 2)
    wide, back = X.astype(np.float64), cotangent.astype(np.float64)
    spread = np.sqrt(wide.var(axes) + EPSILON)
    normal = (wide - wide.mean(axes)) / spread
    np.testing.assert_allclose(params["bias"], back.sum(axes), atol=1e-4)
    np.testing.assert_allclose(params["scale"], (back * normal).sum(axes), atol=1e-4)
    centered = back - back.mean(axes) - normal * (back * normal).mean(axes)
    np.testing.assert_allclose(x, SCALE / spread * centered, atol=5e-6)


def test_sharded_statistics_are_those_of_the_whole_batch() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def train(x):
        return BatchNorm().apply(variables(), x, train=True, mutable=["batch_stats"])

    want_y, want = jax.jit(train)(X)
    y, new = jax.jit(train, in_shardings=rows)(jax.device_put(X, rows))
    np.testing.assert_allclose(y, want_y, atol=2e-6)
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            new["batch_stats"][name], want["batch_stats"][name], rtol=1e-6
        )


def test_bfloat16_input_has_float32_statistics() -> None:
    # Statistics in bfloat16 would be off by 1 in 256.
    x = jnp.asarray(X + 100, jnp.bfloat16)
    y, new = BatchNorm(dtype=jnp.bfloat16).apply(
        variables(), x, train=True, mutable=["batch_stats"]
    )
    assert y.dtype == jnp.bfloat16
    mean = np.asarray(x, np.float64).mean((0, 1, 2))
    got = (np.asarray(new["batch_stats"]["mean"]) - 0.9 * MEAN) / 0.1
    np.testing.assert_allclose(got, mean, rtol=2e-6)


def test_norm_is_that_of_all_leaves_together() -> None:
    tree = {"a": jnp.asarray(X), "b": [jnp.asarray(SCALE), jnp.float32(3)]}
    want = np.sqrt((X.astype(np.float64) ** 2).sum() + (SCALE**2).sum() + 9)
    np.testing.assert_allclose(jax.jit(optimization.norm)(tree), want, rtol=1e-6)
