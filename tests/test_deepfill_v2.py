"""DeepFill v2: recorded numbers of its parts, and what they promise."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxpaint import images, torch_file
from jaxpaint.layers.convolution import Conv
from jaxpaint.layers.gated_conv import GatedConv
from jaxpaint.layers.spectral_norm import COLLECTION, spectral_norm
from jaxpaint.methods._deepfill_v2_networks import Generator
from jaxpaint.methods._sn_patch_gan import Discriminator, absolute, hinge

pytestmark = pytest.mark.usefixtures("compiled_quickly")


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
