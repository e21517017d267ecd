"""The networks of diffusion models agree with recorded ones, whatever the flags."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxpaint import convert, torch_file
from jaxpaint.convert._guided_classifier import convert_classifier
from jaxpaint.convert.repaint import convert as convert_arrays
from jaxpaint.convert.repaint import unet
from jaxpaint.diffusion.blocks import GroupNorm, halved, timestep_features
from jaxpaint.diffusion.classifier import Classifier
from jaxpaint.diffusion.unet import UNet
from jaxpaint.errors import InputError

SMALL = {
    "channels": 32,
    "out_channels": 3,
    "blocks": 1,
    "multipliers": (1, 1),
    "attention": (2,),
    "heads": 2,
}
X = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 8, 12, 3)), jnp.float32)
T = jnp.array([3, 700])


def nhwc(x: np.ndarray) -> jnp.ndarray:
    return jnp.asarray(np.moveaxis(x, -3, -1))


def read(case: Path) -> tuple[dict, dict[str, np.ndarray]]:
    return json.loads((case / "meta.json").read_text()), dict(np.load(case / "io.npz"))


def heads_of(given: dict) -> dict[str, object]:
    """The fields that no array tells, out of guided-diffusion's arguments."""
    return {
        "heads": given.get("num_heads", 1),
        "head_channels": max(given.get("num_head_channels", -1), 0),
        "heads_up": max(given.get("num_heads_upsample", -1), 0),
        "joint_heads": not given.get("use_new_attention_order", False),
    }


@pytest.mark.parity
def test_guided_diffusion(fixtures: Path) -> None:
    cases = sorted(fixtures.glob("repaint_unet_*"))
    assert cases
    for case in cases:
        meta, arrays = read(case)
        weights = torch_file.load(case / "weights.pth")
        converted = convert_arrays(convert.state_dict(weights))
        network = unet({**converted.options, **heads_of(meta["constructor"])})
        label = jnp.asarray(arrays["y"]) if "y" in arrays else None
        forward = jax.jit(network.apply)
        with jax.default_matmul_precision("highest"):
            for t, want in zip(arrays["t"], arrays["out"], strict=True):
                got = forward(converted.params, nhwc(arrays["x"]), t, label)
                np.testing.assert_allclose(
                    got, nhwc(want), **meta["tolerance"], err_msg=case.name
                )


@pytest.mark.parity
def test_diffusers(fixtures: Path) -> None:
    cases = sorted(fixtures.glob("repaint_diffusers_unet*"))
    assert cases
    for case in cases:
        meta, arrays = read(case)
        converted = convert.convert(case)
        forward = jax.jit(unet(converted.options).apply)
        x = nhwc(arrays["x"])
        with jax.default_matmul_precision("highest"):
            for t, want in zip(arrays["t"], arrays["out"], strict=True):
                got = forward(converted.params, x, jnp.full(len(x), t))
                np.testing.assert_allclose(
                    got, nhwc(want), **meta["tolerance"], err_msg=case.name
                )


@pytest.mark.parity
def test_classifier_and_the_gradient_that_guides(fixtures: Path) -> None:
    cases = sorted(fixtures.glob("repaint_classifier*"))
    assert cases
    for case in cases:
        meta, arrays = read(case)
        weights = torch_file.load(case / "weights.pth")
        fields, params = convert_classifier(convert.state_dict(weights))
        given = meta["constructor"]
        heads = heads_of(given)
        del heads["heads_up"]
        assert fields["image_size"] == given["image_size"]
        network = Classifier(**{**fields, **heads})
        label = arrays["y"]

        def chosen(x, t, network=network, params=params, label=label):
            logits = network.apply(params, x, t)
            log_p = jax.nn.log_softmax(logits)
            return jnp.sum(log_p[jnp.arange(len(x)), label]), logits

        guide = jax.jit(jax.grad(chosen, has_aux=True))
        with jax.default_matmul_precision("highest"):
            for t, want, grad in zip(
                arrays["t"], arrays["logits"], arrays["grad_log_prob"], strict=True
            ):
                got, logits = guide(nhwc(arrays["x"]), t)
                np.testing.assert_allclose(logits, want, **meta["tolerance"]["logits"])
                # Recorded gradients are smaller than their tolerance.
                np.testing.assert_allclose(got, nhwc(grad), atol=3e-6)


def randomized(network: nn.Module, *inputs: jax.Array) -> dict:
    """Parameters none of which is zero, so that every layer has a say."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: jnp.asarray(
            rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape), x.dtype
        ),
        shapes,
    )


@pytest.fixture(scope="module")
def small() -> tuple[UNet, dict, jax.Array]:
    """A network, its parameters, and what it makes of X and T."""
    network = UNet(**SMALL)
    params = randomized(network, X, T)
    return network, params, network.apply(params, X, T)


Small = tuple[UNet, dict, jax.Array]


def test_an_untrained_network_says_zero_and_begins_as_pytorch_does() -> None:
    network = UNet(**{**SMALL, "multipliers": (1,)})
    variables = network.init(jax.random.key(0), X, T)
    assert jnp.all(network.apply(variables, X, T) == 0)
    params = variables["params"]
    for leaf in params["down0_0"]["conv_0"].values():
        limit = 1 / (9 * 32) ** 0.5
        assert 0.8 * limit < jnp.abs(leaf).max() <= limit
        assert abs(jnp.mean(leaf)) < 0.4 * limit
    for name, zero in [("down0_0", "conv_1"), ("middle_attention", "out")]:
        assert all(jnp.all(leaf == 0) for leaf in params[name][zero].values())


def test_remat_changes_nothing() -> None:
    fields = {**SMALL, "multipliers": (1,), "attention": ()}
    params = randomized(UNet(**fields), X, T)

    def grad(**more):
        network = UNet(**fields, **more)
        loss = lambda p: jnp.sum(jnp.sin(network.apply(p, X, T)))  # noqa: E731
        return jax.make_jaxpr(jax.grad(loss))(params), jax.jit(jax.grad(loss))(params)

    def blocks(program):
        return sum(e.primitive.name.startswith("remat") for e in program.eqns)

    plain, want = grad()
    again, got = grad(remat=True)
    assert (blocks(plain), blocks(again)) == (0, 6)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-3), got, want)


def test_bfloat16_is_near_and_keeps_float32_outside(small: Small) -> None:
    network = UNet(**SMALL, dtype=jnp.bfloat16)
    got, seen = network.apply(small[1], X, T, capture_intermediates=True)
    assert got.dtype == jnp.float32
    difference = jnp.abs(got - small[2]).max() / jnp.std(small[2])
    assert 1e-4 < difference < 0.1
    outputs = {
        name: x["__call__"][0]
        for name, x in seen["intermediates"].items()
        if name != "__call__"
    }
    for name in ("time_1", "norm"):
        assert outputs[name].dtype == jnp.float32
    for name in ("input", "down0_0", "middle_attention", "up1_resample"):
        assert outputs[name].dtype == jnp.bfloat16


def test_every_flag_reaches_the_result(small: Small) -> None:
    _, params, want = small
    changes = [
        {"head_channels": 8},
        {"heads_up": 1},
        {"joint_heads": False},
        {"sine_first": True},
        {"frequency_shift": 1.0},
        {"norm_epsilon": 0.1},
        {"pad_end": True},
    ]
    for change in changes:
        got = UNet(**{**SMALL, **change}).apply(params, X, T)
        assert jnp.abs(got - want).max() > 1e-4, change


def test_layers_without_parameters_resample() -> None:
    x = jnp.arange(2.0 * 4 * 6).reshape(1, 4, 6, 2)
    want = nn.avg_pool(x, (2, 2), (2, 2))
    np.testing.assert_allclose(halved(x), want)
    network = UNet(**SMALL, convolve_resampled=False)
    shapes = jax.eval_shape(network.init, jax.random.key(0), X, T)
    assert not any("resample" in name for name in shapes["params"])
    blocks = UNet(**SMALL, resample_blocks=True)
    shapes = jax.eval_shape(blocks.init, jax.random.key(0), X, T)
    assert "conv_1" in shapes["params"]["up1_resample"]


def test_half_channels_are_allowed() -> None:
    fields = {**SMALL, "channels": 64, "multipliers": (0.5, 1)}
    shapes = jax.eval_shape(UNet(**fields).init, jax.random.key(0), X, T)
    assert shapes["params"]["input"]["kernel"].shape == (3, 3, 3, 32)


def test_dropout_is_for_training(small: Small) -> None:
    network, (_, params, want) = UNet(**SMALL, dropout=0.5), small
    still = network.apply(params, X, T)
    np.testing.assert_array_equal(still, want)
    first, second = (
        network.apply(params, X, T, train=True, rngs={"dropout": jax.random.key(i)})
        for i in range(2)
    )
    assert jnp.abs(first - second).max() > 1e-3
    assert jnp.abs(first - still).max() > 1e-3


def test_pictures_of_a_batch_do_not_mix(small: Small) -> None:
    network, params, both = small
    changed = network.apply(params, X.at[0].set(0), T.at[0].set(0))
    np.testing.assert_allclose(changed[1], both[1], atol=1e-6)
    assert jnp.abs(changed[0] - both[0]).max() > 1e-3


def test_what_does_not_fit_is_refused() -> None:
    def shapes(x=X, label=None, **changes):
        network = UNet(**{**SMALL, **changes})
        return jax.eval_shape(network.init, jax.random.key(0), x, T, label)

    with pytest.raises(InputError, match="12 x 7 pixels; want multiples of 2"):
        shapes(X[:, :7])
    with pytest.raises(InputError, match="0 classes, but labels are given"):
        shapes(label=T)
    with pytest.raises(InputError, match="9 classes, but labels are missing"):
        shapes(classes=9)
    with pytest.raises(InputError, match="48 channels; want a multiple of 32"):
        shapes(channels=48)
    with pytest.raises(InputError, match="heads is 5; want a divisor of 32"):
        shapes(heads=5)


def test_timestep_features() -> None:
    t = jnp.array([0, 5, 999])
    speeds = np.exp(-np.log(1e4) * np.arange(3) / 3)
    angles = np.asarray(t)[:, None] * speeds
    want = np.concatenate([np.cos(angles), np.sin(angles), np.zeros((3, 1))], axis=1)
    np.testing.assert_allclose(timestep_features(t, 7), want, atol=1e-4)
    swapped = timestep_features(t, 6, sine_first=True)
    np.testing.assert_allclose(swapped, np.roll(want[:, :6], 3, axis=1), atol=1e-4)
    last = timestep_features(t, 8, shift=1.0)[1, 3]
    np.testing.assert_allclose(last, np.cos(5e-4), rtol=1e-6)


def test_group_norm_and_its_gradients_are_those_of_flax() -> None:
    rng = np.random.default_rng(2)
    x = 3 + jnp.asarray(rng.normal(size=(2, 5, 3, 64)))
    scale, shift = (jnp.asarray(rng.normal(size=(2, 64))) for _ in range(2))
    norm = GroupNorm()
    params = randomized(norm, x)

    def theirs(params, x, scale, shift):
        y = nn.GroupNorm(32, epsilon=1e-5).apply(params, x)
        return y * (1 + scale[:, None, None]) + shift[:, None, None]

    def ours(params, x, scale, shift):
        return norm.apply(params, x, scale=scale, shift=shift)

    results = []
    for function in (ours, theirs):

        def total(*inputs, function=function):
            y = function(*inputs)
            return jnp.sum(jnp.sin(y)), y

        results.append(
            jax.grad(total, (0, 1, 2, 3), has_aux=True)(params, x, scale, shift)
        )
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=3e-4)
    jax.tree.map(close, *results)
    # One value has no deviation.
    flat = norm.apply(params, jnp.full_like(x, 7.3))
    bias = jnp.broadcast_to(params["params"]["bias"], x.shape)
    np.testing.assert_allclose(flat, bias, atol=1e-2)


@pytest.mark.parametrize("pool", ["attention", "adaptive", "spatial", "spatial_v2"])
def test_every_pool_sees_the_picture(pool: str) -> None:
    network = Classifier(
        image_size=8,
        channels=32,
        classes=5,
        blocks=1,
        multipliers=(1,),
        attention=(),
        pool=pool,
        head_channels=16,
    )
    x = X[:, :, :8].at[1].add(1)
    params = randomized(network, x, T)
    logits = network.apply(params, x, T)
    assert logits.shape == (2, 5)
    assert jnp.abs(logits[0] - logits[1]).max() > 1e-3
    if pool == "attention":
        with pytest.raises(InputError, match="wants 8 x 8"):
            network.apply(params, X, T)


def test_an_unknown_pool_is_refused() -> None:
    network = Classifier(8, 32, 5, 1, (1,), (), pool="adaptve")
    with pytest.raises(InputError, match="did you mean 'adaptive'"):
        jax.eval_shape(network.init, jax.random.key(0), X, T)
