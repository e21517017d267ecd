"""Published diffusion models fill our networks exactly, and tell their options."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxpaint import convert, safetensors, weights
from jaxpaint.cli.main import main
from jaxpaint.convert import coverage
from jaxpaint.convert._guided_classifier import convert_classifier
from jaxpaint.convert.repaint import convert as convert_arrays
from jaxpaint.convert.repaint import recognizes
from jaxpaint.errors import InputError


@pytest.fixture
def weightless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays are looked at but not copied: full size costs no memory."""
    monkeypatch.setattr(coverage, "np", SimpleNamespace(asarray=lambda x, *_, **__: x))


def of_shapes(names: list) -> dict[str, np.ndarray]:
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in names}


def full_size(fixtures: Path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of the released files, by their names."""
    lists = {}
    for path in fixtures.glob("repaint_keys*/keys_full.json"):
        lists |= json.loads(path.read_text())
    assert lists
    return {name: of_shapes(names) for name, names in lists.items()}


def count(tree: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parity
def test_released_files_are_used_whole(fixtures: Path, weightless: None) -> None:
    for name, arrays in full_size(fixtures).items():
        assert recognizes(arrays)
        if "classifier" in name:
            with pytest.raises(InputError, match="weights of a classifier"):
                convert_arrays(arrays)
            fields, params = convert_classifier(arrays)
            assert (fields["image_size"], fields["blocks"]) == (256, 2)
            assert fields["attention"] == (8, 16, 32)
        else:
            converted = convert_arrays(arrays)
            params, options = converted.params, converted.options
            assert converted.image_size == 256
            diffusers = name.startswith("diffusers")
            assert options["blocks"] == 2
            assert options["multipliers"] == (1, 1, 2, 2, 4, 4)
            assert options["attention"] == ((16,) if diffusers else (8, 16, 32))
            assert options["head_channels"] == (0 if diffusers else 64)
            assert options["learned_variance"] == (not diffusers)
            assert options.get("classes", 0) == ("ImageNet" in name) * 1000
        assert count(params) == sum(x.size for x in arrays.values()), name


@pytest.mark.parity
def test_both_names_of_attention_give_the_same(fixtures: Path) -> None:
    for case in fixtures.glob("repaint_diffusers_unet*"):
        meta = json.loads((case / "meta.json").read_text())
        path = case / "diffusion_pytorch_model.safetensors"
        new, _ = safetensors.read(path)
        old = dict(new)
        for theirs, ours in meta["old_attention_names"]:
            old[theirs] = old.pop(ours)
        first, second = convert_arrays(new), convert_arrays(old)
        jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


@pytest.mark.parity
def test_a_folder_of_diffusers_is_read_with_its_config(
    fixtures: Path, tmp_path: Path
) -> None:
    (case,) = fixtures.glob("repaint_diffusers_unet")
    for inner in ("model", "pipeline/unet"):
        shutil.copytree(case, tmp_path / inner)
    config = tmp_path / "model" / "config.json"
    settings = json.loads(config.read_text())
    changed = {"norm_eps": 1e-3, "freq_shift": 0, "attention_head_dim": 16}
    config.write_text(json.dumps(settings | changed))
    plain = weights.convert(tmp_path / "pipeline")
    converted = convert.convert(tmp_path / "model")
    assert plain.options["norm_epsilon"] == 1e-6
    assert converted.options["norm_epsilon"] == 1e-3
    assert converted.options["frequency_shift"] == 0
    assert converted.options["head_channels"] == 16
    assert converted.image_size == settings["sample_size"]
    assert converted.options["image_size"] == settings["sample_size"]
    jax.tree.map(np.testing.assert_array_equal, plain.params, converted.params)

    for name, value, wanted in [
        ("act_fn", "gelu", "act_fn 'gelu'; supported: 'silu'"),
        ("norm_num_groups", 8, "norm_num_groups 8"),
        ("num_class_embeds", 10, "num_class_embeds 10"),
        ("add_downsample_magic", 2, "add_downsample_magic 2, which is not supported"),
        ("_class_name", "UNet2DConditionModel", "'UNet2DConditionModel' of diffusers"),
        ("down_block_types", ["SkipDownBlock2D"], "block 'SkipDownBlock2D'"),
        ("down_block_types", ["DownBlock2D"], "do not mirror"),
    ]:
        config.write_text(json.dumps(settings | {name: value}))
        with pytest.raises(InputError, match=wanted) as error:
            weights.read(tmp_path / "model")
        assert str(error.value).startswith(str(tmp_path / "model"))
        assert "\n" not in str(error.value)
    config.write_text(json.dumps(settings))
    for place, changes, wanted in [
        ("model", {}, {"schedule": "linear", "variance": "small", "steps": 1000}),
        ("model", {"variance_type": "fixed_large"}, {"variance": "large"}),
        ("pipeline/scheduler", {"prediction_type": "sample"}, {"target": "clean"}),
        ("pipeline/scheduler", {"clip_sample": False}, {"clip": False}),
        ("model", {"beta_schedule": "squaredcos_cap_v2"}, {"schedule": "cosine"}),
        ("model", {"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid'"),
        ("model", {"beta_end": 0.012}, "beta_end 0.012; supported with 1000"),
        ("model", {"trained_betas": [0.1]}, "has trained_betas"),
    ]:
        path = tmp_path / place / "scheduler_config.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"beta_schedule": "linear"} | changes))
        folder = tmp_path / place.split("/")[0]
        if isinstance(wanted, dict):
            assert wanted.items() <= convert.convert(folder).options.items()
        else:
            with pytest.raises(InputError, match=wanted):
                convert.convert(folder)
    with pytest.raises(InputError, match="partial_conv has none there"):
        convert.convert(tmp_path / "model", "partial_conv")
    (tmp_path / "model" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match="is missing beside"):
        convert.convert(tmp_path / "model")


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"method": "repaint"}')
    assert not convert.is_published(tmp_path)
    with pytest.raises(InputError, match="no folder of diffusers"):
        convert.convert(tmp_path)


def published(fields: dict, *, classes: int = 0) -> dict[str, np.ndarray]:
    """Arrays as guided-diffusion names them, of a network with these fields.

    Written down apart from the converter: blocks are numbered as they come.
    """
    channels, made = fields["channels"], {}

    def add(key: str, *shape: int) -> None:
        made[f"{key}.weight"] = np.zeros(shape, np.float32)
        made[f"{key}.bias"] = np.zeros(shape[0], np.float32)

    def res(key: str, before: int, after: int) -> None:
        add(f"{key}.in_layers.0", before)
        add(f"{key}.in_layers.2", after, before, 3, 3)
        add(f"{key}.emb_layers.1", after * (1 + fields["scale_shift"]), 4 * channels)
        add(f"{key}.out_layers.0", after)
        add(f"{key}.out_layers.3", after, after, 3, 3)
        if before != after:
            add(f"{key}.skip_connection", after, before, 1, 1)

    def attend(key: str, width: int) -> None:
        add(f"{key}.norm", width)
        add(f"{key}.qkv", 3 * width, width, 1)
        add(f"{key}.proj_out", width, width, 1)

    def resample(key: str, name: str, width: int) -> None:
        if fields["resample_blocks"]:
            res(key, width, width)
        elif fields["convolve_resampled"]:
            add(f"{key}.{name}", width, width, 3, 3)

    widths = [round(m * channels) for m in fields["multipliers"]]
    add("time_embed.0", 4 * channels, channels)
    add("time_embed.2", 4 * channels, 4 * channels)
    if classes:
        made["label_emb.weight"] = np.zeros((classes, 4 * channels), np.float32)
    add("input_blocks.0.0", widths[0], 3, 3, 3)
    stack, number = [widths[0]], 1
    for level, width in enumerate(widths):
        for _ in range(fields["blocks"]):
            res(f"input_blocks.{number}.0", stack[-1], width)
            if 2**level in fields["attention"]:
                attend(f"input_blocks.{number}.1", width)
            stack.append(width)
            number += 1
        if level < len(widths) - 1:
            resample(f"input_blocks.{number}.0", "op", width)
            stack.append(width)
            number += 1
    res("middle_block.0", widths[-1], widths[-1])
    attend("middle_block.1", widths[-1])
    res("middle_block.2", widths[-1], widths[-1])
    before, number = widths[-1], 0
    for level, width in reversed(list(enumerate(widths))):
        for i in range(fields["blocks"] + 1):
            key, place = f"output_blocks.{number}", 1
            res(f"{key}.0", before + stack.pop(), width)
            if 2**level in fields["attention"]:
                attend(f"{key}.1", width)
                place = 2
            if level and i == fields["blocks"]:
                resample(f"{key}.{place}", "conv", width)
            before, number = width, number + 1
    add("out.0", widths[0])
    add("out.2", 6, widths[0], 3, 3)
    return made


FIELDS = [
    {"multipliers": (1, 2, 2), "attention": (2,), "resample_blocks": True},
    {"multipliers": (1, 1), "attention": (), "resample_blocks": False},
    {"multipliers": (1, 2), "attention": (1, 2), "convolve_resampled": False},
    {"multipliers": (0.5, 1.5), "attention": (), "channels": 64, "blocks": 2},
    {"multipliers": (2,), "attention": (1,), "scale_shift": False},
]


@pytest.mark.parametrize("fields", FIELDS)
def test_names_and_shapes_tell_the_network(fields: dict) -> None:
    common = {
        "channels": 32,
        "blocks": 1,
        "scale_shift": True,
        "resample_blocks": False,
        "convolve_resampled": True,
    }
    fields = common | fields
    classes = 7 * (len(fields["multipliers"]) == 3)
    arrays = published(fields, classes=classes)
    options = convert_arrays(arrays).options
    got = {name: options.get(name) for name in fields}
    if len(fields["multipliers"]) == 1 or fields["resample_blocks"]:
        # Nothing to resample, or not by these.
        got["convolve_resampled"] = fields["convolve_resampled"]
    assert got == fields
    assert options["learned_variance"]
    assert options.get("classes", 0) == classes
    assert {"heads": 4, "head_channels": 0}.items() <= options.items()


def test_damage_is_said_in_one_line() -> None:
    arrays = published(FIELDS[0] | {"channels": 32, "blocks": 1, "scale_shift": True})

    def refused(match: str, **changes: object) -> None:
        changed = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
        with pytest.raises(InputError, match=match) as error:
            convert_arrays(changed)
        assert "\n" not in str(error.value)

    refused("1 missing: out.0.bias", **{"out.0.bias": None})
    refused("1 unexpected: more", more=np.zeros(3))
    refused("no weights of a U-Net", **{"input_blocks.0.0.weight": None})
    refused("lack 'out.2.weight'", **{"out.2.weight": None})
    refused("has 4 outputs", **{"out.2.weight": np.zeros((4, 32, 3, 3))})
    refused(
        "lack 'input_blocks.1.0.out", **{"input_blocks.1.0.out_layers.3.weight": None}
    )
    refused("5 output_blocks at 3", **{k: None for k in arrays if "blocks.5" in k})
    encoder = {k: None for k in arrays if k.startswith("output_blocks")}
    refused("weights of a classifier", **encoder)
    with pytest.raises(InputError, match="no weights of guided-diffusion's classifier"):
        convert_classifier(arrays)


# Two levels of one block: 32, 32, 32 (halved), 64 and, in the middle, 64 channels.
POOLS = {
    "attention": {
        "0": (64,),
        "2.positional_embedding": (64, 17),
        "2.qkv_proj": (192, 64, 1),
        "2.c_proj": (5, 64, 1),
    },
    "adaptive": {"0": (64,), "3": (5, 64, 1, 1)},
    "spatial": {"0": (2048, 224), "2": (5, 2048)},
    "spatial_v2": {"0": (2048, 224), "1": (2048,), "3": (5, 2048)},
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("resample_blocks", [True, False])
def test_classifiers_tell_their_pool(pool: str, resample_blocks: bool) -> None:
    fields = {
        "channels": 32,
        "blocks": 1,
        "scale_shift": True,
        "convolve_resampled": True,
        "multipliers": (1, 2),
        "attention": (2,),
        "resample_blocks": resample_blocks,
    }
    arrays = published(fields)
    for key in list(arrays):
        if key.startswith("out"):
            del arrays[key]
    for key, shape in POOLS[pool].items():
        if "embedding" in key:
            arrays[f"out.{key}"] = np.zeros(shape)
        else:
            arrays[f"out.{key}.weight"] = np.zeros(shape)
            arrays[f"out.{key}.bias"] = np.zeros(shape[0])
    got, params = convert_classifier(arrays)
    del fields["convolve_resampled"]
    assert fields.items() <= got.items()
    assert (got["pool"], got["classes"]) == (pool, 5)
    # Four by four places at the coarser level.
    assert got["image_size"] == (8 if pool == "attention" else 16)
    assert count(params) == sum(x.size for x in arrays.values())


@pytest.mark.parity
def test_the_command_takes_what_arrays_do_not_tell(
    fixtures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (case,) = fixtures.glob("repaint_unet_celeba")
    output = tmp_path / "a.safetensors"
    command = ["convert", str(case / "weights.pth"), "--output", str(output)]
    changes = ["--option", "head_channels=16", "--option", "image_size=32"]
    assert main([*command, *changes]) == 0
    read = weights.read(output)
    assert read.options["head_channels"] == 16
    assert read.image_size == read.options["image_size"] == 32
    assert read.options["attention"] == (2,)
    assert main([*command, "--overwrite", "--option", "blocks=2"]) == 2
    assert "the weights do not fit" in capsys.readouterr().err
    assert weights.read(output).options["blocks"] == 1
