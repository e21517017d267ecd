"""DeepFill v2: recorded numbers of its parts, and what they promise."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxpaint
from jaxpaint import images, methods, regions, torch_file
from jaxpaint.config import Compute, Optim
from jaxpaint.edges import canny
from jaxpaint.errors import InputError
from jaxpaint.layers.convolution import Conv
from jaxpaint.layers.gated_conv import GatedConv
from jaxpaint.layers.spectral_norm import COLLECTION, spectral_norm
from jaxpaint.methods._deepfill_v2_networks import Generator
from jaxpaint.methods._sn_patch_gan import Discriminator, absolute, hinge


def case(fixtures, name):
    """Returns the description, arrays and weights of a case."""
    meta = json.loads((fixtures / name / "meta.json").read_text())
    with np.load(fixtures / name / "io.npz") as loaded:
        arrays = dict(loaded)
    return meta, arrays, torch_file.load(fixtures / name / "weights.pth")


def cases(fixtures, prefix):
    found = sorted(path.name for path in fixtures.glob(f"{prefix}*"))
    assert found, f"no case {prefix}*"
    return found


def nhwc(x):
    return jnp.asarray(np.asarray(x).transpose(0, 2, 3, 1))


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def layer(weights, key):
    """Returns kernel and bias of a layer of the published port."""
    kernel = np.asarray(weights[f"{key}.weight"]).transpose(2, 3, 1, 0)
    return {"kernel": kernel, "bias": np.asarray(weights[f"{key}.bias"])}


@pytest.mark.parity
def test_gated_convolutions_of_the_official_code(fixtures):
    for name in cases(fixtures, "deepfill_gated_conv"):
        meta, arrays, weights = case(fixtures, name)
        for key, about in meta["config"]["subcases"].items():
            size = about["kernel"]
            module = Conv(about["cnum"], size, about["stride"], size // 2)
            if about["gated"]:
                module = GatedConv(
                    about["cnum"] // 2,
                    size,
                    about["stride"],
                    about["dilation"],
                    about["upsample2"],
                    getattr(nn, about["activation"]),
                )
            path = f"{key}.conv.conv" if about["upsample2"] else f"{key}.conv"
            params = {"params": layer(weights, path)}
            for i in range(len(about["inputs"])):
                y = module.apply(params, nhwc(arrays[f"{key}__{i}__x"]))
                np.testing.assert_allclose(
                    nchw(y),
                    arrays[f"{key}__{i}__y"],
                    rtol=0,
                    atol=meta["tolerance"]["y"]["atol"],
                    err_msg=f"{name}: {key} {i}",
                )


@pytest.mark.parity
def test_discriminator_and_its_vectors_over_calls(fixtures):
    for name in cases(fixtures, "deepfill_v2_discriminator"):
        meta, arrays, weights = case(fixtures, name)
        numbers = range(1, 7)
        params = {f"conv{i}": layer(weights, f"conv{i}.conv_sn") for i in numbers}
        vectors = {
            f"conv{i}": {"u": np.asarray(weights[f"conv{i}.conv_sn.weight_u"]).T}
            for i in numbers
        }
        network = Discriminator(params["conv1"]["kernel"].shape[-1])
        x = nhwc(arrays["x"])

        @jax.jit
        def call(vectors, params=params, network=network, x=x):
            variables = {"params": params, COLLECTION: vectors}
            out, new = network.apply(variables, x, mutable=[COLLECTION])
            return out, new[COLLECTION]

        for count in range(1, 34):
            before = vectors
            out, vectors = call(vectors)
            for i in numbers:
                if (key := f"u_pass{count}__conv{i}") in arrays:
                    u = np.asarray(vectors[f"conv{i}"]["u"]).T
                    atol = meta["tolerance"]["u"]["atol"]
                    np.testing.assert_allclose(u, arrays[key], rtol=0, atol=atol)
            if (key := f"out_pass{count}") in arrays:
                atol = meta["tolerance"]["out"]["atol"]
                np.testing.assert_allclose(nchw(out), arrays[key], rtol=0, atol=atol)
        # Evaluation gives what the last call gave, and changes nothing.
        frozen = network.apply({"params": params, COLLECTION: before}, x)
        np.testing.assert_allclose(frozen, out, rtol=0, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("prefix", ["deepfill_v2_generator", "deepfill_v2_guided"])
def test_generator_of_the_official_code(fixtures, prefix):
    for name in cases(fixtures, prefix):
        meta, arrays, weights = case(fixtures, name)
        params = {}
        for key in weights:
            if key.endswith(".weight"):
                path = key.removesuffix(".weight")
                params[path.split(".")[0]] = layer(weights, path)
        network = Generator(meta["config"]["cnum"])
        sketch = [nhwc(arrays["edge"])] if meta["config"]["guided"] else []
        mask = nhwc(arrays["mask"])
        image = nhwc(arrays["image"])
        mask = jnp.broadcast_to(mask, (*image.shape[:3], 1))
        coarse, refined = jax.jit(network.apply)(
            {"params": params}, image, mask, *sketch
        )
        for key, picture in {"coarse": coarse, "refined": refined}.items():
            np.testing.assert_allclose(
                nchw(picture),
                arrays[key],
                rtol=0,
                atol=meta["tolerance"][key]["atol"],
                err_msg=f"{name}: {key}",
            )


@pytest.mark.parity
def test_losses_and_gradients_of_the_official_code(fixtures):
    for name in cases(fixtures, "deepfill_v2_losses"):
        meta, arrays, weights = case(fixtures, name)
        params, vectors = {"G": {}, "D": {}}, {}
        for key in weights:
            network, number = key.split(".")[:2]
            if key.endswith(".weight"):
                params[network][number] = layer(weights, key.removesuffix(".weight"))
            if key.endswith(".weight_u"):
                vectors[number] = {"u": np.asarray(weights[key]).T}
        truth = nhwc(arrays["raw"]) / 127.5 - 1
        mask = jnp.broadcast_to(nhwc(arrays["mask"]), (*truth.shape[:3], 1))
        generator = Generator(meta["config"]["cnum"])
        discriminator = Discriminator(meta["config"]["dcnum"])

        def losses(params, truth=truth, mask=mask, networks=None, vectors=vectors):
            generator, discriminator = networks
            both = generator.apply({"params": params["G"]}, truth, mask)
            pair = jnp.concatenate([truth, images.compose(truth, both[1], mask)])
            judged = jnp.concatenate([pair, jnp.tile(mask, (2, 1, 1, 1))], axis=-1)
            variables = {"params": params["D"], COLLECTION: vectors}
            scores = discriminator.apply(variables, judged)
            real, fake = jnp.split(scores, 2)
            ae = absolute(*both, truth)
            return {"g": ae - jnp.mean(fake), "d": hinge(real, fake), "ae": ae}

        run = functools.partial(losses, networks=(generator, discriminator))
        got, grads = jax.jit(lambda p, run=run: (run(p), jax.jacrev(run)(p)))(params)
        for key, value in got.items():
            want = arrays[f"loss__{key}_loss"]
            np.testing.assert_allclose(value, want, **meta["tolerance"]["loss"])
        for key in arrays:
            if key.startswith("grad__"):
                network, number = key.removeprefix("grad__").split(".")[:2]
                grad = grads[network.lower()][network][number]["kernel"]
                atol = meta["tolerance"]["grad"]["rtol"] * np.abs(arrays[key]).max()
                got_grad = np.asarray(grad).transpose(3, 2, 0, 1)
                np.testing.assert_allclose(got_grad, arrays[key], rtol=0, atol=atol)


def test_spectral_norm_finds_the_largest_singular_value_and_its_gradient():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 8))
    u = jnp.ones((1, 8))
    for _ in range(100):
        normal, u = spectral_norm(kernel, u)
    values = np.linalg.svd(np.asarray(normal).reshape(-1, 8), compute_uv=False)
    np.testing.assert_allclose(values[0], 1, rtol=1e-4)
    # A kernel's scale is without effect on what is left of it.
    along = jax.grad(
        lambda scale: jnp.sum(jnp.sin(spectral_norm(scale * kernel, u)[0]))
    )(1.0)
    np.testing.assert_allclose(along, 0, atol=1e-3)


def test_hinge_is_zero_beyond_the_margin():
    assert hinge(jnp.full((2, 3), 1.5), jnp.full((2, 3), -1.5)) == 0
    np.testing.assert_allclose(hinge(jnp.zeros(3), jnp.ones(3)), 1.5)


def test_networks_have_as_many_parameters_as_the_released_ones():
    def count(module, *shapes):
        inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        tree = jax.eval_shape(module.init, jax.random.key(0), *inputs)
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    image, one = (1, 64, 64, 3), (1, 64, 64, 1)
    generator = Generator()
    assert count(generator, image, one) == 4_052_478
    assert count(generator, image, one, one) == 4_053_678
    assert count(Discriminator(), (1, 64, 64, 4)) == 5_948_032


# --- The method: training.

KEY = jax.random.key(0)
SIZE = 16


def make(**options):
    small = {"image_size": SIZE, "width": 4, "discriminator_width": 4}
    return methods.make("deepfill_v2", **{**small, **options})


def batch(size, side=SIZE, seed=0):
    """Smooth pictures with a box each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / 5.0
    phase = rng.uniform(0, 6, (size, 1, 1, 3))
    image = 0.7 * np.sin(x[None, ..., None] + phase) * np.cos(y[None, ..., None])
    mask = np.zeros((size, side, side, 1), np.float32)
    for row, (top, left) in zip(
        mask, rng.integers(1, side // 2, (size, 2)), strict=True
    ):
        row[top : top + side // 2 - 1, left : left + side // 2 - 1] = 1
    return {"image": jnp.asarray(image, jnp.float32), "mask": jnp.asarray(mask)}


@functools.cache
def compiled(**options):
    """Returns the method, its first state, its step and its inference."""
    method = make(**options)
    state = jax.jit(method.init)(KEY, batch(2))
    return method, state, jax.jit(method.train_step), jax.jit(method.inpaint)


def close(got, want, atol=1e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)


@pytest.mark.parity
def test_a_training_step_has_the_recorded_losses(fixtures):
    for name in cases(fixtures, "deepfill_v2_losses"):
        meta, arrays, weights = case(fixtures, name)
        params, vectors = {"G": {}, "D": {}}, {}
        for key in weights:
            network, number = key.split(".")[:2]
            if key.endswith(".weight"):
                params[network][number] = layer(weights, key.removesuffix(".weight"))
            if key.endswith(".weight_u"):
                vectors[number] = {"u": np.asarray(weights[key]).T}
        truth = nhwc(arrays["raw"]) / 127.5 - 1
        mask = jnp.broadcast_to(nhwc(arrays["mask"]), (*truth.shape[:3], 1))
        method = make(
            image_size=truth.shape[1],
            width=meta["config"]["cnum"],
            discriminator_width=meta["config"]["dcnum"],
            # The discriminator that judges the generator is then the recorded one.
            optim=Optim(lr=1e-12),
        )
        data = {"image": truth, "mask": mask}
        state = jax.jit(method.init)(KEY, data)
        state = state._replace(
            generator=state.generator._replace(params=params["G"]),
            discriminator=state.discriminator._replace(
                params=params["D"], stats=vectors
            ),
        )
        _, metrics = jax.jit(method.train_step)(state, data, KEY)
        ours = {"l1": "ae", "disc": "d"}
        for key, theirs in ours.items():
            want = arrays[f"loss__{theirs}_loss"]
            np.testing.assert_allclose(
                metrics[f"loss/{key}"], want, **meta["tolerance"]["loss"]
            )


def test_the_vectors_of_the_norms_move_on_in_both_halves_of_a_step():
    _, state, step, _ = compiled()
    after, _ = step(state, batch(2), KEY)
    for name, layer in state.discriminator.params.items():
        u = state.discriminator.stats[name]["u"]
        _, u = spectral_norm(layer["kernel"], u)
        _, u = spectral_norm(after.discriminator.params[name]["kernel"], u)
        close(after.discriminator.stats[name]["u"], u, atol=1e-5)


def test_without_an_adversary_there_is_no_discriminator():
    _, state, step, _ = compiled(adversarial_weight=0.0)
    _, judged, other, _ = compiled(adversarial_weight=1e-12)
    assert not jax.tree.leaves(state.discriminator.params)
    step, other = (
        f.lower(s, batch(2), KEY).compile() for f, s in ((step, state), (other, judged))
    )
    after, metrics = step(state, batch(2), KEY)
    wanted, more = other(judged, batch(2), KEY)
    assert set(metrics) == {"loss/gen", "loss/l1", "grad_norm/gen"}
    close({name: metrics[name] for name in metrics}, {n: more[n] for n in metrics})
    close(after.generator.opt_state[0].mu, wanted.generator.opt_state[0].mu)
    assert step.cost_analysis()["flops"] < other.cost_analysis()["flops"]


def test_known_pixels_count_by_their_weight():
    _, state, step, _ = compiled(adversarial_weight=0.0)
    data = batch(2)
    draw = jax.jit(Generator(4).apply)
    both = draw(state.generator.variables(), data["image"], data["mask"])
    error = sum(np.abs(data["image"] - x) for x in both)
    for weight in (1.0, 0.25):
        method = make(adversarial_weight=0.0, known_weight=weight)
        share = np.where(data["mask"] > 0, 1, weight)
        want = np.mean(share * error)
        run = step if weight == 1.0 else jax.jit(method.train_step)
        np.testing.assert_allclose(run(state, data, KEY)[1]["loss/l1"], want, rtol=1e-4)


def test_training_lowers_the_error_on_a_few_pictures():
    optim = Optim(lr=1e-2, b1=0.5, ema_decay=0.8)
    method, state, step, inpaint = compiled(adversarial_weight=0.01, optim=optim)
    data = batch(2)
    first = method.eval_params(state)
    losses = []
    for _ in range(150):
        state, metrics = step(state, data, KEY)
        losses.append(float(metrics["loss/l1"]))
    assert losses[-1] < 0.6 * losses[0]
    error = [
        float(jnp.sum(jnp.abs(inpaint(params, *data.values(), KEY) - data["image"])))
        for params in (first, method.eval_params(state))
    ]
    assert error[1] < 0.7 * error[0]


def test_microbatches_and_remat_are_the_same_step():
    _, state, step, _ = compiled(adversarial_weight=0.0)
    cheaper = make(
        adversarial_weight=0.0,
        optim=Optim(microbatches=2),
        compute=Compute(remat=True),
    )
    after, metrics = jax.jit(cheaper.train_step)(state, batch(2), KEY)
    wanted, more = step(state, batch(2), KEY)
    close(metrics, more)
    close(after.generator.opt_state[0].mu, wanted.generator.opt_state[0].mu)


def test_blue_first_is_red_first_with_turned_channels():
    _, state, step, inpaint = compiled()
    _, _, other, turned = compiled(channel_order="bgr")
    data = batch(2)
    flipped = data | {"image": data["image"][..., ::-1]}
    close(step(state, flipped, KEY)[1], other(state, data, KEY)[1])
    params = state.generator.variables()
    close(
        turned(params, *data.values(), KEY),
        inpaint(params, *flipped.values(), KEY)[..., ::-1],
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 60}, "image_size is 60; want a multiple of 8"),
        ({"width": 6}, "width is 6; want a multiple of 4"),
        ({"discriminator_width": 0}, "discriminator_width is 0"),
        ({"channel_order": "gbr"}, "channel_order is 'gbr'"),
        ({"known_weight": -1.0}, "must not be negative"),
        ({"init_gain": 0.0}, "init_gain is 0.0; want more than 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        make(**options)


def test_a_gain_of_3_keeps_the_amplitude_through_the_layers():
    image = jax.random.uniform(KEY, (1, 32, 32, 3), minval=-1, maxval=1)
    mask = jnp.zeros((1, 32, 32, 1)).at[:, 8:20, 8:20].set(1)

    @jax.jit
    def amplitude(gain):
        generator = Generator(16, gain)
        (coarse, refined), _ = generator.init_with_output(KEY, image, mask)
        return jnp.minimum(jnp.abs(coarse).mean(), jnp.abs(refined).mean())

    assert amplitude(1.0) < 1e-5
    assert amplitude(3.0) > 0.02


# --- The method: inference.


@pytest.mark.parity
def test_inference_of_the_official_script(fixtures):
    for name in cases(fixtures, "deepfill_v2_inference"):
        meta = json.loads((fixtures / name / "meta.json").read_text())
        with np.load(fixtures / name / "io.npz") as loaded:
            arrays = dict(loaded)
        weights = torch_file.load(fixtures / name / meta["weights"])
        params = {}
        for key in weights:
            if key.endswith(".weight"):
                path = key.removesuffix(".weight")
                params[path.split(".")[0]] = layer(weights, path)
        order = meta["config"]["network_channel_order"].lower()
        method = make(width=meta["config"]["cnum"], channel_order=order)
        # The script cuts rows and columns off where we mirror.
        step = meta["config"]["crop_to_multiple"]
        rows, columns = (side // step * step for side in arrays["mask_u8"].shape)
        picture = arrays["image_rgb_u8"][:rows, :columns]
        mask = arrays["mask_u8"][:rows, :columns] > 127.5
        result = jax.jit(method.inpaint)(
            {"params": params},
            images.to_float(picture)[None],
            mask[None, ..., None].astype(np.float32),
            KEY,
        )
        np.testing.assert_allclose(
            nchw(result[..., ::-1] if order == "bgr" else result),
            arrays["output_float_bgr"],
            rtol=0,
            atol=meta["tolerance"]["output_float_bgr"]["atol"],
        )
        levels = np.clip((np.asarray(result[0]) + 1) * 127.5, 0, 255).astype(np.uint8)
        apart = np.abs(levels.astype(int) - arrays["output_rgb_u8"])
        assert apart.max() <= 1
        assert np.mean(apart > 0) <= 0.01


def test_odd_sizes_are_mirrored_and_the_mirror_holds_nothing_of_the_hole():
    _, state, _, inpaint = compiled()
    params = state.generator.variables()
    data = batch(1, 24)
    # The hole reaches the lower right corner, and so the mirror.
    image, mask = data["image"][:, :21, :19], jnp.zeros((1, 21, 19, 1))
    mask = mask.at[:, 15:, 12:].set(1)
    first = inpaint(params, image, mask, KEY)
    poisoned = jnp.where(mask > 0, jnp.nan, image)
    np.testing.assert_array_equal(first, inpaint(params, poisoned, mask, KEY))
    pad = ((0, 0), (0, 3), (0, 5), (0, 0))
    whole = [jnp.pad(x, pad, mode="reflect") for x in (image, mask)]
    close(first, inpaint(params, *whole, KEY)[:, :21, :19], atol=1e-5)


def test_grey_pictures_are_filled():
    _, state, _, inpaint = compiled()
    params = state.generator.variables()
    data = batch(1)
    grey = data["image"][..., :1]
    color = inpaint(params, jnp.repeat(grey, 3, axis=-1), data["mask"], KEY)
    result = inpaint(params, grey, data["mask"], KEY)
    close(result, color.mean(-1, keepdims=True), atol=1e-5)


def test_with_a_fixed_size_nothing_but_squares_of_it_is_seen():
    variables = loud(compiled()[1].generator.variables())
    inpaint = jax.jit(make(fixed_size=True).inpaint)
    data = batch(1, 40)
    image = data["image"][:, :30]
    mask = jnp.zeros((1, 30, 40, 1)).at[:, 3:10, 20:28].set(1)
    cut = slice(None), slice(0, SIZE), slice(16, 16 + SIZE)
    square = jax.jit(make().inpaint)(variables, image[cut], mask[cut], KEY)
    close(inpaint(variables, image, mask, KEY)[cut], square, atol=1e-5)
    # Twice as large a hole in a picture twice as large is the same one, scaled.
    double = [jnp.repeat(jnp.repeat(x, 2, 1), 2, 2) for x in (image, mask)]
    hole = jnp.repeat(jnp.repeat(mask, 2, 1), 2, 2) > 0
    large = inpaint(variables, *double, KEY)
    np.testing.assert_array_equal(
        np.where(hole, 0, large), np.where(hole, 0, double[0])
    )
    small = jnp.repeat(jnp.repeat(inpaint(variables, image, mask, KEY), 2, 1), 2, 2)
    loose = jax.jit(make().inpaint)(variables, *double, KEY)
    apart, without = (np.abs(x - small).sum() for x in (large, loose))
    assert apart < 0.5 * without


# --- Lines.


@functools.cache
def guided():
    method, state, step, _ = compiled(guided=True)
    return method, state, step, jax.jit(method.guided)


def loud(variables):
    """Returns variables that let little things show in the output."""
    return jax.tree.map(lambda x: 3 * x, variables)


def test_lines_in_the_hole_change_the_fill_and_others_do_not():
    method, state, _, led = guided()
    params, data = loud(state.generator.variables()), batch(1)
    without = jax.jit(method.inpaint)(params, *data.values(), KEY)
    nothing = jnp.zeros_like(data["mask"])
    free = led(params, *data.values(), nothing, KEY)
    outside = led(params, *data.values(), 1 - data["mask"], KEY)
    np.testing.assert_array_equal(outside, free)
    # Another program, in which zeros are constants: it may round otherwise.
    close(free, without, atol=1e-5)
    lines = nothing.at[:, ::2].set(1)
    changed = np.abs(led(params, *data.values(), lines, KEY) - free)
    assert changed.max() > 1e-4
    assert np.where(data["mask"] > 0, 0, changed).max() == 0


def test_thin_lines_stay_lines_where_a_hole_is_scaled():
    method = make(guided=True, fixed_size=True)
    params = loud(guided()[1].generator.variables())
    image = batch(1, 2 * SIZE)["image"]
    mask = jnp.zeros((1, 32, 32, 1)).at[:, 8:24, 8:24].set(1)
    line = jnp.zeros_like(mask).at[:, 15].set(1)
    led = jax.jit(method.guided)
    without = led(params, image, mask, 0 * line, KEY)
    assert np.abs(led(params, image, mask, line, KEY) - without).max() > 1e-4


def test_training_draws_the_edges_of_the_truth_into_the_hole():
    _, state, step, _ = guided()
    data = batch(2)
    # An edge across the hole of the second picture, which nothing else shows.
    inside = data["mask"][1] > 0
    half = (jnp.arange(SIZE) > SIZE // 2)[:, None, None] * 2.0 - 1
    edged = data["image"].at[1].set(jnp.where(inside, half, data["image"][1]))
    sketch = canny(edged) * data["mask"]
    assert sketch[1].sum() > 0
    _, metrics = step(state, data | {"image": edged}, KEY)
    draw = jax.jit(Generator(4).apply)
    both = draw(state.generator.variables(), edged, data["mask"], sketch)
    want = float(absolute(*both, edged))
    np.testing.assert_allclose(metrics["loss/l1"], want, rtol=1e-4)


def test_a_sketch_is_cut_with_its_window():
    method, state, _, led = guided()
    params = jax.tree.map(np.asarray, loud(state.generator.variables()))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 230, 3), dtype=np.uint8)
    hole = np.zeros((200, 230), bool)
    hole[150:170, 190:205] = True
    sketch = np.zeros((200, 230), np.uint8)
    sketch[150:170, 195:198] = 255
    (piece,) = regions.plan(hole, method.window).pieces
    assert piece.window != (slice(0, 200), slice(0, 230))
    options = {"image_size": SIZE, "width": 4, "discriminator_width": 4, "guided": True}

    def fill(sketch):
        return jaxpaint.inpaint(
            image, hole, "deepfill_v2", options=options, params=params, sketch=sketch
        )

    cut, mask, lines = (x[piece.window] for x in (image, hole, sketch > 0))
    want = led(
        params,
        images.to_float(cut)[None],
        mask[None, ..., None].astype(np.float32),
        lines[None, ..., None].astype(np.float32),
        KEY,
    )
    result = fill(sketch)
    apart = result[piece.window].astype(int) - images.to_uint8(want[0])
    assert np.abs(apart).max() <= 1
    for same in (sketch > 0, (sketch / 255).astype(np.float32)[..., None]):
        np.testing.assert_array_equal(fill(same), result)
    assert (fill(0 * sketch) != result).any()
    with pytest.warns(UserWarning, match="inverted"):
        fill(255 - sketch)
    for wrong, words in (
        (sketch[:-1], "sketch has shape"),
        (sketch.astype(np.int32), "sketch has dtype int32"),
        (sketch.astype(np.float32), "outside of 0 to 1"),
    ):
        with pytest.raises(InputError, match=words):
            fill(wrong)
    with pytest.raises(InputError, match="takes no sketch"):
        jaxpaint.inpaint(image, hole, "harmonic", sketch=sketch)
