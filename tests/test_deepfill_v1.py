"""DeepFill v1: recorded numbers, and what the method promises."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxpaint import images, losses, masks, methods, optimization, torch_file
from jaxpaint.config import Compute, Optim
from jaxpaint.errors import InputError
from jaxpaint.flow_picture import flow_picture
from jaxpaint.layers import nearest
from jaxpaint.layers.contextual_attention import contextual_attention
from jaxpaint.methods import deepfill_v1
from jaxpaint.methods._deepfill_v1_networks import Generator

KEY = jax.random.key(5)

# --- Parity with the recorded numbers of the official code.


def case(fixtures, name):
    """Returns the description and arrays of a case."""
    meta = json.loads((fixtures / name / "meta.json").read_text())
    with np.load(fixtures / name / "io.npz") as loaded:
        return meta, dict(loaded)


def weights_of(fixtures, name, meta):
    folder = fixtures / name
    return torch_file.load(folder / meta.get("weights", "weights.pth"))


def cases(fixtures, prefix):
    found = sorted(path.name for path in fixtures.glob(f"{prefix}*"))
    assert found, f"no case {prefix}*"
    return found


def nhwc(x):
    return jnp.asarray(np.asarray(x).transpose(0, 2, 3, 1))


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def generator_params(weights, names):
    """Returns the generator; names: of its arrays by those of TensorFlow."""
    tree = {}
    for variable, key in names.items():
        scope, layer, *_, kind = variable.split("/")
        if scope == "inpaint_net":
            array = np.asarray(weights[key])
            if kind == "kernel":
                array = array.transpose(2, 3, 1, 0)
            tree.setdefault(layer, {})[kind] = array
    return {"params": tree}


def critic_params(weights, name, side):
    """Returns the critic `localD` or `globalD` for pictures of `side`."""
    tree = {}
    for number in range(1, 5):
        key = f"{name}.dis_conv_module.conv{number}.conv"
        kernel = np.asarray(weights[f"{key}.weight"]).transpose(2, 3, 1, 0)
        tree[f"conv{number}"] = {"kernel": kernel, "bias": weights[f"{key}.bias"]}
    kernel = np.asarray(weights[f"{name}.linear.weight"])
    kernel = kernel.reshape(-1, side // 16, side // 16).transpose(1, 2, 0)
    bias = weights[f"{name}.linear.bias"]
    tree["output"] = {"kernel": kernel.reshape(-1, 1), "bias": bias}
    return {"params": tree}


@pytest.mark.parity
def test_generator_of_the_official_code(fixtures):
    for name in cases(fixtures, "deepfill_v1_generator"):
        meta, arrays = case(fixtures, name)
        weights = weights_of(fixtures, name, meta)
        params = generator_params(weights, meta["tf_name_map"])
        network = Generator(meta["config"]["cnum"])
        image = nhwc(arrays["image"])
        mask = jnp.broadcast_to(nhwc(arrays["mask"]), (*image.shape[:3], 1))
        (coarse, refined), inside = jax.jit(
            lambda params, network=network, image=image, mask=mask: network.apply(
                params,
                image,
                mask,
                capture_intermediates=lambda module, _: module.name is not None,
                mutable=["intermediates"],
            )
        )(params)
        tolerance = meta["tolerance"]
        for key, picture in {"coarse": coarse, "refined": refined}.items():
            atol = tolerance[key]["atol"]
            np.testing.assert_allclose(
                nchw(picture), arrays[key], rtol=0, atol=atol, err_msg=f"{name} {key}"
            )
        if "composite" in arrays:
            whole = images.compose(image * (1 - mask), refined, mask)
            atol = tolerance["refined"]["atol"]
            np.testing.assert_allclose(nchw(whole), arrays["composite"], atol=atol)
        layers = {
            key: value["__call__"][0]
            for key, value in inside["intermediates"].items()
            if key != "__call__"
        }
        features = layers["pmconv6"]
        small = nearest.resize(mask, *features.shape[1:3])
        attended = contextual_attention(features, features, small)
        layers["ca_out"] = attended.output
        for key in arrays:
            if key.startswith("act__"):
                got = nchw(layers[key.removeprefix("act__")])
                np.testing.assert_allclose(got, arrays[key], **tolerance["act"])
        np.testing.assert_array_equal(nchw(small[:1]), arrays["mask_s"])
        offsets = nchw(attended.offsets)
        same = (offsets == arrays["offsets"]).all(axis=1)
        assert same.mean() > 0.99
        flow = images.to_float(flow_picture(np.asarray(attended.offsets)))
        far = np.abs(nchw(flow).repeat(2, 2).repeat(2, 3) - arrays["flow"]).max(axis=1)
        apart = ~same.repeat(2, axis=1).repeat(2, axis=2)
        assert ((far <= tolerance["flow"]["atol"]) | apart).all()


@pytest.mark.parity
def test_spatial_discount_of_the_official_code(fixtures):
    for name in cases(fixtures, "deepfill_spatial_discount"):
        meta, arrays = case(fixtures, name)
        for key, about in meta["config"]["subcases"].items():
            weights = losses.spatial_discount(
                about["height"], about["width"], about["gamma"]
            )
            atol = meta["tolerance"]["all"]["atol"]
            np.testing.assert_allclose(nchw(weights), arrays[key], rtol=0, atol=atol)


@pytest.mark.parity
def test_losses_and_gradients_of_the_official_code(fixtures, monkeypatch):
    for name in cases(fixtures, "deepfill_v1_losses"):
        meta, arrays = case(fixtures, name)
        config, tolerance = meta["config"], meta["tolerance"]
        weights = weights_of(fixtures, name, meta)
        top, left, box, _ = config["bbox"]
        params = generator_params(weights, meta["tf_name_map"])["params"]
        judges = {
            "local": critic_params(weights, "localD", box)["params"],
            "global": critic_params(weights, "globalD", config["height"])["params"],
        }
        image = nhwc(arrays["raw"]) / 127.5 - 1
        mask = jnp.broadcast_to(nhwc(arrays["mask"]), (*image.shape[:3], 1))
        corner = deepfill_v1.corners(mask, box)
        np.testing.assert_array_equal(corner, np.tile([top, left], (len(image), 1)))

        optim = Optim(b1=0.5)
        method = methods.make(
            "deepfill_v1",
            image_size=config["height"],
            width=config["cnum"],
            critic_width=config["dcnum"],
            critic_steps=1,
            optim=optim,
        )
        state = empty_state(method, config["height"])
        state = state._replace(
            generator=state.generator._replace(params=params),
            critics=state.critics._replace(params=judges),
        )
        # What the critics' step draws, in this order.
        alphas = iter([arrays[f"interp_alpha_{key}"] for key in judges])
        monkeypatch.setattr(
            jax.random,
            "uniform",
            lambda key, shape, alphas=alphas: next(alphas).reshape(shape),
        )
        step = jax.jit(method.train_step)
        batch = {"image": image, "mask": mask}
        critics = step(state, batch, KEY)
        artist = step(state._replace(step=jnp.int32(1)), batch, KEY)
        monkeypatch.undo()
        got = critics[1] | {
            key: value for key, value in artist[1].items() if value != 0
        }
        wanted = {
            "loss/hole": arrays["loss__l1_loss"],
            "loss/known": arrays["loss__ae_loss"],
            "loss/gen": arrays["loss__g_loss"],
            "loss/critics": arrays["loss__d_loss"],
            "loss/penalty": arrays["loss__gp_loss"] / 10,
            "loss/adv": arrays["part__local_gan_g"] + arrays["part__global_gan_g"],
            "loss/distance": -arrays["part__local_gan_d"]
            - arrays["part__global_gan_d"],
        }
        for key, value in wanted.items():
            kind = "loss" if key in ("loss/gen", "loss/critics") else "part"
            np.testing.assert_allclose(
                got[key], value, **tolerance[kind], err_msg=f"{name}: {key}"
            )
        # The first moments after the first step are a half of the gradients.
        moments = (
            optax.tree_utils.tree_get(network.opt_state, "mu")
            for network in (artist[0].generator, critics[0].critics)
        )
        grads = dict(gradients_by_name(*moments, meta["tf_name_map"]))
        assert set(grads) == set(meta["grad_norms"])
        for key, norm in meta["grad_norms"].items():
            about = tolerance["grad_norms"]
            np.testing.assert_allclose(
                np.linalg.norm(2 * grads[key]),
                norm,
                rtol=about["rtol"],
                atol=about["atol"],
                err_msg=f"{name}: {key}",
            )
            if f"grad__{key}" in arrays:
                want = arrays[f"grad__{key}"]
                atol = tolerance["grad"]["rtol"] * np.abs(want).max()
                np.testing.assert_allclose(2 * grads[key], want, rtol=0, atol=atol)


def gradients_by_name(generator, critics, names):
    """Yields names of the published port and arrays in its layout."""
    for variable, key in names.items():
        scope, layer, *_, kind = variable.split("/")
        if scope == "inpaint_net":
            array = np.asarray(generator[layer][kind])
            yield key, array.transpose(3, 2, 0, 1) if kind == "kernel" else array
    for name, critic in critics.items():
        for layer, arrays in critic.items():
            inner = "linear" if layer == "output" else f"dis_conv_module.{layer}.conv"
            for kind, array in arrays.items():
                array = np.asarray(array)
                if array.ndim == 4:
                    array = array.transpose(3, 2, 0, 1)
                kind = "weight" if kind == "kernel" else kind
                yield f"{name}D.{inner}.{kind}", array


def empty_state(method, size):
    """Returns a state with zeros everywhere."""
    init = functools.partial(method.init, batch=methods.example(size))
    shapes = jax.eval_shape(init, KEY)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


@pytest.mark.parity
def test_inference_of_the_official_code(fixtures):
    for name in cases(fixtures, "deepfill_v1_inference"):
        meta, arrays = case(fixtures, name)
        config = meta["config"]
        weights = weights_of(fixtures, name, meta)
        source = (fixtures / name / meta["weights"]).parent.name
        names = case(fixtures, source)[0]["tf_name_map"]
        method = methods.make(
            "deepfill_v1",
            width=config["cnum"],
            channel_order=config["network_channel_order"].lower(),
        )
        height, width = arrays["output_rgb_u8"].shape[:2]
        image = images.to_float(arrays["image_rgb_u8"][:height, :width])[None]
        mask = arrays["mask_u8"][:height, :width, None] > 127.5
        result = jax.jit(method.inpaint)(
            generator_params(weights, names),
            jnp.asarray(image),
            jnp.asarray(mask, jnp.float32)[None],
            KEY,
        )
        np.testing.assert_allclose(
            nchw(result[..., ::-1]),
            arrays["output_float_bgr"],
            rtol=0,
            atol=meta["tolerance"]["output_float_bgr"]["atol"],
        )
        # The official script truncates, where we round.
        got = images.to_uint8(np.asarray(result[0])).astype(int)
        assert np.abs(got - arrays["output_rgb_u8"].astype(int)).max() <= 1


# --- Properties.

SIZE = 16
CYCLE = 3


OPTIM = Optim(lr=5e-3, b1=0.5, b2=0.9, ema_decay=0.5)


def make(optim=OPTIM, **options):
    small = {"image_size": SIZE, "width": 4, "critic_width": 2, "critic_steps": 2}
    return methods.make("deepfill_v1", **small | options, optim=optim)


def batch(size=4):
    """Smooth pictures with a hole each."""
    keys = jax.random.split(KEY, size + 1)
    coarse = jax.random.uniform(keys[0], (size, 4, 4, 3), minval=-0.8, maxval=0.8)
    image = jax.image.resize(coarse, (size, SIZE, SIZE, 3), "linear")
    box = functools.partial(masks.make("deepfill_box"), (SIZE, SIZE))
    return {"image": image, "mask": jax.vmap(box)(keys[1:])}


@functools.cache
def compiled(**options):
    """Returns a first state and the compiled step of a method."""
    method = make(**options)
    return jax.jit(method.init)(KEY, batch()), jax.jit(method.train_step)


def differ(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(np.any(np.asarray(x) != np.asarray(y)) for x, y in pairs)


def close(a, b, **tolerance):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            np.asarray(x), np.asarray(y), **tolerance
        ),
        a,
        b,
    )


def test_critics_learn_twice_before_each_turn_of_the_generator():
    state, step = compiled()
    for number in range(2 * CYCLE):
        # As a run that is resumed from here does it: nothing counts but the state.
        resumed = jax.tree.map(np.asarray, state)
        after, metrics = step(resumed, batch(), jax.random.fold_in(KEY, number))
        of_generator = number % CYCLE == CYCLE - 1
        assert after.step == number + 1
        assert differ(after.critics, state.critics) != of_generator
        for name in ("generator", "average"):
            assert differ(getattr(after, name), getattr(state, name)) == of_generator
        # What is measured stays until the next turn.
        for name in (
            "loss/gen",
            "loss/hole",
            "loss/known",
            "loss/adv",
            "grad_norm/gen",
        ):
            assert (metrics[name] != state.metrics[name]) == of_generator, name
        for name in ("loss/critics", "loss/distance", "loss/penalty"):
            assert (metrics[name] != state.metrics[name]) != of_generator, name
        assert metrics == after.metrics
        state = after


def test_schedules_of_both_networks_end_with_the_run():
    lr = {}
    for share in (1 / 6, 5 / 6):
        optim = deepfill_v1._in_updates(
            Optim(lr=1.0, warmup_steps=60, decay_steps=600, final_lr=0.1), share
        )
        schedule = optimization.schedule(optim)
        lr[share] = [schedule(share * step) for step in (0, 30, 60, 330, 600, 700)]
    np.testing.assert_allclose(lr[1 / 6], lr[5 / 6], atol=1e-6)
    np.testing.assert_allclose(lr[1 / 6], [0, 0.5, 1, 0.55, 0.1, 0.1], atol=1e-6)


def test_the_box_is_the_hole_before_it_was_shrunk():
    size, box = 64, 32
    make_box = functools.partial(masks.make("deepfill_box"), (size, size))
    mask = jax.vmap(make_box)(jax.random.split(KEY, 16))
    corner = np.asarray(deepfill_v1.corners(mask, box))
    assert corner.min() >= 0
    assert corner.max() <= size - box
    inside = np.asarray(deepfill_v1.crop(mask, jnp.asarray(corner), box))
    np.testing.assert_array_equal(inside.sum((1, 2, 3)), mask.sum((1, 2, 3)))
    # As much is known on one side as on the other.
    np.testing.assert_array_equal(inside, inside[:, ::-1, ::-1])
    # A hole at the border, no hole and nothing but hole.
    edge = jnp.zeros((3, size, size, 1)).at[0, -5:, :3].set(1).at[2].set(1)
    corner = deepfill_v1.corners(edge, box)
    np.testing.assert_array_equal(corner, [[32, 0], [16, 16], [16, 16]])


def test_the_penalty_counts_slopes_in_the_hole_only():
    data = batch(3)
    slope = jax.random.normal(KEY, (1, SIZE, SIZE, 3))
    real, fake = data["image"], -data["image"]
    for scale in (0.5, 1.0, 2.0):
        distance, penalty = deepfill_v1.wasserstein(
            lambda x, scale=scale: scale * jnp.sum(slope * x, axis=(1, 2, 3)),
            real,
            fake,
            data["mask"],
            jnp.full((3, 1, 1, 1), 0.3),
        )
        norms = np.sqrt(np.sum(np.square(slope * data["mask"]), axis=(1, 2, 3)))
        np.testing.assert_allclose(
            penalty, np.mean((scale * norms - 1) ** 2), rtol=1e-5
        )
        gap = 2 * scale * np.mean(np.sum(slope * real, axis=(1, 2, 3)))
        np.testing.assert_allclose(distance, gap, rtol=1e-4)


def test_the_penalty_has_a_gradient_where_the_slope_is_zero():
    image = batch(2)["image"]

    def penalty(weight, hole):
        score = lambda x: weight * jnp.sum(x, axis=(1, 2, 3))  # noqa: E731
        alpha = jnp.zeros((2, 1, 1, 1))
        return deepfill_v1.wasserstein(score, image, image, hole, alpha)[1]

    for hole in (jnp.ones_like(image[..., :1]), jnp.zeros_like(image[..., :1])):
        value, grad = jax.value_and_grad(penalty)(0.0, hole)
        np.testing.assert_allclose([value, grad], [1, 0], atol=1e-4)


def test_the_discount_falls_from_the_border_inwards():
    weights = losses.spatial_discount(10, 6, 0.5)
    assert weights.shape == (1, 10, 6, 1)
    weights = weights[0, :, :, 0]
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == 1).all()
    # The last row and column count as one pixel away, as in the official code.
    assert (weights[-1, 1:] == 0.5).all()
    np.testing.assert_allclose(weights[5, 2:4], [0.25, 0.125])
    assert (losses.spatial_discount(5, 5, 1.0) == 1).all()


def test_errors_of_known_pixels_are_means_of_each_picture():
    data = batch(3)
    error = jnp.asarray([0.1, 0.2, 0.4])[:, None, None, None]
    picture = data["image"] + error * (1 - data["mask"])
    _, known = deepfill_v1.reconstruction(picture, data["image"], data["mask"], 0.9)
    np.testing.assert_allclose(known, np.mean(error), rtol=1e-4)


WITHOUT = {"adversarial_weight": 0.0}
COARSE = {"pretrain_coarse": True}


@pytest.mark.parametrize("options", [WITHOUT, COARSE], ids=["whole", "coarse"])
def test_training_lowers_the_error_on_a_few_pictures(options):
    steps, share = (3, 1.0) if options is COARSE else (40, 0.6)
    method, data = make(**options), batch()
    first, step = compiled(**options)
    assert jax.tree.leaves(first.critics) == []
    state, values = first, []
    for _ in range(steps):
        state, metrics = step(state, data, KEY)
        values.append(float(metrics["loss/hole"]))
    assert values[-1] < share * values[0]
    # The refinement rests while the coarse network learns alone.
    before, after = (x.generator.params["allconv17"] for x in (first, state))
    assert differ(before, after) != (options is COARSE)
    # What inference sees has learned as well.
    params = method.eval_params(state)
    fresh = method.load_params(first, params)
    inpaint = jax.jit(method.inpaint)
    before, after, loaded = (
        inpaint(params, data["image"], data["mask"], KEY)
        for params in (first.average, params, method.eval_params(fresh))
    )
    error = [float(jnp.sum(jnp.abs(x - data["image"]))) for x in (before, after)]
    assert error[1] < share * error[0]
    np.testing.assert_array_equal(after, loaded)


def test_cheaper_steps_are_the_same_step():
    state, step = compiled(**WITHOUT)
    optim = dataclasses.replace(OPTIM, microbatches=2)
    method = make(optim, compute=Compute(remat=True), **WITHOUT)
    after, metrics = jax.jit(method.train_step)(state, batch(), KEY)
    close(metrics, step(state, batch(), KEY)[1], rtol=1e-3, atol=1e-5)
    # bfloat16 leaves parameters and metrics in float32, the critics' too.
    coarser = make(compute=Compute(dtype="bfloat16")).train_step
    coarser = jax.eval_shape(coarser, compiled()[0], batch(), KEY)
    for x in jax.tree.leaves((after, metrics, coarser)):
        assert x.dtype in (jnp.float32, jnp.int32)


def test_sides_that_do_not_fit_are_mirrored_and_colors_turned():
    params = make().eval_params(compiled()[0])
    image = jax.random.uniform(KEY, (1, 13, 22, 3), minval=-1)
    mask = jnp.zeros((1, 13, 22, 1)).at[0, 3:9, 4:20].set(1)
    result = jax.jit(make().inpaint)(params, image, mask, KEY)
    assert result.shape == image.shape
    pads = [(0, 0), (0, 3), (0, 2), (0, 0)]
    wide = [
        np.pad(np.asarray(x), pads, mode="reflect") for x in (image[..., ::-1], mask)
    ]
    turned = jax.jit(make(channel_order="bgr").inpaint)(params, *wide, KEY)
    np.testing.assert_allclose(turned[:, :13, :22, ::-1], result, atol=1e-5)


def test_with_a_fixed_size_nothing_but_squares_of_it_is_seen():
    params = make().eval_params(compiled()[0])
    image = jax.random.uniform(KEY, (1, 30, 40, 3), minval=-1)
    mask = jnp.zeros((1, 30, 40, 1)).at[:, 3:10, 20:28].set(1)
    cut = slice(None), slice(0, SIZE), slice(16, 16 + SIZE)
    result = jax.jit(make(fixed_size=True).inpaint)(params, image, mask, KEY)
    square = jax.jit(make().inpaint)(params, image[cut], mask[cut], KEY)
    np.testing.assert_allclose(result[cut], square, atol=1e-5)
    whole = jax.jit(make().inpaint)(params, image, mask, KEY)
    assert np.abs(result - whole).max() > 1e-4


def test_errors_of_holes_of_any_shape_are_means_over_them():
    method, data = make(box_loss=False, **WITHOUT), batch(2)
    ring = jnp.ones_like(data["mask"]).at[:, 4:12, 4:12].set(0)
    state = jax.jit(method.init)(KEY, data)
    _, metrics = jax.jit(method.train_step)(state, data | {"mask": ring}, KEY)
    known = jnp.where(ring > 0, 0, data["image"])
    pictures = jax.jit(Generator(4).apply)(state.generator.variables(), known, ring)
    weights = (1.2, 1.0)
    errors = [np.abs(np.asarray(p) - np.asarray(data["image"])) for p in pictures]
    inside = np.broadcast_to(np.asarray(ring) > 0, errors[0].shape)
    for name, where in (("loss/hole", inside), ("loss/known", ~inside)):
        want = sum(w * e[where].mean() for w, e in zip(weights, errors, strict=True))
        np.testing.assert_allclose(metrics[name], want, rtol=1e-4)


def test_networks_have_as_many_parameters_as_the_released_ones():
    method = methods.make("deepfill_v1")
    init = functools.partial(method.init, batch=methods.example(256))
    state = jax.eval_shape(init, KEY)
    counts = [
        sum(leaf.size for leaf in jax.tree.leaves(network.params))
        for network in (state.generator, state.critics)
    ]
    assert counts == [3_601_542, 7_072_770]


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 20},
        {"image_size": 8},
        {"width": 1},
        {"critic_width": 0},
        {"critic_steps": -1},
        {"discount": 0.0},
        {"channel_order": "grb"},
    ],
)
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(InputError) as error:
        make(**options)
    assert "\n" not in str(error.value)


def test_batches_that_do_not_fit_are_refused():
    data = batch()
    method = make()
    for bad in (
        data | {"mask": data["mask"][:, :8]},
        {k: x[:, :8] for k, x in data.items()},
    ):
        with pytest.raises(InputError, match="want"):
            method.init(KEY, bad)
