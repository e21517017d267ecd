"""Weights of DeepFill v2: the official ones, and those of nipponjo's port to PyTorch.

The official code is JiahuiYu's `generative_inpainting`, version 2, in TensorFlow; the
port is `deepfillv2-pytorch`, of whose two networks `networks_tf` is the official one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxpaint.convert import Converted, coverage, template
from jaxpaint.convert._deepfill import (
    TENSORFLOW_IGNORED,
    is_gated,
    is_tensorflow,
    tensorflow_sources,
    torch_sources,
)
from jaxpaint.errors import InputError

_IMAGE_SIZE = 256
"""Of all released models; shapes do not tell."""

_GUIDED_CHANNELS = 6
"""Of the input with a sketch: picture, sketch, ones, mask."""


def recognizes(arrays: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are of a network of version 2, or of its port."""
    tensorflow = is_tensorflow(arrays) and is_gated(arrays)
    return tensorflow or any(f(arrays) for f in (_is_port, _is_second, _is_judge))


def convert(arrays: Mapping[str, np.ndarray]) -> Converted:
    """Returns the generator, with the options that its shapes tell.

    The official weights know colors in the order blue, green, red. Those of the port
    are taken to know them as it reads pictures, red first. A discriminator and what an
    optimizer remembers may be there.

    Raises:
      InputError: the network of another project or of version 1, the port's second
        network, a discriminator, or arrays that do not fill ours exactly.
    """
    if _is_second(arrays):
        raise InputError(
            "these are weights of the second network of deepfillv2-pytorch (stage1, "
            "stage2), which pads and resizes in another way; want those of networks_tf"
        )
    if is_tensorflow(arrays):
        if not is_gated(arrays):
            raise InputError(
                "these are weights of DeepFill v1 (convolutions without gates); want "
                "the method deepfill_v1"
            )
        *_, channels, width = arrays["inpaint_net/conv1/kernel"].shape
        order = {"channel_order": "bgr"}
        sources, ignored = tensorflow_sources(), TENSORFLOW_IGNORED
    elif _is_port(arrays):
        width, channels = arrays["conv1.conv.weight"].shape[:2]
        order = {}
        sources, ignored = torch_sources(_name), ()
    elif _is_judge(arrays):
        raise InputError(
            "these are weights of a discriminator, with which nothing can be filled; "
            "want those of the generator"
        )
    else:
        raise InputError(
            "these are no weights of DeepFill v2 as the official code (inpaint_net/"
            "conv1/kernel) or nipponjo (allconv17.conv.weight) name them"
        )
    options: dict[str, Any] = {"width": width, **order}
    if channels == _GUIDED_CHANNELS:
        options["guided"] = True
    tree = template("deepfill_v2", options, _IMAGE_SIZE)
    params = coverage.assemble(tree, arrays, sources, ignored)
    return Converted("deepfill_v2", options, params, _IMAGE_SIZE)


def _is_port(arrays: Mapping[str, np.ndarray]) -> bool:
    return "conv1.conv.weight" in arrays and "allconv17.conv.weight" in arrays


def _is_second(arrays: Mapping[str, np.ndarray]) -> bool:
    return "stage1.conv1.conv.weight" in arrays


def _is_judge(arrays: Mapping[str, np.ndarray]) -> bool:
    return "conv1.conv_sn.weight" in arrays


def _name(layer: str) -> str:
    """Returns the port's name of a layer's convolution."""
    return f"{layer}.conv.conv" if layer.endswith("_upsample") else f"{layer}.conv"
