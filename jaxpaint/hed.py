"""Edges of pictures by a network, HED, out of a user's file.

Xie and Tu, "Holistically-Nested Edge Detection", ICCV 2015: VGG16 without its last
pooling; each of its five stages scores edges, scores are enlarged and weighed. What
people sketch is closer to these edges than to those of `jaxpaint.edges`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxpaint import convert, torch_file
from jaxpaint.convert import coverage
from jaxpaint.errors import InputError
from jaxpaint.layers.convolution import convolve
from jaxpaint.types import Params

_STAGES = ("One", "Two", "Thr", "Fou", "Fiv")
_LAYERS = (2, 2, 3, 3, 3)
_BGR_MEAN = (104.00698793, 116.66876762, 122.67891434)


def read(path: Path | str) -> Params:
    """Returns the parameters, out of one of two files of PyTorch.

    `network-bsds500.pytorch` of pytorch-hed has the authors' weights, which see blue
    first; `ControlNetHED.pth` of ControlNet was trained anew, under the Apache
    licence, and weighs its stages equally.

    Raises:
      InputError: a file that cannot be read, or that lacks a layer.
    """
    arrays = convert.state_dict(torch_file.load(path))
    missing, misshaped = [], []

    def layer(key: str, inputs: int, size: int) -> dict[str, np.ndarray]:
        weight, bias = (arrays.get(f"{key}.{name}") for name in ("weight", "bias"))
        if weight is None or bias is None:
            missing.append(key)
        elif weight.shape[1:] != (inputs, size, size) or bias.shape != weight.shape[:1]:
            misshaped.append(f"{key}.weight is {list(weight.shape)}")
        else:
            kernel = np.asarray(weight.transpose(2, 3, 1, 0), np.float32)
            return {"kernel": kernel, "bias": np.asarray(bias, np.float32)}
        return {"kernel": np.zeros((size, size, inputs, 1)), "bias": np.zeros(1)}

    ours = any(key.startswith("block1.") for key in arrays)
    prefix = "module" if "moduleVggOne.0.weight" in arrays else "net"
    params, channels = {}, 3
    for stage, (name, count) in enumerate(zip(_STAGES, _LAYERS, strict=True), start=1):
        for number in range(count):
            # There a pooling is the first of a stage, and each layer has a ReLU.
            place = 2 * number + (stage > 1)
            key = f"{prefix}Vgg{name}.{place}"
            key = f"block{stage}.convs.{number}" if ours else key
            params[f"conv{stage}_{number}"] = found = layer(key, channels, 3)
            channels = found["kernel"].shape[-1]
        key = f"block{stage}.projection" if ours else f"{prefix}Score{name}"
        params[f"score{stage}"] = layer(key, channels, 1)
    if ours:
        norm = arrays.get("norm")
        if norm is None or norm.size != 3:
            missing.append("norm")
        else:
            params["mean"] = np.asarray(norm, np.float32).reshape(3)
        params["combine"] = {
            "kernel": np.full((1, 1, len(_STAGES), 1), 1 / len(_STAGES), np.float32),
            "bias": np.zeros(1, np.float32),
        }
    else:
        params["combine"] = layer(f"{prefix}Combine.0", len(_STAGES), 1)
        params["mean"] = np.array(_BGR_MEAN[::-1], np.float32)
        first = params["conv1_0"]
        params["conv1_0"] = {**first, "kernel": first["kernel"][:, :, ::-1]}
    coverage.report(missing, [], misshaped)
    return params


def edges(params: Params, image: jax.Array) -> jax.Array:
    """Returns how sure the network is of an edge; float32 `[B, H, W, 1]`, 0 to 1.

    Args:
      params: of `read`.
      image: `[B, H, W, 3]` in [-1, 1], sides of at least 16.

    Raises:
      InputError: a picture of another kind or too small.
    """
    height, width, channels = image.shape[1:]
    if channels != 3 or min(height, width) < 16:
        raise InputError(
            f"HED got {width}x{height} pixels of {channels} channels; want 3 channels "
            "and sides of at least 16"
        )
    x = (image + 1) * 127.5 - params["mean"][None, None, None]
    scores = []
    for stage, count in enumerate(_LAYERS, start=1):
        if stage > 1:
            x = nn.max_pool(x, (2, 2), (2, 2))
        for number in range(count):
            x = jax.nn.relu(_apply(params[f"conv{stage}_{number}"], x, 1))
        score = _apply(params[f"score{stage}"], x, 0)
        shape = (*image.shape[:3], 1)
        scores.append(jax.image.resize(score, shape, "bilinear", antialias=False))
    return jax.nn.sigmoid(
        _apply(params["combine"], jnp.concatenate(scores, axis=-1), 0)
    )


def _apply(layer: Params, x: jax.Array, padding: int) -> jax.Array:
    y = convolve(x, jnp.asarray(layer["kernel"]), padding=padding)
    return y + layer["bias"][None, None, None]
