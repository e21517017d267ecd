"""DeepFill v1: recorded numbers, and what the method promises."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxpaint import images, losses, methods, torch_file
from jaxpaint.config import Optim
from jaxpaint.flow_picture import flow_picture
from jaxpaint.layers import nearest
from jaxpaint.layers.contextual_attention import contextual_attention
from jaxpaint.methods import deepfill_v1
from jaxpaint.methods._deepfill_v1_networks import Generator

pytestmark = pytest.mark.usefixtures("compiled_quickly")

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
