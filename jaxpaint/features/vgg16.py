"""VGG16 up to its third pooling (Simonyan & Zisserman 2015), weights of torchvision."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxpaint import convert, torch_file
from jaxpaint.convert import coverage
from jaxpaint.features import imagenet
from jaxpaint.layers.convolution import convolve
from jaxpaint.types import Params

# Numbers of the convolutions between the poolings, in torchvision's `features`.
_STAGES = ((0, 2), (5, 7), (10, 12, 14))


def read(path: Path | str) -> Params:
    """Returns the parameters, out of torchvision's `vgg16-*.pth`.

    Layers after the third pooling are left out, so a file cut there will do.

    Raises:
      InputError: a file that cannot be read, or that lacks a layer.
    """
    arrays = convert.state_dict(torch_file.load(path))
    missing, misshaped, params, inputs = [], [], {}, 3
    for number in (number for stage in _STAGES for number in stage):
        weight, bias = (
            arrays.get(f"features.{number}.{name}") for name in ("weight", "bias")
        )
        if weight is None or bias is None:
            missing.append(f"features.{number}")
        elif weight.shape[1:] != (inputs, 3, 3) or bias.shape != weight.shape[:1]:
            misshaped.append(f"features.{number}.weight is {list(weight.shape)}")
        else:
            inputs = weight.shape[0]
            params[f"conv{number}"] = {
                "kernel": np.asarray(weight.transpose(2, 3, 1, 0), np.float32),
                "bias": np.asarray(bias, np.float32),
            }
    coverage.report(missing, [], misshaped)
    return params


def maps(params: Params, image: jax.Array, dtype: Any = jnp.float32) -> list[jax.Array]:
    """Returns the outputs of the three poolings for images `[B, H, W, 3]` in [-1, 1].

    Their sides are a half, a quarter and an eighth, rounded down; of type `dtype`.
    """
    return pools(params, imagenet.normalize(image), dtype)


def pools(params: Params, x: jax.Array, dtype: Any = jnp.float32) -> list[jax.Array]:
    """Returns the outputs of the three poolings for normalized images."""
    found = []
    x = x.astype(dtype)
    for stage in _STAGES:
        for number in stage:
            layer = params[f"conv{number}"]
            x = convolve(x, layer["kernel"].astype(dtype), padding=1)
            x = jax.nn.relu(x + layer["bias"].astype(dtype)[None, None, None])
        x = nn.max_pool(x, (2, 2), (2, 2))
        found.append(x)
    return found
