"""Published weights of DeepFill v1 and v2 become parameters, with nothing left over."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_tf_checkpoint import entry, table

from jaxpaint import convert, methods, safetensors, torch_file, weights
from jaxpaint.convert import deepfill_v1, deepfill_v2
from jaxpaint.convert.coverage import leaves
from jaxpaint.errors import InputError

KEY = jax.random.key(2)


def published(version, width, kind="tensorflow", channels=5):
    """Returns arrays of zeros with the names and shapes of a generator."""
    options = {"width": width}
    if version == 2:
        options["guided"] = channels == 6
    tree = convert.template(f"deepfill_v{version}", options, 256)
    arrays = {}
    for path, leaf in leaves(tree):
        _, layer, name = path.split(".")
        inner = layer
        if kind == "tensorflow":
            inner += f"/{layer}_conv" if "upsample" in layer else ""
            key, shape = f"inpaint_net/{inner}/{name}", leaf.shape
        else:
            if kind == "nipponjo":
                inner += ".conv" if "upsample" in layer else ""
            else:
                network = "coarse" if layer.startswith("conv") else "fine"
                inner = layer.removesuffix("_upsample").removeprefix("x")
                inner = f"{network}_generator.{inner}"
            key = f"{inner}.conv.{'weight' if name == 'kernel' else 'bias'}"
            shape = leaf.shape[::-1] if len(leaf.shape) == 4 else leaf.shape
        # One number behind every shape.
        arrays[key] = np.broadcast_to(np.float32(0), shape)
    return arrays


def listed(fixtures):
    path = fixtures / "deepfill_keys" / "keys_full.json"
    return json.loads(path.read_text())


def zeros(names):
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in names}


OF_THE_OPTIMIZER = [
    *[["beta1_power", []], ["beta2_power_1", []], ["lr", []], ["global_step", []]],
    *[["inpaint_net/conv1/kernel/Adam", [1]], ["inpaint_net/conv1/kernel/Adam_1", [1]]],
]


@pytest.mark.parity
@pytest.mark.parametrize("version", ["v1", "v2", "v2 guided"])
@pytest.mark.parametrize("kind", ["tf_variables", "torch_keys"])
def test_every_published_array_has_its_place(fixtures, version, kind):
    version, *guided = version.split()
    about = listed(fixtures)
    generator = about["_".join([f"deepfill_{version}_generator", *guided])]
    arrays = zeros(generator[kind])
    judge = {"v1": "deepfill_v1_discriminators", "v2": "deepfill_v2_discriminator"}
    more = zeros(about[judge[version]][kind])
    converter = {"v1": deepfill_v1, "v2": deepfill_v2}[version]
    if kind == "tf_variables":
        arrays |= more | zeros(OF_THE_OPTIMIZER)
    elif version == "v1":
        arrays |= more
    else:
        arrays = convert.state_dict({"G": arrays, "D": more})
    assert [deepfill_v1.recognizes(arrays), deepfill_v2.recognizes(arrays)] == [
        version == "v1",
        version == "v2",
    ]
    converted = converter.convert(arrays)
    count = sum(leaf.size for _, leaf in leaves(converted.params))
    assert count == generator["parameters"]
    order = {"channel_order": "bgr"} if kind == "tf_variables" else {}
    width = {"v1": 32, "v2": 48}[version]
    wanted = {"width": width, **order, **({"guided": True} if guided else {})}
    assert converted.options == wanted
    missing = list(zeros(generator[kind]))[5]
    fewer = {key: value for key, value in arrays.items() if key != missing}
    fewer["stray"] = np.zeros(1)
    with pytest.raises(InputError, match=r"1 missing: .*; 1 unexpected: stray"):
        converter.convert(fewer)


@pytest.mark.parity
def test_the_second_network_of_the_port_is_refused(fixtures):
    about = listed(fixtures)["deepfill_v2_torch_non_tf_architecture"]
    for kind in ("torch_keys_G", "torch_keys_D"):
        arrays = zeros(about[kind])
        assert deepfill_v2.recognizes(arrays)
        message = "want those of networks_tf|want those of the generator"
        with pytest.raises(InputError, match=message):
            deepfill_v2.convert(arrays)


@pytest.mark.parity
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["torch", "tensorflow"])
def test_converted_weights_give_the_recorded_pictures(
    fixtures, tmp_path, version, kind
):
    name = f"deepfill_v{version}_generator_rect"
    meta = json.loads((fixtures / name / "meta.json").read_text())
    with np.load(fixtures / name / "io.npz") as loaded:
        arrays = dict(loaded)
    path = fixtures / name / "weights.pth"
    if kind == "tensorflow":
        theirs = torch_file.load(path)
        variables = {}
        for variable, key in meta["tf_name_map"].items():
            array = np.asarray(theirs[key])
            turn = array.ndim == 4
            variables[variable] = array.transpose(2, 3, 1, 0) if turn else array
        path = written(tmp_path / "snap-0", variables)
    converted = convert.convert(path)
    assert converted.method == f"deepfill_v{version}"
    options = dict(converted.options)
    assert options.pop("channel_order", "rgb") == (
        "bgr" if kind == "tensorflow" else "rgb"
    )
    # The arrays are recorded in the network's own order.
    method = methods.make(converted.method, **options)
    image, refined = (arrays[k].transpose(0, 2, 3, 1) for k in ("image", "refined"))
    mask = np.broadcast_to(arrays["mask"].transpose(0, 2, 3, 1), (*image.shape[:3], 1))
    result = jax.jit(method.inpaint)(
        converted.params, jnp.asarray(image), jnp.asarray(mask), KEY
    )
    wanted = np.where(mask > 0.5, refined, image)
    atol = meta["tolerance"]["refined"]["atol"]
    np.testing.assert_allclose(result, wanted, rtol=0, atol=atol)


def written(prefix, variables):
    """Writes a checkpoint of TensorFlow of float32 arrays; returns its index."""
    entries, data = [(b"", b"\x08\x01")], b""
    for name in sorted(variables):
        array = np.ascontiguousarray(variables[name], np.float32)
        value = entry(1, list(array.shape), len(data), array.nbytes)
        entries.append((name.encode(), value))
        data += array.tobytes()
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return table(prefix.with_name(f"{prefix.name}.index"), [entries])


def test_a_checkpoint_of_tensorflow_is_loaded_by_its_index_and_its_folder(tmp_path):
    arrays = published(1, 2)
    key = "inpaint_net/conv13_upsample/conv13_upsample_conv/bias"
    arrays[key] = np.arange(4, dtype=np.float32)
    written(tmp_path / "snap-0", arrays)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/gone/snap-0"\n')
    for name in ("snap-0.index", ""):
        loaded = weights.load(tmp_path / name)
        assert loaded.method == "deepfill_v1"
        assert loaded.options == {"width": 2, "channel_order": "bgr"}
        bias = loaded.params["params"]["conv13_upsample"]["bias"]
        np.testing.assert_array_equal(bias, np.arange(4))


@pytest.mark.parametrize("prefix", ["netG.", ""])
def test_files_of_both_ports_are_told_apart(tmp_path, prefix):
    first = {prefix + key: x for key, x in published(1, 2, "daa233").items()}
    second = published(2, 4, "nipponjo", 6)
    wanted = [
        ("deepfill_v1", {"width": 2}),
        ("deepfill_v2", {"width": 4, "guided": True}),
    ]
    for arrays, (method, options) in zip([first, second], wanted, strict=True):
        path = tmp_path / f"{method}.safetensors"
        safetensors.write(path, arrays)
        converted = convert.convert(path)
        assert (converted.method, converted.options) == (method, options)


def test_the_other_version_is_refused_by_name():
    for converter, arrays, message in (
        (deepfill_v1, published(2, 4), "want the method deepfill_v2"),
        (deepfill_v2, published(1, 2), "want the method deepfill_v1"),
        (deepfill_v1, published(2, 4, "nipponjo"), "no weights of DeepFill v1"),
        (deepfill_v2, published(1, 2, "daa233"), "no weights of DeepFill v2"),
        (deepfill_v2, {"conv1.conv_sn.weight": np.zeros(1)}, "a discriminator"),
    ):
        with pytest.raises(InputError, match=message) as error:
            converter.convert(arrays)
        assert "\n" not in str(error.value)
