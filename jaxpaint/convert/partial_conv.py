"""Weights of partial convolutions: naoto0804's port and open-mmlab's mmagic.

naoto0804's `pytorch-inpainting-with-partial-conv` divides by the number of known
entries without multiplying by the window's, and works on images with ImageNet's mean
and deviation. mmagic has a bias in the first layer and works on [-1, 1].
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxpaint.convert import Converted, coverage, template, within
from jaxpaint.errors import InputError

# All-ones kernels of the masks, and counters of steps.
_IGNORED = (
    r"\.mask_conv\.weight$",
    r"\.weight_mask_updater$",
    r"\.num_batches_tracked$",
)


class _Layout(NamedTuple):
    """How a project names its layers; `{}` stands for the number."""

    encoder: str
    decoder: str
    conv: str
    options: dict[str, Any]

    def kernel(self, block: str, number: int) -> str:
        name = (self.encoder if block == "enc" else self.decoder).format(number)
        return f"{name}.{self.conv}.weight"


_NAOTO = _Layout(
    "enc_{}", "dec_{}", "conv.input_conv", {"window_scale": False, "normalize": True}
)
_MMAGIC = _Layout("encoder.enc{}", "decoder.dec{}", "conv", {"first_bias": True})


def recognizes(arrays: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are of a network of either project."""
    return _layout(_generator(arrays)) is not None


def convert(arrays: Mapping[str, np.ndarray]) -> Converted:
    """Returns the network, with the options that its names and shapes tell.

    Of a whole mmagic model the part `generator.` is taken; its feature network for the
    losses may be there.

    Raises:
      InputError: the network of another project, or arrays that do not fill ours
        exactly.
    """
    arrays = _generator(arrays)
    layout = _layout(arrays)
    if layout is None:
        raise InputError(
            "these are no weights of partial convolutions as naoto0804 (enc_1.conv."
            "input_conv.weight) or mmagic (encoder.enc1.conv.weight) name them"
        )
    levels = 1
    while layout.kernel("enc", levels + 1) in arrays:
        levels += 1
    first, last = (arrays[layout.kernel("enc", i)].shape[0] for i in (1, levels))
    options = {"levels": levels, "width": first, "max_width": last, **layout.options}
    image_size = 2 ** (levels + 1)  # 256 for seven levels, 512 for eight
    tree = template("partial_conv", options, image_size)
    params = coverage.assemble(tree, arrays, _sources(layout, levels), _IGNORED)
    return Converted("partial_conv", options, params, image_size)


def _sources(layout: _Layout, levels: int) -> dict[str, coverage.Source]:
    sources = {}
    for block in ("enc", "dec"):
        for number in range(1, levels + 1):
            kernel = layout.kernel(block, number)
            bias = f"{kernel.removesuffix('.weight')}.bias"
            norm = f"{kernel.removesuffix(f'{layout.conv}.weight')}bn"
            path = f"{block}{number}"
            sources[f"params.{path}.conv.kernel"] = coverage.conv(kernel)
            sources[f"params.{path}.conv.bias"] = coverage.Source(bias)
            sources |= coverage.batch_norm(f"{path}.norm", norm)
    return sources


def _generator(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Returns the generator of a whole mmagic model; other networks as they are."""
    rest = [key for key in arrays if not re.match(r"generator\.|loss_percep\.", key)]
    found = within(arrays, "generator.")
    return arrays if rest or not found else found


def _layout(arrays: Mapping[str, np.ndarray]) -> _Layout | None:
    for layout in (_NAOTO, _MMAGIC):
        if all(layout.kernel(block, 1) in arrays for block in ("enc", "dec")):
            return layout
    return None
