"""Context Encoder: recorded numbers, and what the method promises."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint import images, masks, methods, torch_file
from jaxpaint.config import Compute, Optim
from jaxpaint.convert import context_encoder as converter
from jaxpaint.convert.coverage import leaves
from jaxpaint.errors import InputError
from jaxpaint.layers.channelwise_dense import ChannelwiseDense
from jaxpaint.methods import context_encoder
from jaxpaint.methods._context_encoder_networks import Discriminator, Generator

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
def train_output(network, variables, x):
    return network.apply(variables, x, True, mutable=["batch_stats"])[0]


@functools.partial(jax.jit, static_argnums=0)
def evaluated(network, variables, x):
    return network.apply(
        variables,
        x,
        False,
        capture_intermediates=lambda module, _: module.name == "bottleneck",
        mutable=["intermediates"],
    )


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["center", "random"])
def test_generator_parity(fixtures, kind):
    for name in cases(fixtures, f"ce_generator_{kind}"):
        config, arrays, weights, compare = case(fixtures, name)
        converted = converter.convert(weights)
        options = converted.options
        assert options["whole_image"] == (kind == "random")
        assert options["encoder_width"] == config["nef"]
        assert options["decoder_width"] == config["ngf"]
        assert options["bottleneck"] == config["nBottleneck"]
        generator = Generator(
            converted.image_size,
            converted.image_size // (1 if options["whole_image"] else 2),
            config["nef"],
            config["ngf"],
            config["nBottleneck"],
            channelwise=False,
        )
        np.testing.assert_allclose(config["fill"], context_encoder.FILL, atol=1e-6)
        x = nhwc(arrays["x"])
        with jax.default_matmul_precision("highest"):
            out, inside = evaluated(generator, converted.params, x)
            compare("eval.out", nchw(out))
            (bottleneck,) = inside["intermediates"]["bottleneck"]["__call__"]
            compare("eval.bottleneck", nchw(bottleneck))
            if "train.out" in arrays:
                result = train_output(generator, converted.params, x)
                compare("train.out", nchw(result))


@pytest.mark.parity
def test_discriminator_parity(fixtures):
    for name in cases(fixtures, "ce_disc"):
        config, arrays, weights, compare = case(fixtures, name)
        variables = converter.discriminator(weights)
        network = Discriminator(config["size"][0], config["ndf"])
        x = nhwc(arrays["x"])
        with jax.default_matmul_precision("highest"):
            logits = evaluated(network, variables, x)[0][:, None, None, None]
            compare("eval.logit", logits)
            compare("eval.out", nn.sigmoid(logits))
            train = train_output(network, variables, x)[:, None, None, None]
            compare("train.out", nn.sigmoid(train))


@pytest.mark.parity
def test_channelwise_dense_parity(fixtures):
    for name in cases(fixtures, "ce_channelwise_fc"):
        _, arrays, weights, compare = case(fixtures, name)
        params = {"params": {"kernel": weights["weight"], "bias": weights["bias"]}}
        with jax.default_matmul_precision("highest"):
            y = ChannelwiseDense().apply(params, nhwc(arrays["x"]))
            compare("y", nchw(y))
            mixed = y @ weights["mix.weight"][:, :, 0, 0].T
            compare("mixed", nchw(mixed))


@pytest.mark.parity
def test_losses_parity(fixtures):
    for name in cases(fixtures, "ce_losses"):
        config, arrays, _, compare = case(fixtures, name)
        fake, real = nhwc(arrays["fake"]), nhwc(arrays["real"])
        weights = context_encoder.overlap_weights(
            fake.shape[1], config["overlap"], config["overlap_weight"]
        )
        share = config["wtl2"]

        def weighted(fake, real=real, weights=weights, share=share):
            return share * context_encoder.reconstruction(fake, real, weights)

        compare("weight_map", share * weights[0, :, :, 0])
        rec, grad = jax.value_and_grad(weighted)(fake)
        compare("rec_weighted", rec[None])
        compare("grad_fake_rec", nchw(grad))
        compare("rec_plain", context_encoder.reconstruction(fake, real)[None])
        adv = context_encoder.cross_entropy(jnp.asarray(arrays["logit_fake"]), 1.0)
        compare("adv", adv[None])
        compare("total", (rec + (1 - share) * adv)[None])
        image = nhwc(arrays["img"])
        hole = context_encoder.center_hole(image.shape[1], config["overlap"])
        compare("masked_input", nchw(context_encoder.masked(image, hole)))
        border = (image.shape[1] - fake.shape[1]) // 2
        pad = ((0, 0), (border, border), (border, border), (0, 0))
        fill = jnp.pad(fake[: len(image)], pad)
        compare("composite", nchw(images.compose(image, fill, hole)))


@pytest.mark.parity
def test_every_published_key_has_its_place(fixtures):
    for name in cases(fixtures, "ce_keys_full"):
        published = json.loads((fixtures / name / "keys_full.json").read_text())
        for kind, listed in published.items():
            # One number behind every shape: 71 million parameters cost nothing.
            arrays = {
                key: np.broadcast_to(np.float32(0), shape)
                for key, shape in listed["keys"]
            }
            assert converter.recognizes(arrays), kind
            if kind.startswith("PyTorch-GAN"):
                with pytest.raises(InputError, match="PyTorch-GAN"):
                    converter.convert(arrays)
                continue
            if "netlocalD" in kind:
                params = converter.discriminator(arrays)
            else:
                params = converter.convert(arrays).params
            count = sum(leaf.size for _, leaf in leaves(params["params"]))
            assert count == listed["trainable_params"], kind
            for missing in list(arrays)[:3]:
                fewer = {k: v for k, v in arrays.items() if k != missing}
                with pytest.raises(InputError):
                    converter.convert(fewer)


# --- Properties.

SIZE = 16
KEY = jax.random.key(3)
SMALL = {
    **{"image_size": SIZE, "encoder_width": 4, "decoder_width": 4},
    **{"discriminator_width": 4, "bottleneck": 16, "overlap": 1},
}


def make(**options):
    optim = options.pop("optim", Optim(lr=1e-3, b1=0.5))
    return methods.make("context_encoder", **SMALL | options, optim=optim)


def batch(size=4, kind="random_blocks"):
    """Smooth pictures with a hole each."""
    keys = jax.random.split(KEY, size + 1)
    coarse = jax.random.uniform(keys[0], (size, 4, 4, 3), minval=-0.8, maxval=0.8)
    image = jax.image.resize(coarse, (size, SIZE, SIZE, 3), "linear")
    mask = jax.vmap(lambda key: masks.make(kind)((SIZE, SIZE), key))(keys[1:])
    return {"image": image, "mask": mask}


@functools.cache
def compiled(**options):
    """Returns a first state and the compiled step of a method."""
    method = make(**options)
    return jax.jit(method.init)(KEY, batch(4)), jax.jit(method.train_step)


@jax.jit
def whole_output(params, x):
    return generator(True).apply(params, x, False)


def variables(network):
    return {"params": network.params, "batch_stats": network.stats}


def generator(whole_image=False):
    return Generator(SIZE, SIZE if whole_image else SIZE // 2, 4, 4, 16, False)


def close(a, b, **tolerance):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            np.asarray(x), np.asarray(y), **tolerance
        ),
        a,
        b,
    )


def test_the_border_of_the_overlap_weighs_more():
    weights = np.asarray(context_encoder.overlap_weights(8, 2, 10.0))[0, :, :, 0]
    assert weights.shape == (8, 8)
    assert (weights[2:6, 2:6] == 1).all()
    assert weights.sum() == 16 + 10 * (64 - 16)


def test_without_overlap_the_hole_is_that_of_the_center_masks():
    hole = context_encoder.center_hole(64, 0)[0]
    np.testing.assert_array_equal(hole, masks.make("center")((64, 64), KEY))
    smaller = masks.make("boxes", count=(1, 1), side=(7 / 16,) * 2, margin=9 / 32)
    hole = context_encoder.center_hole(128, 4)[0]
    np.testing.assert_array_equal(hole, smaller((128, 128), KEY))


def test_step_computes_the_losses_of_the_paper():
    # The centre model: weighted squared error, and a discriminator that was updated
    # before it judges.
    data = batch()
    before, step = compiled()
    after, metrics = step(before, data, KEY)
    hole = context_encoder.center_hole(SIZE, 1)
    context = context_encoder.masked(data["image"], hole)
    real = data["image"][:, 4:12, 4:12]
    fake = train_output(generator(), variables(before.generator), context)
    weights = np.full((1, 8, 8, 1), 10.0, np.float32)
    weights[:, 1:7, 1:7] = 1
    rec = np.mean(weights * np.square(np.asarray(fake - real)))
    judge = Discriminator(8, 4)
    old, new = (
        [
            nn.sigmoid(train_output(judge, variables(state.discriminator), patch))
            for patch in (real, fake)
        ]
        for state in (before, after)
    )
    disc = -np.mean(np.log(old[0])) - np.mean(np.log(1 - old[1]))
    adv = -np.mean(np.log(new[1]))
    wanted = {
        "loss/rec": rec,
        "loss/disc": disc,
        "loss/adv": adv,
        "loss/gen": 0.999 * rec + 0.001 * adv,
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("weight", [0.0, 1.0, 10.0])
def test_known_pixels_of_whole_images_have_their_weight(weight):
    data = batch(3)
    error = jax.random.uniform(KEY, (3, SIZE, SIZE, 1))
    weights = context_encoder.hole_weights(data["mask"], weight)
    loss = context_encoder.reconstruction(jnp.sqrt(error), 0.0, weights)
    share = np.asarray(data["mask"] + weight * (1 - data["mask"]))
    wanted = [np.average(e, weights=w) for e, w in zip(error, share, strict=True)]
    np.testing.assert_allclose(loss, np.mean(wanted), rtol=1e-5)


def test_known_pixels_of_whole_images_are_not_learned_by_default():
    # Another truth at known pixels of the loss, the same input: no other gradient.
    data = batch(2)
    params = compiled(whole_image=True)[0].generator.variables()
    context = context_encoder.masked(data["image"], data["mask"])
    weights = context_encoder.hole_weights(data["mask"], 0.0)

    def loss(truth):
        return context_encoder.reconstruction(
            whole_output(params, context), truth, weights
        )

    grad = jax.jit(jax.grad(loss))(data["image"])
    assert np.abs(np.where(data["mask"] > 0, 0, grad)).max() == 0
    assert np.abs(grad).max() > 0


def test_discriminator_sees_only_the_patch():
    # A generator that always answers gray: its input cannot reach the discriminator.
    data = batch(4)
    around = jnp.where(context_encoder.center_hole(SIZE, 0) > 0, data["image"], 0.5)
    inside = jnp.where(context_encoder.center_hole(SIZE, 0) > 0, 0.5, data["image"])
    state, step = compiled()
    params = dict(state.generator.params)
    params["output"] = jax.tree.map(jnp.zeros_like, params["output"])
    state = state._replace(generator=state.generator._replace(params=params))
    one, two, three = (
        jax.tree.leaves(step(state, data | {"image": x}, KEY)[0].discriminator.params)
        for x in (data["image"], around, inside)
    )
    close(one, two, atol=0)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("whole_image", [False, True])
def test_training_lowers_the_error_on_a_few_pictures(whole_image):
    steps = 120
    optim = Optim(lr=1e-4, b1=0.5, decay_steps=steps, ema_decay=0.8)
    data = batch(4)
    method = make(whole_image=whole_image, optim=optim)
    init = jax.jit(method.init)
    state = init(KEY, data)
    first = state.average
    step = jax.jit(method.train_step)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, data, KEY)
        if not losses:
            # Decay of the first step: 1 / 10.
            wanted = jax.tree.map(
                lambda a, b: 0.1 * a + 0.9 * b, first, state.generator.variables()
            )
            close(method.eval_params(state), wanted, atol=1e-5)
        losses.append(float(metrics["loss/rec"]))
    assert losses[-1] < 0.1 * losses[0]
    # What inference sees has learned as well.
    fresh = method.load_params(init(KEY, data), method.eval_params(state))
    hole = context_encoder.center_hole(SIZE, 1)
    mask = data["mask"] if whole_image else jnp.broadcast_to(hole, data["mask"].shape)
    inpaint = jax.jit(method.inpaint)
    before, after, loaded = (
        inpaint(params, data["image"], mask, KEY)
        for params in (first, method.eval_params(state), method.eval_params(fresh))
    )
    error = [float(jnp.sum(jnp.abs(x - data["image"]))) for x in (before, after)]
    assert error[1] < 0.4 * error[0]
    np.testing.assert_array_equal(after, loaded)


@pytest.mark.parametrize(
    ("options", "rtol"),
    [
        (
            {
                "optim": Optim(lr=1e-3, b1=0.5, microbatches=2),
                "compute": Compute(remat=True),
            },
            1e-4,
        ),
        ({"compute": Compute(dtype="bfloat16")}, 5e-2),
    ],
    ids=["microbatches and remat", "bfloat16"],
)
def test_cheaper_steps_are_the_same_step(options, rtol):
    # Both halves (every second picture) hold the same pictures: equal batch statistics.
    half = batch(2, "random_region")
    data = jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), half)
    state, step = compiled(whole_image=True)
    cheaper = jax.jit(make(whole_image=True, **options).train_step)
    after, metrics = cheaper(state, data, KEY)
    close(metrics, step(state, data, KEY)[1], rtol=rtol)
    for x in jax.tree.leaves((after.generator, metrics)):
        assert x.dtype in (jnp.float32, jnp.int32)


def test_one_mask_may_serve_the_batch():
    data = batch(4)
    same = data | {"mask": jnp.broadcast_to(data["mask"][:1], data["mask"].shape)}
    state, step = compiled(whole_image=True)
    shared = jax.jit(make(whole_image=True, shared_mask=True).train_step)
    wanted = step(state, same, KEY)[1]
    close(shared(state, data, KEY)[1], wanted, rtol=1e-5)
    assert abs(float(step(state, data, KEY)[1]["loss/rec"] - wanted["loss/rec"])) > 1e-4


# --- Inference.


@pytest.fixture(scope="module", params=[False, True], ids=["center", "whole image"])
def model(request):
    """Method, network, random weights with lively statistics, compiled inference."""
    method = make(whole_image=request.param)
    network = generator(request.param)
    x = jax.random.normal(KEY, (2, SIZE, SIZE, 3))
    params = jax.jit(lambda: network.init(KEY, x, False))()
    record = jax.jit(
        lambda params: network.apply(params, x, True, mutable=["batch_stats"])[1]
    )
    for _ in range(20):
        params = params | record(params)
    # Answers that fill the range.
    params["params"]["output"]["kernel"] *= 20
    return request.param, network, params, jax.jit(method.inpaint)


def test_training_geometry_gives_the_answer_of_the_network(model):
    whole_image, network, params, inpaint = model
    data = batch(2)
    hole = context_encoder.center_hole(SIZE, 1)
    mask = data["mask"] if whole_image else jnp.broadcast_to(hole, data["mask"].shape)
    fill, _ = evaluated(network, params, context_encoder.masked(data["image"], mask))
    if not whole_image:
        fill = jnp.pad(fill, ((0, 0), (4, 4), (4, 4), (0, 0)))
    wanted = jnp.where(mask > 0, fill, data["image"])
    result = inpaint(params, data["image"], mask, KEY)
    np.testing.assert_allclose(result, wanted, atol=1e-5)
    assert float(jnp.abs(jnp.where(mask > 0, fill, 0)).max()) > 0.1


def test_a_hole_elsewhere_is_brought_to_the_center(model):
    whole_image, _, params, inpaint = model
    if whole_image:
        pytest.skip("the model for whole images looks at all of them")
    cut = batch(1)["image"]
    hole = context_encoder.center_hole(SIZE, 1)
    wanted = inpaint(params, cut, hole, KEY)
    around = ((0, 0), (5, 11), (20, 4), (0, 0))
    photo = jnp.pad(cut, around, constant_values=0.3)
    result = inpaint(params, photo, jnp.pad(hole, around), KEY)
    np.testing.assert_allclose(result[:, 5:21, 20:36], wanted, atol=1e-5)


@pytest.mark.parametrize("whole_image", [False, True])
def test_pictures_are_scaled_for_the_network_and_its_answer_back(
    whole_image, monkeypatch
):
    # A network that answers with the numbers of its rows and columns.
    seen = []

    class Rows:
        def __init__(self, image_size, patch_size, *_):
            self.side = patch_size

        def apply(self, params, x, train):
            seen.append(np.asarray(x[0]))
            rows = jnp.arange(self.side, dtype=jnp.float32)
            shape = (1, self.side, self.side, 1)
            down = jnp.broadcast_to(rows[None, :, None, None], shape)
            right = jnp.broadcast_to(rows[None, None, :, None], shape)
            return jnp.concatenate([down, right, right], axis=-1)

    monkeypatch.setattr(context_encoder, "Generator", Rows)
    height, width = 40, 48
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = jnp.asarray(np.stack([y, x, x], axis=-1)[None])
    top, left, longer = 14, 20, 12
    mask = np.zeros((1, height, width, 1), np.float32)
    mask[:, top : top + longer, left : left + 9] = 1
    result = make(whole_image=whole_image).inpaint({}, image, mask, KEY)
    hole = np.s_[0, top : top + longer, left : left + 9]
    # Edges of the network's pixel 0, and pixels of the picture for one of it.
    if whole_image:
        starts, scales, shift = (0.0, 0.0), (height / SIZE, width / SIZE), 0
    else:
        scale, middle = longer / 6, (top + longer / 2, left + 9 / 2)
        starts = tuple(m - scale * SIZE / 2 for m in middle)
        scales, shift = (scale, scale), SIZE // 4
    fill = np.asarray(result)[hole][..., :2]
    (context,) = seen
    for axis, (start, scale) in enumerate(zip(starts, scales, strict=True)):
        place = (np.stack([y, x], axis=-1)[hole[1:]][..., axis] + 0.5 - start) / scale
        np.testing.assert_allclose(fill[..., axis], place - 0.5 - shift, atol=1e-4)
        middles = start + (np.arange(SIZE) + 0.5) * scale - 0.5
        if axis == 0:
            np.testing.assert_allclose(context[1:-1, 1, 0], middles[1:-1], atol=0.1)
        else:
            np.testing.assert_allclose(context[1, 1:-1, 1], middles[1:-1], atol=0.1)
    color = context[SIZE // 2, SIZE // 2]
    np.testing.assert_allclose(color, context_encoder.FILL, atol=1e-6)


def test_resampling_keeps_a_slope_and_mirrors_outside():
    ramp = jnp.arange(20.0)
    for start, scale in [(0.0, 1.0), (3.5, 0.5), (4.0, 2.5)]:
        weights = context_encoder.sampling(
            jnp.array([start]), jnp.array([scale]), 4, 20, reflect=True
        )
        middles = start + (np.arange(4) + 0.5) * scale - 0.5
        # A triangle over more than two pixels is not quite symmetric on a lattice.
        atol = 0.02 if scale > 1 else 1e-5
        np.testing.assert_allclose((weights @ ramp)[0], middles, atol=atol)
    weights = context_encoder.sampling(
        jnp.array([-2.0]), jnp.array([1.0]), 24, 20, reflect=True
    )
    mirrored = np.pad(np.asarray(ramp), 2, "symmetric")
    np.testing.assert_array_equal((weights @ ramp)[0], mirrored)


def test_gray_pictures_are_filled(model):
    _, _, params, inpaint = model
    gray = batch(1)["image"][..., :1]
    mask = context_encoder.center_hole(SIZE, 1)
    color = inpaint(params, jnp.repeat(gray, 3, axis=-1), mask, KEY)
    result = inpaint(params, gray, mask, KEY)
    assert result.shape == gray.shape
    np.testing.assert_allclose(result, color.mean(-1, keepdims=True), atol=1e-5)


# --- Input that does not fit.


def test_channelwise_layer_fits_in_place_of_the_bottleneck():
    data = batch(2)
    method = make(channelwise=True)
    state = jax.eval_shape(method.init, KEY, data)
    after, _ = jax.eval_shape(method.train_step, state, data, KEY)
    assert after.generator.params["dense"]["kernel"].shape == (32, 16, 16)
    assert "bottleneck" not in after.generator.params
    # A pixel that is moved in one map of 4 x 4 moves all pixels of that map alone.
    layer, x = ChannelwiseDense(), jnp.zeros((1, 4, 4, 3))
    params = layer.init(KEY, x)
    change = layer.apply(params, x.at[0, 1, 2, 1].set(1)) - layer.apply(params, x)
    assert (np.abs(change[..., 1]) > 0).all()
    assert (np.abs(change[..., ::2]) == 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 48}, "image_size is 48"),
        ({"image_size": 8}, "image_size is 8"),
        ({"overlap": 4}, "overlap is 4"),
        ({"adversarial_weight": 1.0}, "adversarial_weight"),
        ({"known_weight": -1.0}, "known_weight"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        make(**options)


def test_pictures_of_another_size_are_refused_in_training():
    method = make()
    data = batch(2)
    state = jax.eval_shape(method.init, KEY, data)
    larger = {name: jnp.zeros((2, 32, 32, x.shape[-1])) for name, x in data.items()}
    for run in (
        lambda: method.init(KEY, larger),
        lambda: jax.eval_shape(method.train_step, state, larger, KEY),
        lambda: method.init(KEY, data | {"mask": data["mask"][:, :8]}),
    ):
        with pytest.raises(InputError, match="want"):
            run()


def test_discriminator_files_are_told_apart():
    arrays = {
        "main.0.weight": np.zeros((2, 3, 4, 4), np.float32),
        "main.2.weight": np.zeros((1, 2, 4, 4), np.float32),
    }
    assert converter.recognizes(arrays)
    with pytest.raises(InputError, match="discriminator"):
        converter.convert(arrays)
