import fnmatch
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpaint
from jaxpaint import convert, methods, torch_file
from jaxpaint.config import Compute, Optim
from jaxpaint.convert import coverage
from jaxpaint.convert import partial_conv as converter
from jaxpaint.errors import InputError
from jaxpaint.layers.convolution import convolve
from jaxpaint.layers.partial_conv import PartialConv
from jaxpaint.methods._partial_conv_unet import UNet

KEY = jax.random.key(3)
SMALL = {"levels": 2, "width": 4, "max_width": 8, "perceptual": 0, "style": 0}


def scene(size=(2, 16, 16), seed=0):
    """Random pictures with a box and a thin line as hole; mask 1 = hole."""
    rng = np.random.default_rng(seed)
    image = jnp.asarray(rng.uniform(-1, 1, (*size, 3)), jnp.float32)
    mask = jnp.zeros((*size, 1)).at[:, 4:10, 3:11].set(1).at[:, 13].set(1)
    return {"image": image, "mask": mask}


# The layer


def layer(features=5, kernel_size=3, **options):
    """Returns (variables, apply) of a layer of one input with 3 channels."""
    module = PartialConv(features, kernel_size, **options)
    variables = jax.jit(module.init)(KEY, [jnp.zeros((1, 8, 8, 3))])
    bias = jnp.arange(1.0, features + 1)
    if "bias" in variables["params"]:
        variables = {"params": {**variables["params"], "bias": bias}}
    return variables, jax.jit(functools.partial(module.apply, variables))


def test_with_all_pixels_known_it_is_a_convolution():
    variables, apply = layer(padding=1)
    x = scene()["image"]
    y, mask = apply([x], [jnp.ones((2, 16, 16, 1))])
    plain = convolve(x, variables["params"]["kernel"], padding=1)
    plain += variables["params"]["bias"][None, None, None]
    np.testing.assert_allclose(y[:, 1:-1, 1:-1], plain[:, 1:-1, 1:-1], atol=1e-5)
    assert (mask == 1).all()
    # At the border the known part of the window stands for all of it.
    without, _ = apply([x])
    np.testing.assert_array_equal(y, without)
    assert not np.allclose(y[:, 0], plain[:, 0], atol=1e-3)


def test_a_constant_picture_stays_constant_whatever_is_missing():
    module = PartialConv(2, 5, padding=2, use_bias=False)
    x, mask = jnp.full((1, 16, 16, 3), 0.7), scene((1, 16, 16))["mask"]
    ones = {"params": {"kernel": jnp.full((5, 5, 3, 2), 1 / 75)}}
    y, seen = module.apply(ones, [x], [1 - mask])
    np.testing.assert_allclose(y, 0.7 * jnp.broadcast_to(seen, y.shape), rtol=1e-5)


def test_unknown_pixels_are_never_read():
    _, apply = layer(padding=1)
    batch = scene()
    known = 1 - batch["mask"]
    first = apply([batch["image"]], [known])
    poisoned = jnp.where(known > 0, batch["image"], jnp.nan)
    for a, b in zip(first, apply([poisoned], [known]), strict=True):
        np.testing.assert_array_equal(a, b)

    def total(x):
        return jnp.sum(apply([x], [known])[0])

    np.testing.assert_array_equal(jax.grad(total)(batch["image"]) * batch["mask"], 0)


def test_the_known_region_grows_and_the_bias_stays_out_of_the_rest():
    _, apply = layer(padding=1)
    mask = jnp.zeros((1, 16, 16, 1)).at[:, :12].set(1)
    y, seen = apply([scene((1, 16, 16))["image"]], [1 - mask])
    np.testing.assert_array_equal(seen[0, :, 0, 0], [0.0] * 11 + [1.0] * 5)
    np.testing.assert_array_equal(y[:, :11], 0)
    assert (y[:, 11:] != 0).all()


def test_no_gradient_flows_through_the_mask():
    _, apply = layer(padding=1)
    batch = scene()

    def total(known):
        y, seen = apply([batch["image"]], [known])
        return jnp.sum(y) + jnp.sum(seen)

    np.testing.assert_array_equal(jax.grad(total)(1 - batch["mask"]), 0)


def test_one_mask_for_each_tensor_equals_one_for_each_channel():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(2, 12, 12, 5)), jnp.float32)
    a, b = (jnp.asarray(rng.uniform(size=(2, 12, 12, 1)) < p) for p in (0.3, 0.6))
    module = PartialConv(4, 3, 2, 1)
    variables, apply = jax.jit(module.init)(KEY, [x]), jax.jit(module.apply)
    two = apply(variables, [x[..., :3], x[..., 3:]], [a, b])
    five = apply(variables, jnp.split(x, 5, axis=-1), [a, a, a, b, b])
    for one, other in zip(two, five, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


# The method


@functools.cache
def small(**options):
    """Returns (method, jitted step, jitted inpaint, first state)."""
    method = methods.make("partial_conv", **{**SMALL, **options})
    state = jax.jit(method.init)(KEY, scene())
    return method, jax.jit(method.train_step), jax.jit(method.inpaint), state


def test_a_hole_everywhere_gives_zeros():
    method, _, inpaint, state = small()
    image = scene()["image"]
    result = inpaint(method.eval_params(state), image, jnp.ones((2, 16, 16, 1)), KEY)
    np.testing.assert_array_equal(result, 0)


@pytest.mark.parametrize("size", [(1, 16, 24), (1, 13, 21), (1, 5, 3)])
def test_any_size_is_filled(size):
    method, _, inpaint, state = small()
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.uniform(-1, 1, (*size, 3)), jnp.float32)
    mask = jnp.zeros((*size, 1)).at[:, 1:4, 1:].set(1)
    result = inpaint(method.eval_params(state), image, mask, KEY)
    assert result.shape == image.shape
    assert np.isfinite(result).all()
    assert (np.asarray(result)[:, 1:4, 1:] != 0).all()


def test_a_gray_picture_is_filled_as_its_color_copy():
    method, _, inpaint, state = small()
    params, batch = method.eval_params(state), scene()
    gray = batch["image"][..., :1]
    copies = jnp.broadcast_to(gray, batch["image"].shape)
    result = inpaint(params, gray, batch["mask"], KEY)
    color = inpaint(params, copies, batch["mask"], KEY)
    assert result.shape == gray.shape
    np.testing.assert_allclose(result, color.mean(-1, keepdims=True), atol=1e-6)


def test_training_lowers_the_loss_and_moves_everything():
    _, step, _, state = small(optim=Optim(lr=5e-3, ema_decay=0.5))
    values = []
    first = state
    for _ in range(15):
        state, metrics = step(state, scene(), KEY)
        values.append(float(metrics["loss/total"]))
    assert values[-1] < 0.8 * values[0]
    terms = {"valid": 1.0, "hole": 6.0, "tv": 0.1}
    total = sum(w * metrics[f"loss/{name}"] for name, w in terms.items())
    np.testing.assert_allclose(metrics["loss/total"], total, rtol=1e-5)
    assert set(metrics) == {*(f"loss/{n}" for n in (*terms, "total")), "grad_norm"}
    assert state.step == 15
    for old, new in zip(*map(jax.tree.leaves, (first[1:3], state[1:3])), strict=True):
        assert not np.array_equal(old, new)


def test_inference_takes_the_moving_average():
    method, step, _, state = small(optim=Optim(lr=5e-3, ema_decay=0.5))
    once, _ = step(state, scene(), KEY)
    average = method.eval_params(once)
    # In step 0 a tenth of the old values is kept.
    want = jax.tree.map(
        lambda a, b: 0.1 * a + 0.9 * b,
        state.network.variables(),
        once.network.variables(),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), average, want
    )


def test_parameters_can_be_loaded_into_a_fresh_state():
    method, step, _, state = small(optim=Optim(lr=5e-3, ema_decay=0.5))
    trained, _ = step(state, scene(), KEY)
    params = method.eval_params(trained)
    loaded = method.load_params(state, params)
    jax.tree.map(np.testing.assert_array_equal, method.eval_params(loaded), params)
    assert loaded.step == 0
    assert jax.tree.structure(loaded) == jax.tree.structure(state)


def test_the_second_phase_keeps_the_statistics_of_the_encoder():
    _, step, _, state = small(freeze_encoder_norm=True, freeze_encoder_affine=True)
    after, _ = step(state, scene(), KEY)
    for name, stats in state.network.stats.items():
        kept = np.array_equal(
            stats["norm"]["var"], after.network.stats[name]["norm"]["var"]
        )
        assert kept == name.startswith("enc"), name
    for name, params in state.network.params.items():
        moved = jax.tree.map(
            lambda a, b: not np.array_equal(a, b), params, after.network.params[name]
        )
        assert moved["conv"]["kernel"], name
        if "norm" in moved:
            assert moved["norm"]["scale"] == name.startswith("dec"), name


def test_without_a_feature_network_training_says_how_to_go_on():
    method = methods.make("partial_conv", **{**SMALL, "style": 120})
    state = jax.eval_shape(method.init, KEY, scene())
    with pytest.raises(InputError, match=r"features=PATH .* perceptual=0 style=0"):
        jax.eval_shape(method.train_step, state, scene(), KEY)
    params = method.eval_params(state)
    jax.eval_shape(method.inpaint, params, *scene().values(), KEY)


@pytest.mark.parametrize("option", ["levels", "width", "max_width"])
def test_bad_options_are_refused(option):
    with pytest.raises(InputError, match=f"{option} is 0; want"):
        methods.make("partial_conv", **{option: 0})


def test_sixteen_bits_stay_inside_the_network():
    method, _, inpaint, state = small()
    narrow = methods.make("partial_conv", **SMALL, compute=Compute(dtype="bfloat16"))
    text = str(jax.make_jaxpr(narrow.train_step)(state, scene(), KEY))
    assert "bf16[2,8,8,4]" in text
    types = jax.eval_shape(narrow.train_step, state, scene(), KEY)
    assert types == jax.eval_shape(method.train_step, state, scene(), KEY)
    params = method.eval_params(state)
    exact = inpaint(params, *scene().values(), KEY)
    rounded = jax.jit(narrow.inpaint)(params, *scene().values(), KEY)
    assert 0 < np.abs(np.asarray(exact - rounded)).max() < 0.1


def test_remat_changes_nothing_but_memory():
    _, step, _, state = small()
    again = methods.make("partial_conv", **SMALL, compute=Compute(remat=True))
    text = str(jax.make_jaxpr(again.train_step)(state, scene(), KEY))
    assert text.count("checkpoint[") + text.count("remat") >= 4
    for a, b in zip(
        jax.tree.leaves(step(state, scene(), KEY)[1]),
        jax.tree.leaves(jax.jit(again.train_step)(state, scene(), KEY)[1]),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_the_front_door_takes_its_parameters():
    method, _, _, state = small()
    image = np.full((40, 56, 3), 0.25, np.float32)
    mask = np.zeros((40, 56), bool)
    mask[10:20, 30:36] = True
    result = jaxpaint.inpaint(
        image,
        mask,
        "partial_conv",
        options=SMALL,
        params=method.eval_params(state),
    )
    np.testing.assert_array_equal(result[~mask], image[~mask])
    assert np.isfinite(result).all()


# Comparison with the references


def cases(fixtures, pattern):
    folders = sorted(fixtures.glob(pattern))
    assert folders
    for folder in folders:
        meta = json.loads((folder / "meta.json").read_text())
        weights = folder / "weights.pth"
        if "weights_from" in meta:
            weights = fixtures / meta["weights_from"] / "weights.pth"
        yield meta, dict(np.load(folder / "io.npz")), torch_file.load(weights)


def close(meta, name, got, want):
    patterns = meta["tolerance"]["atol_per_array"]
    atol = patterns.get(name)
    if atol is None:
        atol = next(v for p, v in patterns.items() if fnmatch.fnmatch(name, p))
    np.testing.assert_allclose(got, want, meta["tolerance"]["rtol"], atol, err_msg=name)


def nhwc(x):
    return jnp.asarray(np.asarray(x, np.float32).transpose(0, 2, 3, 1))


@pytest.mark.parity
def test_the_layer_equals_the_reference(fixtures):
    for meta, arrays, weights in cases(fixtures, "pconv_layer*"):
        for name, config in meta["config"].items():
            module = PartialConv(
                config["out_channels"],
                config["kernel"],
                config["stride"],
                config["padding"],
                config["dilation"],
                use_bias=config["bias"],
            )
            params = {"kernel": weights[f"{name}.weight"].transpose(2, 3, 1, 0)}
            if config["bias"]:
                params["bias"] = weights[f"{name}.bias"]
            cotangent = nhwc(arrays[f"{name}.cotangent"])
            known = None
            x = nhwc(arrays[f"{name}.x"])
            parts = config["in_channels"] if config["multi_channel"] else 1
            if config["mask_given"]:
                known = jnp.split(nhwc(arrays[f"{name}.mask"]), parts, axis=-1)

            def total(params, x, module=module, parts=parts, known=known, c=cotangent):
                inputs = jnp.split(x, parts, axis=-1)
                y, seen = module.apply({"params": params}, inputs, known)
                return jnp.sum(y * c), (y, seen)

            with jax.default_matmul_precision("highest"):
                found = jax.jit(jax.grad(total, (0, 1), has_aux=True))(params, x)
            (grads, grad_x), (y, seen) = found
            close(meta, f"{name}.out", y, nhwc(arrays[f"{name}.out"]))
            close(meta, f"{name}.grad_x", grad_x, nhwc(arrays[f"{name}.grad_x"]))
            kernel = grads["kernel"].transpose(3, 2, 0, 1)
            close(meta, f"{name}.grad_weight", kernel, arrays[f"{name}.grad_weight"])
            if config["bias"]:
                close(
                    meta,
                    f"{name}.grad_bias",
                    grads["bias"],
                    arrays[f"{name}.grad_bias"],
                )
            want = nhwc(arrays[f"{name}.mask_out"])
            np.testing.assert_array_equal(
                np.broadcast_to(seen, want.shape), want, err_msg=name
            )


def network(converted, **options):
    chosen = dict(converted.options)
    chosen.pop("normalize", None)
    return UNet(**chosen, **options)


@pytest.mark.parity
@pytest.mark.parametrize(
    "pattern", ["pconv_unet_naoto_eval*", "pconv_unet_mmagic_eval*"]
)
def test_the_network_equals_the_references_in_inference(fixtures, pattern):
    for meta, arrays, weights in cases(fixtures, pattern):
        converted = converter.convert(weights)
        config = meta["config"]
        levels = config.get("num_layers", config.get("layer_size"))
        assert converted.options["levels"] == levels
        unet = network(converted)

        @jax.jit
        def run(params, x, known, unet=unet):
            return unet.apply(params, x, known, train=False, capture_intermediates=True)

        known = nhwc(arrays["mask"])[..., :1]
        with jax.default_matmul_precision("highest"):
            (out, mask), kept = run(converted.params, nhwc(arrays["x"]), known)
        close(meta, "out", out, nhwc(arrays["out"]))
        want = nhwc(arrays["out.mask"])
        np.testing.assert_array_equal(np.broadcast_to(mask, want.shape), want)
        inner = [n for n in arrays if f"{n}.mask" in arrays and n != "out"]
        assert inner
        for name in inner:
            ours = name.split(".")[-1].replace("_", "")
            ((y, mask),) = kept["intermediates"][ours]["__call__"]
            close(meta, name, y, nhwc(arrays[name]))
            want = nhwc(arrays[f"{name}.mask"])
            np.testing.assert_array_equal(np.broadcast_to(mask, want.shape), want)


@pytest.mark.parity
@pytest.mark.parametrize("phase", ["train", "frozen_enc"])
def test_the_network_equals_the_reference_in_training(fixtures, phase):
    for meta, arrays, weights in cases(fixtures, "pconv_unet_naoto_train*"):
        converted = converter.convert(weights)
        unet = network(converted, freeze_encoder_norm=phase == "frozen_enc")
        stats = converted.params["batch_stats"]
        x, known = nhwc(arrays["x"]), nhwc(arrays["mask"])[..., :1]
        cotangent = nhwc(arrays[f"{phase}.cotangent"])

        @functools.partial(jax.jit, static_argnums=4)
        def differentiate(params, stats, x, known, unet, cotangent=cotangent):
            def total(params):
                (out, _), changed = unet.apply(
                    {"params": params, "batch_stats": stats},
                    x,
                    known,
                    train=True,
                    mutable=["batch_stats"],
                )
                return jnp.sum(out * cotangent), (out, changed["batch_stats"])

            return jax.grad(total, has_aux=True)(params)

        with jax.default_matmul_precision("highest"):
            grads, (out, after) = differentiate(
                converted.params["params"], stats, x, known, unet
            )
        close(meta, f"{phase}.out", out, nhwc(arrays[f"{phase}.out"]))
        # The gradients have names of the reference: converted back by our sources.
        layout = converter._layout(weights)
        assert layout is not None
        sources = converter._sources(layout, converted.options["levels"])
        ours = dict(coverage.leaves({"params": grads, "batch_stats": after}))
        checked = 0
        for path, source in sources.items():
            kind = "grad" if path.startswith("params") else "after"
            name = f"{phase}.{kind}.{source.key}"
            if name in arrays:
                close(meta, name, ours[path], source.transform(arrays[name]))
                checked += 1
        wanted = [
            n for n in arrays if n.startswith((f"{phase}.after", f"{phase}.grad"))
        ]
        assert checked == len(wanted)


@pytest.mark.parity
def test_published_checkpoints_are_used_up_and_fill_everything(fixtures):
    folders = sorted(fixtures.glob("pconv_keys_full*"))
    assert folders
    for folder in folders:
        for name, entry in json.loads((folder / "keys_full.json").read_text()).items():
            # Every array has a value of its own.
            arrays = {
                key: np.broadcast_to(np.float32(i), shape)
                for i, (key, shape) in enumerate(entry["keys"])
            }
            arrays = convert.state_dict({"meta": {}, "state_dict": arrays})
            assert converter.recognizes(arrays)
            converted = converter.convert(arrays)
            params = jax.tree.leaves(converted.params["params"])
            assert sum(x.size for x in params) == entry["trainable_params"], name
            first = {float(x.flat[0]) for x in jax.tree.leaves(converted.params)}
            skipped = ("mask_conv.weight", "mask_updater", "num_batches_tracked")
            used = [k for k, _ in entry["keys"] if not k.endswith(skipped)]
            assert len(first) == len(used), name
            assert converted.image_size == 2 ** (converted.options["levels"] + 1)
            assert converted.options.get("first_bias", False) == ("mmagic" in name)


@pytest.mark.parity
def test_wrong_checkpoints_are_refused(fixtures):
    for _, _, weights in cases(fixtures, "pconv_unet_naoto_train*"):
        less = dict(weights)
        del less["dec_3.bn.bias"]
        with pytest.raises(InputError, match=r"1 missing: dec_3\.bn\.bias"):
            converter.convert(less)
        more = {**weights, "dec_3.extra": np.zeros(1)}
        with pytest.raises(InputError, match=r"1 unexpected: dec_3\.extra"):
            converter.convert(more)
        with pytest.raises(InputError, match="no weights of partial convolutions"):
            converter.convert({"conv.weight": np.zeros((1, 1))})
