"""What the converters of DeepFill v1 and v2 share: layers, and TensorFlow's names.

Both generators have the same layers, in the official code and here. They differ in
that half of what a layer of v2 computes is a gate.
"""

from collections.abc import Callable, Mapping

import numpy as np

from jaxpaint.convert.coverage import Source, conv

LAYERS = (
    *("conv1", "conv2_downsample", "conv3", "conv4_downsample", "conv5", "conv6"),
    *(f"conv{number}_atrous" for number in (7, 8, 9, 10)),
    *("conv11", "conv12", "conv13_upsample", "conv14", "conv15_upsample"),
    *("conv16", "conv17"),
    *("xconv1", "xconv2_downsample", "xconv3", "xconv4_downsample"),
    *("xconv5", "xconv6"),
    *(f"xconv{number}_atrous" for number in (7, 8, 9, 10)),
    *("pmconv1", "pmconv2_downsample", "pmconv3", "pmconv4_downsample"),
    *("pmconv5", "pmconv6", "pmconv9", "pmconv10"),
    *("allconv11", "allconv12", "allconv13_upsample", "allconv14"),
    *("allconv15_upsample", "allconv16", "allconv17"),
)

TENSORFLOW_IGNORED = (
    r"^discriminator/",
    r"/Adam(_\d+)?$",
    r"(^|/)(beta[12]_power|global_step|lr)(_\d+)?$",
)
"""The discriminators, and what the optimizer remembers."""


def is_tensorflow(arrays: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are variables of the official code, of v1 or v2."""
    return "inpaint_net/conv1/kernel" in arrays and "inpaint_net/xconv1/bias" in arrays


def is_gated(arrays: Mapping[str, np.ndarray]) -> bool:
    """Returns whether variables of the official code are those of v2."""
    second = arrays.get("inpaint_net/conv2_downsample/kernel")
    first = arrays["inpaint_net/conv1/kernel"]
    if second is None or second.ndim != 4:
        return False
    return second.shape[2] * 2 == first.shape[-1]


def tensorflow_sources() -> dict[str, Source]:
    """Returns where each parameter lies among variables of the official code."""
    found = {}
    for layer in LAYERS:
        inner = f"/{layer}_conv" if layer.endswith("_upsample") else ""
        for kind in ("kernel", "bias"):
            key = f"inpaint_net/{layer}{inner}/{kind}"
            found[f"params.{layer}.{kind}"] = Source(key)
    return found


def torch_sources(name: Callable[[str], str]) -> dict[str, Source]:
    """Returns where each parameter lies in a port to PyTorch.

    Args:
      name: gives that of the convolution for one of `LAYERS`.
    """
    found = {}
    for layer in LAYERS:
        found[f"params.{layer}.kernel"] = conv(f"{name(layer)}.weight")
        found[f"params.{layer}.bias"] = Source(f"{name(layer)}.bias")
    return found
