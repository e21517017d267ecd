"""Weights of DeepFill v1: the official ones, and those of daa233's port to PyTorch.

The official code is JiahuiYu's `generative_inpainting`, version 1, in TensorFlow; the
port is `generative-inpainting-pytorch`, whose conversions of the official weights have
names that begin with `netG.`, and whose own checkpoints lack that.
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
"""Of all released models; shapes of the generator do not tell."""

_PREFIXES = ("netG.", "")


def recognizes(arrays: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are of a network of version 1."""
    tensorflow = is_tensorflow(arrays) and not is_gated(arrays)
    return tensorflow or _prefix(arrays) is not None


def convert(arrays: Mapping[str, np.ndarray]) -> Converted:
    """Returns the generator, with its width as the shapes tell.

    The official weights know colors in the order blue, green, red. Those of the port
    are taken to know them as it reads pictures, red first. Critics and what an
    optimizer remembers may be there.

    Raises:
      InputError: the network of another project or of version 2, or arrays that do not
        fill ours exactly.
    """
    prefix = _prefix(arrays)
    if is_tensorflow(arrays):
        if is_gated(arrays):
            raise InputError(
                "these are weights of DeepFill v2 (gated convolutions); want the "
                "method deepfill_v2"
            )
        width = arrays["inpaint_net/conv1/kernel"].shape[-1]
        options: dict[str, Any] = {"width": width, "channel_order": "bgr"}
        sources, ignored = tensorflow_sources(), TENSORFLOW_IGNORED
    elif prefix is not None:
        width = arrays[_name("conv1", prefix) + ".weight"].shape[0]
        options = {"width": width}
        sources = torch_sources(lambda layer: _name(layer, prefix))
        ignored = (r"^(localD|globalD)\.",)
    else:
        raise InputError(
            "these are no weights of DeepFill v1 as the official code (inpaint_net/"
            "conv1/kernel) or daa233 (coarse_generator.conv1.conv.weight) name them"
        )
    tree = template("deepfill_v1", options, _IMAGE_SIZE)
    params = coverage.assemble(tree, arrays, sources, ignored)
    return Converted("deepfill_v1", options, params, _IMAGE_SIZE)


def _prefix(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns how names of the port's generator begin here; None: it is another one."""
    found = [p for p in _PREFIXES if f"{_name('conv1', p)}.weight" in arrays]
    return found[0] if found else None


def _name(layer: str, prefix: str) -> str:
    """Returns the port's name of a layer's convolution."""
    network = "coarse" if layer.startswith("conv") else "fine"
    layer = layer.removesuffix("_upsample").removeprefix("x")
    return f"{prefix}{network}_generator.{layer}.conv"
