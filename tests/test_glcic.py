"""GLCIC: recorded numbers, and what the method promises."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxpaint import convert, images, masks, methods, optimization, poisson, torch_file
from jaxpaint.config import Compute, Optim
from jaxpaint.convert import glcic as converter
from jaxpaint.convert.coverage import leaves
from jaxpaint.errors import InputError
from jaxpaint.layers import convolution
from jaxpaint.methods import glcic
from jaxpaint.methods._glcic_networks import Completion, Discriminator, levels

# --- Parity with the recorded numbers of the reference implementations.


def case(fixtures, name):
    """Returns config, arrays, weights, and a function that compares one of them."""
    folder = fixtures / name
    meta = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "io.npz") as loaded:
        arrays = dict(loaded)
    weights = torch_file.load(fixtures / meta.get("weights_from", name) / "weights.pth")
    tolerance = meta["tolerance"]
    atol = tolerance["atol_per_array"]

    def compare(key, result):
        np.testing.assert_allclose(
            np.asarray(result),
            arrays[key],
            atol=atol.get(key, atol.get("*")),
            rtol=tolerance["rtol"],
            err_msg=f"{name}: {key}",
        )

    return meta["config"], arrays, weights, compare


def nhwc(x):
    return jnp.asarray(np.asarray(x, np.float32).transpose(0, 2, 3, 1))


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def cases(fixtures, prefix):
    found = sorted(path.name for path in fixtures.glob(f"{prefix}*"))
    assert found, f"no case {prefix}*"
    return found


@functools.partial(jax.jit, static_argnums=0)
def inside(network, variables, *x):
    """Returns the output in evaluation mode, and that of each layer by its path."""
    out, found = network.apply(
        variables, *x, False, capture_intermediates=True, mutable=["intermediates"]
    )
    return out, found["intermediates"]


@functools.partial(jax.jit, static_argnums=0)
def trained(network, variables, *x):
    return network.apply(variables, *x, True, mutable=["batch_stats"])


def completion_of(converted):
    options = converted.options
    return Completion(
        options["width"],
        sigmoid=options.get("sigmoid", True),
        norm_last=options.get("norm_last", False),
    )


@pytest.mark.parity
def test_completion_network_parity_with_otenim(fixtures):
    for name in cases(fixtures, "glcic_completion_otenim"):
        config, arrays, weights, compare = case(fixtures, name)
        converted = converter.convert(weights)
        network, variables = completion_of(converted), converted.params
        assert converted.options["width"] == config["widths"][0]
        assert network.dilations == tuple(config["dilations"].values())
        hole = nhwc(arrays["hole_mask"])
        color = jnp.asarray(arrays["mean_pixel"])
        x = glcic.masked(nhwc(arrays["img"]), hole, color)
        np.testing.assert_array_equal(nchw(x), arrays["x"])
        with jax.default_matmul_precision("highest"):
            out, layers = inside(network, variables, x)
            after, new = trained(network, variables, x)
        compare("eval.out", nchw(out))
        compare("train.out", nchw(after))
        for key in arrays:
            kind, *names = key.split(".")
            if kind == "eval" and names[0].startswith("bn"):
                layer = converter.LAYERS[int(names[0][2:]) - 1]
                compare(key, nchw(layers[layer]["__call__"][0]))
            if kind == "train" and names[0] == "after":
                layer = converter.LAYERS[int(names[1][2:]) - 1]
                kept = names[2].removeprefix("running_")
                compare(key, new["batch_stats"][layer]["norm"][kept])


@pytest.mark.parity
def test_completion_network_parity_with_mmagic(fixtures):
    at = {"encoder": "encoder_5", "dilation_neck": "dilated_3"}
    for name in cases(fixtures, "gl_mmagic_generator"):
        config, arrays, weights, compare = case(fixtures, name)
        assert config["out_act"] == "clip"
        converted = converter.convert(weights)
        network = completion_of(converted)
        with jax.default_matmul_precision("highest"):
            out, layers = inside(network, converted.params, nhwc(arrays["x"]))
        compare("out", nchw(out))
        for key in set(arrays) - {"x", "out", "hole_mask"}:
            number = key.removeprefix("decoder.dec")
            layer = at.get(key) or f"decoder_{int(number) - 1}"
            compare(key, nchw(layers[layer]["__call__"][0]))


@pytest.mark.parity
@pytest.mark.parametrize("prefix", ["glcic_disc_otenim", "gl_mmagic_disc"])
def test_discriminator_parity(fixtures, prefix):
    for name in cases(fixtures, prefix):
        config, arrays, weights, compare = case(fixtures, name)
        variables = converter.discriminator(weights)
        branches = {
            kind: [key for key in variables["params"][kind] if "encoder" in key]
            for kind in ("global", "local")
        }
        network = Discriminator(
            len(branches["global"]),
            len(branches["local"]),
            variables["params"]["local"]["encoder_0"]["conv"]["kernel"].shape[-1],
            config["feat"],
            norm_last="otenim" in name,
        )
        image = nhwc(arrays["global_img"])
        start = jnp.broadcast_to(jnp.asarray(arrays["crop_yx"]), (len(image), 2))
        window = glcic.cut(image, start, int(arrays["crop_hw"][0]))
        with jax.default_matmul_precision("highest"):
            logits, layers = inside(network, variables, image, window)
            features = {
                kind: layers[kind]["__call__"][0] for kind in ("global", "local")
            }
            if "train.logit" in arrays:
                after, _ = trained(network, variables, image, window)
                compare("train.logit", after[:, None])
        # mmagic's names have nothing before them.
        evaluated = "eval." if "eval.logit" in arrays else ""
        compare(f"{evaluated}logit", logits[:, None])
        for kind, value in features.items():
            compare(f"{evaluated}{kind}_feat", value)
        if evaluated:
            compare("eval.prob", nn.sigmoid(logits)[:, None])


@pytest.mark.parity
def test_losses_parity(fixtures):
    for name in cases(fixtures, "glcic_losses"):
        config, arrays, _, compare = case(fixtures, name)
        alpha = config["alpha"]
        hole = nhwc(arrays["hole_mask"])
        error = glcic.squared_error(nhwc(arrays["output"]), nhwc(arrays["x"]), hole)
        compare("mse", error[None])
        on_drawn, on_true = (
            jnp.asarray(arrays[f"logit_{kind}"]) for kind in ("fake", "real")
        )
        total = glcic.cross_entropy(on_true, 1.0) + glcic.cross_entropy(on_drawn, 0.0)
        compare("paper.loss_d_sum", total[None])
        compare("phase2.loss_d", total[None] / 2)
        compare("phase3.loss_d", alpha * total[None] / 2)
        both = error + alpha * glcic.cross_entropy(on_drawn, 1.0)
        compare("paper.loss_c", both[None])
        compare("phase3.loss_c", both[None] / 2)


@pytest.mark.parity
def test_adadelta_parity(fixtures):
    for name in cases(fixtures, "glcic_losses"):
        _, arrays, _, compare = case(fixtures, name)
        for key, options in {
            "adadelta.traj": {},
            "adadelta_rho095.traj": {"rho": 0.95},
        }.items():
            optimizer = optimization.adadelta(Optim(lr=1.0), **options)
            params = jnp.asarray(arrays["adadelta.p0"])
            state, trajectory = optimizer.init(params), []
            for grad in arrays["adadelta.grads"]:
                change, state = optimizer.update(jnp.asarray(grad), state, params)
                params = optax.apply_updates(params, change)
                trajectory.append(params)
            compare(key, jnp.stack(trajectory))


@pytest.mark.parity
def test_blending_parity(fixtures):
    for name in cases(fixtures, "glcic_postproc"):
        _, arrays, _, _ = case(fixtures, name)
        image, fill = (
            jnp.asarray(arrays[key], jnp.float32)[None] / 127.5 - 1
            for key in ("image", "completion")
        )
        hole = jnp.asarray(arrays["hole_mask"], jnp.float32)[None, :, :, None]
        result = (poisson.blend(image, fill, hole)[0] + 1) * 127.5
        # The recorded solution is clipped, to 0 to 255.
        wanted = arrays["dirichlet"]
        np.testing.assert_allclose(np.clip(result, 0, 255), wanted, atol=0.05)


@pytest.mark.parity
def test_every_published_key_has_its_place(fixtures):
    for name in cases(fixtures, "glcic_keys_full"):
        published = json.loads((fixtures / name / "keys_full.json").read_text())
        assert len(published) == 4
        for kind, about in published.items():
            arrays = {
                key: np.broadcast_to(np.float32(0), shape)
                for key, shape in about["keys"]
            }
            assert converter.recognizes(arrays), kind
            found = {}
            if "Discriminator" not in kind:
                converted = converter.convert(arrays)
                found["generator"] = converted.params
                assert methods.make("glcic", **converted.options)
            if "Completion" not in kind:
                found["disc"] = converter.discriminator(arrays)
            for part, variables in found.items():
                count = sum(x.size for _, x in leaves(variables["params"]))
                whole = len(found) == 1
                key = "trainable_params" + ("" if whole else f"_{part}")
                assert count == about[key], kind


@pytest.mark.parity
def test_converted_weights_fill_as_the_recorded_network(fixtures):
    for name in cases(fixtures, "glcic_completion_otenim"):
        _, arrays, weights, _ = case(fixtures, name)
        converted = converter.convert(weights)
        mean = tuple((2 * arrays["mean_pixel"] - 1).tolist())
        options = converted.options | {"mean": mean, "blend": False}
        inpaint = jax.jit(methods.make("glcic", **options).inpaint)
        image, hole = 2 * nhwc(arrays["img"]) - 1, nhwc(arrays["hole_mask"])
        with jax.default_matmul_precision("highest"):
            result = inpaint(converted.params, image, hole, jax.random.key(0))
        wanted = images.compose(nhwc(arrays["img"]), nhwc(arrays["eval.out"]), hole)
        np.testing.assert_allclose((result + 1) / 2, wanted, atol=1e-4)


# --- Training.

SIZE, LOCAL = 16, 8
FIRST, SECOND = 2, 2
KEY = jax.random.key(5)
OPTIONS = {
    "image_size": SIZE,
    "local_size": LOCAL,
    "width": 4,
    "dilations": (2,),
    "discriminator_width": 4,
    "discriminator_features": 8,
    "completion_steps": FIRST,
    "discriminator_steps": SECOND,
    "alpha": 0.1,
    "mean": (0.2, 0.0, -0.3),
    "optim": Optim(lr=1.0),
}


def make(**options):
    return methods.make("glcic", **{**OPTIONS, **options})


def batch(count, size=SIZE):
    """Smooth pictures, each with a box as hole."""
    keys = jax.random.split(jax.random.key(count), 2)
    coarse = jax.random.uniform(keys[0], (count, 4, 4, 3), minval=-1, maxval=1)
    image = jax.image.resize(coarse, (count, size, size, 3), "linear")
    draw = functools.partial(masks.parse("glcic_box"), (size, size))
    return {
        "image": image,
        "mask": jax.vmap(draw)(jax.random.split(keys[1], count)),
    }


@pytest.fixture(autouse=True)
def native_convolutions(monkeypatch):
    """Small pictures are convolved as large ones are, which compiles sooner."""
    monkeypatch.setattr(convolution, "_PATCHES", 0)


@functools.cache
def compiled():
    """Returns method, first state, and training step."""
    method = make()
    state = jax.jit(method.init)(KEY, batch(4))
    return method, state, jax.jit(method.train_step)


def at(state, step):
    return state._replace(step=jnp.int32(step))


def same(one, other):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def test_each_phase_trains_its_networks_and_leaves_the_other_as_it_is():
    _, state, step = compiled()
    trained = []
    for number in range(FIRST + SECOND + 2):
        old = state
        state, metrics = step(state, batch(4), jax.random.fold_in(KEY, number))
        assert state.step == number + 1
        changes = []
        for name, loss in [("completion", "gen"), ("discriminator", "disc")]:
            parts = zip(getattr(old, name), getattr(state, name), strict=True)
            changed = {not same(a, b) for a, b in parts}
            assert len(changed) == 1, "parameters, statistics and optimizer together"
            changes.append(changed.pop())
            for metric in (f"loss/{loss}", f"grad_norm/{loss}"):
                assert (metrics[metric] > 0) == changes[-1], metric
        assert (metrics["loss/adv"] > 0) == all(changes)
        trained.append(tuple(changes))
    phases = [(True, False)] * FIRST + [(False, True)] * SECOND + [(True, True)] * 2
    assert trained == phases


def networks():
    local, whole = levels(LOCAL), levels(SIZE)
    return Completion(4, (2,)), Discriminator(whole, local, 4, 8)


@functools.partial(jax.jit, static_argnames=("raw", "train"))
def by_hand(artist, critic, after, data, key, raw, train):
    """Returns the losses of a step: artist and critic before it, critic after it."""
    network, judge = networks()
    color = (jnp.asarray(OPTIONS["mean"]) + 1) / 2
    true, hole = (data["image"] + 1) / 2, data["mask"]
    x = jnp.concatenate([jnp.where(hole > 0, color[None, None, None], true), hole], -1)
    if train:
        drawn, _ = network.apply(artist, x, True, mutable=["batch_stats"])
    else:
        drawn = network.apply(artist, x, False)
    error = jnp.sum(hole * (drawn - true) ** 2) / true.size

    def judged(variables, image, start):
        window = jnp.stack(
            [
                jax.lax.dynamic_slice(one, (*corner, 0), (LOCAL, LOCAL, 3))
                for one, corner in zip(image, start, strict=True)
            ]
        )
        logits, _ = judge.apply(variables, image, window, True, mutable=["batch_stats"])
        return jax.nn.sigmoid(logits)

    seen = drawn if raw else jnp.where(hole > 0, drawn, true)
    around = glcic.around_hole(hole, LOCAL)
    anywhere = jax.random.randint(key, (len(true), 2), 0, SIZE - LOCAL + 1)
    disc = -jnp.mean(jnp.log(judged(critic, true, anywhere)))
    disc -= jnp.mean(jnp.log(1 - judged(critic, seen, around)))
    adv = -jnp.mean(jnp.log(judged(after, seen, around)))
    return {
        "loss/rec": error,
        "loss/adv": adv,
        "loss/gen": error + OPTIONS["alpha"] * adv,
        "loss/disc": disc,
    }


@pytest.mark.parametrize("step", [0, FIRST, FIRST + SECOND])
def test_losses_are_those_of_the_equations(step):
    _, state, advance = compiled()
    data = batch(4)
    state = at(state, step)
    after, metrics = advance(state, data, KEY)
    wanted = by_hand(
        *(state.completion.variables(), state.discriminator.variables()),
        *(after.discriminator.variables(), data, KEY),
        raw=False,
        train=step != FIRST,
    )
    if step < FIRST:
        wanted = {"loss/gen": wanted["loss/rec"], "loss/rec": wanted["loss/rec"]}
    elif step < FIRST + SECOND:
        wanted = {"loss/disc": wanted["loss/disc"]}
    for name, value in wanted.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)


def test_options_of_the_joint_phase_change_what_they_name():
    # Raw drawings for the judges, parts of a batch one by one, activations computed
    # again. Both parts are the same pictures.
    half = batch(2)
    data = jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), half)
    method = make(
        judge_raw=True,
        optim=Optim(lr=1.0, microbatches=2),
        compute=Compute(remat=True),
    )
    _, state, _ = compiled()
    state = at(state, FIRST + SECOND)
    step = jax.jit(lambda s, *rest: method.train_step(at(s, FIRST + SECOND), *rest))
    after, metrics = step(state, data, KEY)
    parts = [
        by_hand(
            *(state.completion.variables(), state.discriminator.variables()),
            *(after.discriminator.variables(), half, key),
            raw=True,
            train=True,
        )
        for key in jax.random.split(KEY, 2)
    ]
    for name in parts[0]:
        wanted = np.mean([part[name] for part in parts])
        np.testing.assert_allclose(metrics[name], wanted, rtol=1e-4, err_msg=name)


def test_training_lowers_the_error_and_inference_sees_it():
    method = make(blend=False, optim=Optim(lr=1.0, ema_decay=0.9))
    _, state, _ = compiled()
    data = batch(4)
    state = state._replace(average=state.completion.variables())
    # The compiler leaves the other phases out.
    step = jax.jit(lambda s, *rest: method.train_step(at(s, 0), *rest))
    inpaint = jax.jit(method.inpaint)

    def error(params):
        result = inpaint(params, data["image"], data["mask"], KEY)
        return float(jnp.sum(jnp.abs(result - data["image"])))

    before, losses = error(method.eval_params(state)), []
    for _ in range(60):
        state, metrics = step(state, data, KEY)
        losses.append(float(metrics["loss/rec"]))
    assert losses[-1] < 0.3 * losses[0]
    assert error(method.eval_params(state)) < 0.7 * before
    loaded = method.load_params(compiled()[1], method.eval_params(state))
    assert same(method.eval_params(loaded), method.eval_params(state))


# --- Windows.


def test_windows_contain_the_hole_in_their_middle():
    data = batch(64, 64)
    start = np.asarray(glcic.around_hole(data["mask"], 32))
    assert start.min() >= 0
    assert start.max() <= 32
    inside = glcic.cut(data["mask"], jnp.asarray(start), 32)
    np.testing.assert_array_equal(
        np.sum(inside, axis=(1, 2, 3)), np.sum(data["mask"], axis=(1, 2, 3))
    )
    for corner, mask in zip(start, np.asarray(data["mask"]), strict=True):
        for axis in (0, 1):
            found = np.flatnonzero(mask.any(axis=(1 - axis, 2)))
            middle = (found[0] + found[-1] + 1) / 2
            off = abs(corner[axis] + 16 - middle)
            assert off <= 0.5 or corner[axis] in (0, 32)


def test_windows_of_true_pictures_lie_anywhere():
    start = np.asarray(glcic.random_windows(KEY, 500, 16, 12))
    assert start.shape == (500, 2)
    assert set(start[:, 0]) == set(start[:, 1]) == set(range(5))
    image = batch(3)["image"]
    corners = jnp.array([[0, 1], [4, 2], [3, 3]])
    for one, part, (top, left) in zip(
        image, glcic.cut(image, corners, 12), np.asarray(corners), strict=True
    ):
        np.testing.assert_array_equal(part, one[top : top + 12, left : left + 12])


def test_judges_have_as_many_layers_as_in_the_paper():
    assert [levels(side) for side in (256, 160, 128, 96, 64, 32)] == [6, 5, 5, 5, 4, 3]


# --- Blending.


@pytest.mark.parametrize("where", [(5, 17, 4, 20), (0, 12, 10, 32)])
def test_blending_takes_away_what_is_harmonic(where):
    # x^2 - y^2 and constants solve Laplace's equation: blending undoes them; where the
    # hole touches the border, only what has no normal derivative there.
    top, bottom, left, right = where
    y, x = np.mgrid[:24, :32].astype(np.float32)
    image = jnp.asarray(np.sin(x / 3) * np.cos(y / 5))[None, :, :, None]
    error = 0.3 if top == 0 else 1e-3 * (x**2 - y**2) + 0.1
    fill = image + jnp.broadcast_to(jnp.asarray(error), (24, 32))[None, :, :, None]
    mask = jnp.zeros((1, 24, 32, 1)).at[:, top:bottom, left:right].set(1)
    result = poisson.blend(jnp.where(mask > 0, jnp.nan, image), fill, mask)
    np.testing.assert_allclose(result, image, atol=1e-4)
    known = np.asarray(mask) == 0
    np.testing.assert_array_equal(np.asarray(result)[known], np.asarray(image)[known])


def test_blending_keeps_the_gradients_of_the_fill():
    rng = np.random.default_rng(0)
    image, fill = jnp.asarray(rng.uniform(-1, 1, (2, 1, 20, 20, 1)), jnp.float32)
    mask = jnp.zeros((1, 20, 20, 1)).at[:, 4:15, 5:16].set(1)
    result = np.asarray(poisson.blend(image, fill, mask))[0, :, :, 0]
    # At each hole pixel, by the known or blended neighbours and the fill's differences.
    drawn = np.asarray(fill)[0, :, :, 0]
    inner = np.s_[4:15, 5:16]
    residual = sum(
        (np.roll(x, shift, axis) - x) * sign
        for x, sign in ((result, 1), (drawn, -1))
        for shift in (1, -1)
        for axis in (0, 1)
    )[inner]
    np.testing.assert_allclose(residual, 0, atol=1e-3)


# --- Inference.


@pytest.fixture
def lively():
    """Weights after some steps, with statistics."""
    method, state, step = compiled()
    for _ in range(20):
        state, _ = step(at(state, 0), batch(4), KEY)
    return method.eval_params(state)


@pytest.mark.parametrize("size", [(13, 14), (1, 2)])
def test_any_size_is_mirrored_to_a_multiple_of_four(lively, size):
    inpaint = jax.jit(make(blend=False).inpaint)
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.uniform(-1, 1, (1, *size, 3)), jnp.float32)
    mask = jnp.zeros((1, *size, 1)).at[:, -1, 1:].set(1)
    result = inpaint(lively, image, mask, KEY)
    pad = [(0, 0), (0, -size[0] % 4), (0, -size[1] % 4), (0, 0)]
    whole = inpaint(lively, *(np.pad(x, pad, "symmetric") for x in (image, mask)), KEY)
    np.testing.assert_allclose(
        result, np.asarray(whole)[:, : size[0], : size[1]], atol=1e-5
    )
    assert (np.asarray(result) != np.asarray(image)).any()


def test_gray_pictures_are_filled_as_their_color_copies(lively):
    inpaint = jax.jit(make(blend=False).inpaint)
    data = batch(1)
    gray = data["image"][..., :1]
    color = inpaint(lively, jnp.repeat(gray, 3, axis=-1), data["mask"], KEY)
    result = inpaint(lively, gray, data["mask"], KEY)
    assert result.shape == gray.shape
    np.testing.assert_allclose(result, color.mean(-1, keepdims=True), atol=1e-5)


def test_what_is_drawn_is_blended_on_demand(lively):
    data = batch(1)
    plain, result = (
        jax.jit(make(blend=blend).inpaint)(lively, data["image"], data["mask"], KEY)
        for blend in (False, True)
    )
    assert np.abs(np.asarray(result - plain)).max() > 1e-2
    # The network's answer outside of the hole, to which the picture is compared.
    network, _ = networks()
    color = (jnp.asarray(OPTIONS["mean"]) + 1) / 2
    x = glcic.masked((data["image"] + 1) / 2, data["mask"], color)
    drawn = 2 * jax.jit(network.apply, static_argnums=2)(lively, x, False) - 1
    wanted = jnp.clip(poisson.blend(data["image"], drawn, data["mask"]), -1, 1)
    np.testing.assert_allclose(result, wanted, atol=1e-4)


# --- Input that does not fit.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 18}, "image_size is 18"),
        ({"image_size": 8}, "image_size is 8"),
        ({"local_size": 20}, "local_size is 20"),
        ({"completion_steps": -1}, "completion_steps"),
        ({"alpha": -1.0}, "alpha is -1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        make(**options)


def test_pictures_of_another_size_are_refused_in_training():
    method = make()
    state = jax.eval_shape(method.init, KEY, batch(2))
    larger = {name: jnp.zeros((2, 32, 32, x.shape[-1])) for name, x in batch(2).items()}
    for run in (
        lambda: method.init(KEY, larger),
        lambda: jax.eval_shape(method.train_step, state, larger, KEY),
    ):
        with pytest.raises(InputError, match="want"):
            run()


def test_networks_of_others_are_told_apart():
    file = np.zeros((2, 3, 5, 5), np.float32)
    judges = {f"model_{kind}.conv1.weight": file for kind in ("gd", "ld")}
    judges["linear1.weight"] = np.zeros((1, 4), np.float32)
    assert converter.recognizes(judges)
    with pytest.raises(InputError, match="discriminator"):
        converter.convert(judges)
    with pytest.raises(InputError, match="missing: model_gd"):
        converter.discriminator(judges)
    partial_conv = {"encoder.enc1.conv.weight": file, "decoder.dec3.conv.weight": file}
    assert not converter.recognizes(partial_conv)
    for read in (converter.convert, converter.discriminator):
        with pytest.raises(InputError, match="otenim"):
            read(partial_conv)
    assert "glcic" in convert.names()
