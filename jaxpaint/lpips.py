"""LPIPS, version 0.1: the learned distance of two pictures (Zhang et al. 2018).

The trunk is AlexNet (what most papers mean) or VGG16, of torchvision's files; a linear
layer weighs the channels of five of its maps. Neither comes with jaxpaint: the trunk is
a file of the user's, the linear weights are in the package `lpips`.
"""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxpaint import convert, torch_file
from jaxpaint.convert import coverage
from jaxpaint.errors import InputError
from jaxpaint.layers.convolution import convolve
from jaxpaint.types import Params

SIDE = 32
"""Pixels that pictures have on each side, at least."""

# Equation 1 compares unit vectors; as in the published code, 0 stays 0.
_FLOOR = 1e-10

_MEAN = np.array([-0.030, -0.088, -0.188], np.float32)
_DEVIATION = np.array([0.458, 0.448, 0.450], np.float32)


class _Trunk(NamedTuple):
    """A network of torchvision, as far as LPIPS needs it."""

    name: str
    stages: tuple[tuple[int, ...], ...]
    """Numbers of the convolutions whose last one's ReLU is a map, in `features`."""
    pooled: tuple[int, ...]
    """The stages that begin with a pooling."""
    pool: int
    """Side of its windows; their stride is 2."""
    first: tuple[int, int]
    """Stride and padding of the first convolution; others have 1 and `same`."""


_TRUNKS = {
    11: _Trunk("alex", ((0,), (3,), (6,), (8,), (10,)), (1, 2), 3, (4, 2)),
    3: _Trunk(
        "vgg",
        ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
        (1, 2, 3, 4),
        2,
        (1, 1),
    ),
}
"""By the side of the first kernel."""


def read(trunk: Path | str, linear: Path | str | None = None) -> Params:
    """Returns the parameters of `distance`.

    Args:
      trunk: torchvision's `alexnet-*.pth` or `vgg16-*.pth`.
      linear: `alex.pth` or `vgg.pth` of version 0.1; by default that in an installed
        package `lpips`.

    Raises:
      InputError: a file that cannot be read, lacks a layer, or is of another network.
    """
    arrays = convert.state_dict(torch_file.load(trunk))
    first = arrays.get("features.0.weight")
    if first is None or first.ndim != 4 or first.shape[-1] not in _TRUNKS:
        raise InputError(
            f"{trunk} is neither AlexNet nor VGG16 of torchvision: want features.0.."
        )
    network = _TRUNKS[first.shape[-1]]
    numbers = [number for stage in network.stages for number in stage]
    kinds = ("weight", "bias")
    wanted = [f"features.{number}.{kind}" for number in numbers for kind in kinds]
    coverage.report([key for key in wanted if key not in arrays], [], [])
    weights = convert.state_dict(torch_file.load(linear or _installed(network.name)))
    lines = [f"lin{i}.model.1.weight" for i in range(len(network.stages))]
    coverage.report([key for key in lines if key not in weights], [], [])
    params: dict[str, np.ndarray] = {}
    for number in numbers:
        kernel = arrays[f"features.{number}.weight"].transpose(2, 3, 1, 0)
        params[f"kernel{number}"] = np.asarray(kernel, np.float32)
        params[f"bias{number}"] = np.asarray(arrays[f"features.{number}.bias"], "f4")
    for i, (key, stage) in enumerate(zip(lines, network.stages, strict=True)):
        line = np.asarray(weights[key], np.float32).reshape(-1)
        if len(line) != len(params[f"bias{stage[-1]}"]):
            raise InputError(
                f"{linear or 'package lpips'}: {key} has {len(line)} weights; want "
                f"{len(params[f'bias{stage[-1]}'])}, those of {network.name}.pth"
            )
        params[f"line{i}"] = line
    return params


def _installed(name: str) -> Path:
    """Returns the linear weights in the package `lpips`, without importing it."""
    found = importlib.util.find_spec("lpips")
    if found is None or found.origin is None:
        raise InputError(
            f"no linear weights of LPIPS; give {name}.pth of version 0.1, or "
            "pip install --no-deps lpips"
        )
    return Path(found.origin).parent / "weights" / "v0.1" / f"{name}.pth"


def distance(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the distance of pictures `[B, H, W, 3]` in [-1, 1], pair by pair: `[B]`.

    Equation 1: maps are made unit vectors at each pixel; their squared differences,
    weighted by channel, are averaged over pixels and added over the five maps. Pictures
    have at least `SIDE` pixels a side.
    """
    network = _TRUNKS[params["kernel0"].shape[0]]
    maps = _maps(network, params, jnp.concatenate([x, y]))
    total = jnp.zeros(len(x))
    for i, found in enumerate(maps):
        norm = jnp.sqrt(jnp.sum(jnp.square(found), axis=-1, keepdims=True))
        one, other = jnp.split(found / (norm + _FLOOR), 2)
        weighted = jnp.square(one - other) @ params[f"line{i}"]
        total += jnp.mean(weighted, axis=(1, 2))
    return total


def _maps(network: _Trunk, params: Params, x: jax.Array) -> list[jax.Array]:
    mean, deviation = (jnp.asarray(v)[None, None, None] for v in (_MEAN, _DEVIATION))
    x = (x - mean) / deviation
    found = []
    for i, stage in enumerate(network.stages):
        if i in network.pooled:
            x = nn.max_pool(x, (network.pool,) * 2, (2, 2))
        for number in stage:
            kernel = params[f"kernel{number}"]
            stride, padding = network.first if number == 0 else (1, len(kernel) // 2)
            x = convolve(x, jnp.asarray(kernel), stride=stride, padding=padding)
            x = nn.relu(x + params[f"bias{number}"][None, None, None])
        found.append(x)
    return found
