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
from jaxpaint.convert.coverage import Source
from jaxpaint.errors import InputError
from jaxpaint.layers.convolution import convolve
from jaxpaint.types import Params

_STAGES = ("One", "Two", "Thr", "Fou", "Fiv")
_LAYERS = (2, 2, 3, 3, 3)
_ANY = (".",)
"""Names that may stay unused: a file may hold more than edges need."""
_BGR_MEAN = (104.00698793, 116.66876762, 122.67891434)


def read(path: Path | str) -> Params:
    """Returns the parameters, out of one of two files of PyTorch.

    `network-bsds500.pytorch` of pytorch-hed has the authors' weights, which see blue
    first; `ControlNetHED.pth` of ControlNet was trained anew, under the Apache
    licence, and weighs its stages equally.

    Raises:
      InputError: a file that cannot be read, or whose layers are others.
    """
    arrays = convert.state_dict(torch_file.load(path))
    equal = any(key.startswith("block1.") for key in arrays)
    prefix = "module" if "moduleVggOne.0.weight" in arrays else "net"
    template, sources = {}, {}

    def layer(name: str, key: str, inputs: int, size: int) -> int:
        """Asks for a layer; returns how many channels the file has for it."""
        channels = len(arrays.get(f"{key}.weight", ()))
        template[name] = {
            "kernel": np.empty((size, size, inputs, channels), np.float32),
            "bias": np.empty(channels, np.float32),
        }
        sources[f"{name}.kernel"] = coverage.conv(f"{key}.weight")
        sources[f"{name}.bias"] = Source(f"{key}.bias")
        return channels

    channels = 3
    for stage, (name, count) in enumerate(zip(_STAGES, _LAYERS, strict=True), start=1):
        for number in range(count):
            # There a pooling is the first of a stage, and each layer has a ReLU.
            place = 2 * number + (stage > 1)
            key = f"{prefix}Vgg{name}.{place}"
            key = f"block{stage}.convs.{number}" if equal else key
            channels = layer(f"conv{stage}_{number}", key, channels, 3)
        key = f"block{stage}.projection" if equal else f"{prefix}Score{name}"
        layer(f"score{stage}", key, channels, 1)
    if equal:
        template["mean"] = np.empty(3, np.float32)
        sources["mean"] = Source("norm", np.ravel)
        share = np.full((1, 1, len(_STAGES), 1), 1 / len(_STAGES), np.float32)
        combine = {"kernel": share, "bias": np.zeros(1, np.float32)}
        return {
            **coverage.assemble(template, arrays, sources, _ANY),
            "combine": combine,
        }
    layer("combine", f"{prefix}Combine.0", len(_STAGES), 1)
    blue = sources["conv1_0.kernel"]
    sources["conv1_0.kernel"] = Source(
        blue.key, lambda x: blue.transform(x)[:, :, ::-1]
    )
    mean = np.array(_BGR_MEAN[::-1], np.float32)
    return {**coverage.assemble(template, arrays, sources, _ANY), "mean": mean}


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
