"""Weights of diffusion models: guided-diffusion's U-Net and diffusers' `UNet2DModel`.

Of guided-diffusion these are the released networks (RePaint's for faces and places,
those for ImageNet and LSUN) and any that were trained with its code; of diffusers, the
DDPM checkpoints such as `google/ddpm-celebahq-256`.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxpaint.convert import Converted, coverage
from jaxpaint.convert.coverage import Source
from jaxpaint.errors import InputError

if TYPE_CHECKING:
    from jaxpaint.diffusion.unet import UNet

_GUIDED = ("time_embed.0.weight", "input_blocks.0.0.weight")
_DIFFUSERS = ("conv_in.weight", "time_embedding.linear_1.weight", "conv_out.weight")

# How attention in diffusers named its parts before version 0.17, and does now.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

_SUPPORTED: dict[str, tuple] = {
    "in_channels": (3,),
    "out_channels": (3, 6),
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1, 0),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "norm_num_groups": (32,),
    "attn_norm_num_groups": (None, 32),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}
"""Values that settings of diffusers may have; the first is its default."""

_SCHEDULER: dict[str, tuple[str, dict[str, str]]] = {
    "beta_schedule": ("schedule", {"linear": "linear", "squaredcos_cap_v2": "cosine"}),
    "prediction_type": (
        "target",
        {"epsilon": "noise", "sample": "clean", "v_prediction": "velocity"},
    ),
    "variance_type": (
        "variance",
        {
            "fixed_small": "small",
            "fixed_small_log": "small",
            "fixed_large": "large",
            "fixed_large_log": "large",
            "learned_range": "small",
        },
    ),
}
"""Settings of diffusers' schedulers, our options, and what their values are called
here; the first is the default. A learned variance shows in the network itself."""

_READ = (
    *("sample_size", "block_out_channels", "layers_per_block", "dropout"),
    *("down_block_types", "up_block_types", "attention_head_dim", "norm_eps"),
    *("flip_sin_to_cos", "freq_shift", "num_train_timesteps"),
)
"""Settings of diffusers that are read, seen in the shapes or of no importance."""


def recognizes(arrays: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are of a U-Net of either project, or of a classifier."""
    return _all_in(_GUIDED, arrays) or _all_in(_DIFFUSERS, arrays)


def convert(
    arrays: Mapping[str, np.ndarray],
    config: Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
) -> Converted:
    """Returns the network, with the options that its names and shapes tell.

    What they do not tell has defaults. Options may replace these, as none of them
    changes the parameters.

    - guided-diffusion: 64 channels a head for networks shaped like those released for
      256 and 512 pixels and for ImageNet at 64, else 4 heads; `joint_heads` but for
      ImageNet at 64, which has the cosine schedule; no dropout.
    - diffusers: one head, and the rest as in the released DDPM checkpoints, such as the
      small variance.
    - The image size is 8 pixels at the coarsest level, as in all the released ones.

    Args:
      arrays: the state dict.
      config: of diffusers, the content of `config.json`.
      scheduler: likewise of `scheduler_config.json`, for what the network's own
        configuration leaves open.

    Raises:
      InputError: the network of another project, a setting of `config` that ours does
        not have, or arrays that do not fill ours exactly.
    """
    if _all_in(_DIFFUSERS, arrays):
        arrays = _merged(arrays)
        fields, last = _diffusers_fields(arrays), "conv_out.weight"
    elif _all_in(_GUIDED, arrays):
        fields, last = _guided_fields(arrays), "out.2.weight"
    else:
        raise InputError(
            "these are no weights of a U-Net as guided-diffusion (input_blocks.0.0."
            "weight .. out.2.weight) or diffusers (conv_in.weight .. conv_out.weight) "
            "name them"
        )
    outputs = _shape(arrays, last)[0]
    if outputs not in (3, 6):
        raise InputError(
            f"the last layer has {outputs} outputs; want 3, or 6 with a learned "
            "variance"
        )
    image_size = 8 << (len(fields["multipliers"]) - 1)
    if config is not None:
        fields |= _fields_of_config(config)
        size = config.get("sample_size")
        image_size = size if isinstance(size, int) else image_size
    params = network_params(arrays, {**fields, "out_channels": outputs})
    options = {
        **fields,
        "learned_variance": outputs == 6,
        "image_size": image_size,
        "schedule": "cosine" if _is_imagenet64(fields) else "linear",
    }
    if _all_in(_DIFFUSERS, arrays):
        options["variance"] = "small"
    if scheduler is not None:
        options |= _process_options(scheduler)
    return Converted("repaint", options, params, image_size)


def unet(options: Mapping[str, Any]) -> "UNet":
    """Returns the network of `Converted.options`."""
    from jaxpaint.diffusion.unet import UNet

    names = {field.name for field in dataclasses.fields(UNet)}
    fields = {name: value for name, value in options.items() if name in names}
    return UNet(**fields, out_channels=6 if options["learned_variance"] else 3)


def network_params(
    arrays: Mapping[str, np.ndarray], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns `{"params": ..}` of the `UNet` with these fields, filled exactly.

    Raises:
      InputError: arrays that do not.
    """
    import jax

    from jaxpaint.diffusion.unet import UNet

    diffusers = _all_in(_DIFFUSERS, arrays)
    arrays = _merged(arrays) if diffusers else arrays
    first = arrays["conv_in.weight" if diffusers else "input_blocks.0.0.weight"]
    network = UNet(**fields)
    size = 1 << (len(network.multipliers) - 1)
    x = jax.ShapeDtypeStruct((1, size, size, first.shape[1]), "float32")
    t = jax.ShapeDtypeStruct((1,), "int32")
    tree = jax.eval_shape(
        lambda x, t: network.init(
            jax.random.key(0), x, t, t if network.classes else None
        ),
        x,
        t,
    )
    sources = dict(_diffusers_sources(fields) if diffusers else _guided_sources(fields))
    return coverage.assemble(tree, arrays, sources)


def _guided_sources(fields: Mapping[str, Any]) -> Iterator[tuple[str, Source]]:
    """Yields path and source of every parameter in guided-diffusion's layout."""
    yield from guided_encoder(fields)
    levels, count = len(fields["multipliers"]), fields["blocks"]
    blocks = fields.get("resample_blocks", False)
    number = 0
    for level in reversed(range(levels)):
        attention = 2**level in fields["attention"]
        for i in range(count + 1):
            key = f"output_blocks.{number}"
            yield from _guided_res(f"up{level}_{i}", f"{key}.0")
            yield from _guided_attention(f"up{level}_{i}_attention", f"{key}.1")
            number += 1
        path = f"up{level}_resample"
        key = f"output_blocks.{number - 1}.{1 + attention}"
        if blocks:
            yield from _guided_res(path, key)
        else:
            yield from convolution(f"{path}.conv", f"{key}.conv")
    yield from norm("norm", "out.0")
    yield from convolution("output", "out.2")


def guided_encoder(fields: Mapping[str, Any]) -> Iterator[tuple[str, Source]]:
    """Yields path and source of the parameters that U-Net and classifier share."""
    levels, count = len(fields["multipliers"]), fields["blocks"]
    blocks = fields.get("resample_blocks", False)
    yield from linear("time_0", "time_embed.0")
    yield from linear("time_1", "time_embed.2")
    yield "params.label.embedding", Source("label_emb.weight")
    yield from convolution("input", "input_blocks.0.0")
    number = 1
    for level in range(levels):
        for i in range(count):
            key = f"input_blocks.{number}"
            yield from _guided_res(f"down{level}_{i}", f"{key}.0")
            yield from _guided_attention(f"down{level}_{i}_attention", f"{key}.1")
            number += 1
        path, key = f"down{level}_resample", f"input_blocks.{number}.0"
        if blocks:
            yield from _guided_res(path, key)
        else:
            yield from convolution(f"{path}.conv", f"{key}.op")
        number += 1
    for i, number in enumerate((0, 2)):
        yield from _guided_res(f"middle_{i}", f"middle_block.{number}")
    yield from _guided_attention("middle_attention", "middle_block.1")


def _guided_res(path: str, key: str) -> Iterator[tuple[str, Source]]:
    yield from norm(f"{path}.norm_0", f"{key}.in_layers.0")
    yield from convolution(f"{path}.conv_0", f"{key}.in_layers.2")
    yield from linear(f"{path}.embedding", f"{key}.emb_layers.1")
    yield from norm(f"{path}.norm_1", f"{key}.out_layers.0")
    yield from convolution(f"{path}.conv_1", f"{key}.out_layers.3")
    yield from linear(f"{path}.skip", f"{key}.skip_connection")


def _guided_attention(path: str, key: str) -> Iterator[tuple[str, Source]]:
    yield from norm(f"{path}.norm", f"{key}.norm")
    yield from linear(f"{path}.qkv", f"{key}.qkv")
    yield from linear(f"{path}.out", f"{key}.proj_out")


def _diffusers_sources(fields: Mapping[str, Any]) -> Iterator[tuple[str, Source]]:
    """Yields path and source of every parameter in the layout of `_merged` arrays."""
    levels, count = len(fields["multipliers"]), fields["blocks"]
    yield from linear("time_0", "time_embedding.linear_1")
    yield from linear("time_1", "time_embedding.linear_2")
    yield from convolution("input", "conv_in")
    for ours, theirs, number in [("down", "down", count), ("up", "up", count + 1)]:
        for level in range(levels):
            block = level if ours == "down" else levels - 1 - level
            key = f"{theirs}_blocks.{block}"
            for i in range(number):
                path = f"{ours}{level}_{i}"
                yield from _diffusers_res(path, f"{key}.resnets.{i}")
                yield from _diffusers_attention(
                    f"{path}_attention", f"{key}.attentions.{i}"
                )
            path = f"{ours}{level}_resample.conv"
            yield from convolution(path, f"{key}.{theirs}samplers.0.conv")
    for i in range(2):
        yield from _diffusers_res(f"middle_{i}", f"mid_block.resnets.{i}")
    yield from _diffusers_attention("middle_attention", "mid_block.attentions.0")
    yield from norm("norm", "conv_norm_out")
    yield from convolution("output", "conv_out")


def _diffusers_res(path: str, key: str) -> Iterator[tuple[str, Source]]:
    for i in range(2):
        yield from norm(f"{path}.norm_{i}", f"{key}.norm{i + 1}")
        yield from convolution(f"{path}.conv_{i}", f"{key}.conv{i + 1}")
    yield from linear(f"{path}.embedding", f"{key}.time_emb_proj")
    yield from linear(f"{path}.skip", f"{key}.conv_shortcut")


def _diffusers_attention(path: str, key: str) -> Iterator[tuple[str, Source]]:
    yield from norm(f"{path}.norm", f"{key}.group_norm")
    yield from linear(f"{path}.qkv", f"{key}.to_qkv")
    yield from linear(f"{path}.out", f"{key}.to_out.0")


def norm(path: str, key: str) -> Iterator[tuple[str, Source]]:
    """Yields the sources of a norm."""
    yield f"params.{path}.scale", Source(f"{key}.weight")
    yield f"params.{path}.bias", Source(f"{key}.bias")


def convolution(path: str, key: str) -> Iterator[tuple[str, Source]]:
    """Yields the sources of a convolution."""
    yield f"params.{path}.kernel", coverage.conv(f"{key}.weight")
    yield f"params.{path}.bias", Source(f"{key}.bias")


def linear(path: str, key: str) -> Iterator[tuple[str, Source]]:
    """Yields the sources of a matrix, or of a convolution of one pixel."""

    def matrix(x: np.ndarray) -> np.ndarray:
        return x.reshape(x.shape[:2]).T

    yield f"params.{path}.kernel", Source(f"{key}.weight", matrix)
    yield f"params.{path}.bias", Source(f"{key}.bias")


def _merged(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns arrays with query, key and value as one, `to_qkv`, where all are there.

    Attention has its newer names.
    """
    pattern = re.compile(rf"(\.attentions\.\d+)\.({'|'.join(_RENAMED)})\.")
    merged = {}
    for key, value in arrays.items():
        merged[pattern.sub(lambda m: f"{m[1]}.{_RENAMED[m[2]]}.", key)] = value
    for key in list(merged):
        names = [key.replace(".to_q.", f".to_{part}.") for part in "qkv"]
        if ".to_q." in key and _all_in(names, merged):
            parts = [merged.pop(name) for name in names]
            merged[key.replace(".to_q.", ".to_qkv.")] = np.concatenate(parts)
    return merged


def _guided_fields(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what names and shapes of a guided-diffusion U-Net tell, and defaults."""
    count = count_of(arrays, "output_blocks")
    if not count:
        raise InputError(
            "these are weights of a classifier, an encoder without output_blocks; want "
            "those of a U-Net, to which the option 'classifier' adds this file"
        )
    ups = [f"output_blocks.{i}.{j}" for i in range(count) for j in (1, 2)]
    with_blocks = [up for up in ups if f"{up}.in_layers.0.weight" in arrays]
    with_conv = [up for up in ups if f"{up}.conv.weight" in arrays]
    inputs = {int(key.split(".")[1]) for key in arrays if key[:7] == "input_b"}
    # Averages have no arrays: there, numbers are left out.
    bare = [i for i in range(max(inputs)) if i not in inputs]
    levels = 1 + len(with_blocks or with_conv or bare)
    if count % levels:
        raise InputError(
            f"there are {count} output_blocks at {levels} levels; want as many at each"
        )
    fields = encoder_fields(arrays, levels, count // levels - 1)
    fields |= {
        "resample_blocks": bool(with_blocks),
        "convolve_resampled": bool(with_conv) or not bare,
    }
    if "label_emb.weight" in arrays:
        fields["classes"] = len(arrays["label_emb.weight"])
    return fields


def encoder_fields(
    arrays: Mapping[str, np.ndarray], levels: int, blocks: int
) -> dict[str, Any]:
    """Returns fields that the encoder of a guided-diffusion network tells, and heads.

    Args:
      arrays: of a U-Net or a classifier.
      levels: of resolution.
      blocks: of each level.

    Raises:
      InputError: an array is missing.
    """
    channels = _shape(arrays, "time_embed.0.weight")[1]
    multipliers, attention = [], []
    for level in range(levels):
        key = f"input_blocks.{1 + level * (blocks + 1)}"
        rows = _shape(arrays, f"{key}.0.out_layers.3.weight")[0]
        multipliers.append(_ratio(rows, channels))
        if f"{key}.1.qkv.weight" in arrays:
            attention.append(2**level)
    rows = _shape(arrays, "input_blocks.1.0.emb_layers.1.weight")[0]
    features = _shape(arrays, "input_blocks.1.0.out_layers.3.weight")[0]
    fields = {
        "channels": channels,
        "blocks": blocks,
        "multipliers": tuple(multipliers),
        "attention": tuple(attention),
        "heads": 4,
        "scale_shift": rows == 2 * features,
    }
    small = _is_imagenet64(fields)
    large = channels == 256 and multipliers[-6:] == [1, 1, 2, 2, 4, 4]
    known = {"head_channels": 64 if small or large else 0, "joint_heads": not small}
    return fields | known


def _is_imagenet64(fields: Mapping[str, Any]) -> bool:
    """Whether these are of the network released for ImageNet at 64 pixels."""
    shape = fields["channels"], fields["blocks"], fields["multipliers"]
    return shape == (192, 3, (1, 2, 3, 4))


def _diffusers_fields(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what names and shapes of `_merged` arrays tell, and DDPM's defaults."""
    levels = count_of(arrays, "down_blocks")
    channels = _shape(arrays, "conv_in.weight")[0]
    multipliers, attention = [], []
    for level in range(levels):
        key = f"down_blocks.{level}.resnets.0.conv2.weight"
        multipliers.append(_ratio(_shape(arrays, key)[0], channels))
        if f"down_blocks.{level}.attentions.0.to_qkv.weight" in arrays:
            attention.append(2**level)
    first = "down_blocks.0.resnets.0"
    rows = _shape(arrays, f"{first}.time_emb_proj.weight")[0]
    return {
        "channels": channels,
        "blocks": count_of(arrays, "down_blocks.0.resnets"),
        "multipliers": tuple(multipliers),
        "attention": tuple(attention),
        "heads": 1,
        "head_channels": 0,
        "scale_shift": rows == 2 * _shape(arrays, f"{first}.conv2.weight")[0],
        "joint_heads": False,
        "sine_first": True,
        "frequency_shift": 1.0,
        "norm_epsilon": 1e-6,
        "pad_end": True,
    }


def _fields_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that shapes do not tell, of a `UNet2DModel`.

    Raises:
      InputError: a setting that the network does not have.
    """
    for name, allowed in _SUPPORTED.items():
        value = config.get(name, allowed[0])
        if value not in allowed:
            wanted = " or ".join(map(repr, allowed))
            raise InputError(f"config.json has {name} {value!r}; supported: {wanted}")
    for name, value in config.items():
        known = name in _SUPPORTED or name in _READ or name.startswith("_")
        if not known and value is not None:
            raise InputError(
                f"config.json has {name} {value!r}, which is not supported"
            )
    down = config.get("down_block_types", ())
    up = config.get("up_block_types", ())
    mirrored = [kind.replace("Up", "Down") for kind in reversed(up)]
    for kind in (*down, *mirrored):
        if kind not in ("DownBlock2D", "AttnDownBlock2D"):
            raise InputError(
                f"config.json has a block {kind!r}; supported: 'DownBlock2D' and "
                "'AttnDownBlock2D', and 'Up' likewise"
            )
    if mirrored != list(down):
        raise InputError(
            "config.json has up_block_types that do not mirror its down_block_types"
        )
    return {
        "sine_first": not config.get("flip_sin_to_cos", True),
        "frequency_shift": config.get("freq_shift", 0),
        "norm_epsilon": config.get("norm_eps", 1e-5),
        "pad_end": config.get("downsample_padding", 1) == 0,
        "dropout": config.get("dropout", 0.0),
        "heads": 1,
        "head_channels": config.get("attention_head_dim", 8) or 0,
    }


def _process_options(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options of the method out of the configuration of a scheduler.

    Raises:
      InputError: a setting that the method does not have.
    """
    options = {}
    for name, (option, values) in _SCHEDULER.items():
        value = scheduler.get(name, next(iter(values)))
        if value not in values:
            wanted = " or ".join(map(repr, values))
            raise InputError(
                f"scheduler_config.json has {name} {value!r}; supported: {wanted}"
            )
        options[option] = values[value]
    steps = scheduler.get("num_train_timesteps", 1000)
    ends = scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02)
    usual = 0.1 / steps, 20 / steps
    if options["schedule"] == "linear" and not np.allclose(ends, usual, rtol=1e-6):
        raise InputError(
            f"scheduler_config.json has beta_start {ends[0]} and beta_end {ends[1]}; "
            f"supported with {steps} steps: {usual[0]:g} and {usual[1]:g}"
        )
    if scheduler.get("trained_betas") is not None:
        raise InputError(
            "scheduler_config.json has trained_betas; supported: beta_schedule "
            "'linear' and 'squaredcos_cap_v2'"
        )
    return options | {"steps": steps, "clip": bool(scheduler.get("clip_sample", True))}


def _all_in(names: tuple[str, ...] | list[str], arrays: Mapping[str, Any]) -> bool:
    return all(name in arrays for name in names)


def count_of(arrays: Mapping[str, np.ndarray], prefix: str) -> int:
    """Returns how many numbers follow `prefix.` in the names: the highest plus one."""
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", key) for key in arrays)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _ratio(features: int, channels: int) -> int | float:
    return features // channels if features % channels == 0 else features / channels


def _shape(arrays: Mapping[str, np.ndarray], key: str) -> tuple[int, ...]:
    """Returns the shape of an array of 2 axes or more.

    Raises:
      InputError: there is none.
    """
    if key not in arrays:
        raise InputError(f"the weights lack '{key}', which tells the network's shape")
    return arrays[key].shape
