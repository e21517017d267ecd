"""Weights of GLCIC: otenim's port and open-mmlab's mmagic.

otenim's `GLCIC-PyTorch` has biases and normalizes behind the ReLU; its two networks lie
in two files. mmagic's `GLInpaintor` works on [-1, 1] with gray holes and clips.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxpaint.convert import Converted, coverage, template, within
from jaxpaint.convert.coverage import Source
from jaxpaint.errors import InputError

_IGNORED = (r"\.num_batches_tracked$",)


class _Layout(NamedTuple):
    """How a project names its layers; `{}` stands for the number, from 1."""

    layers: tuple[str, ...]
    """Convolutions of the completion network, in order."""
    norm: tuple[str, str]
    """What in the name of a convolution becomes what in that of its norm."""
    branches: tuple[str, str]
    """Convolutions of the global and the local discriminator."""
    dense: str
    """Their last layer, out of what `branches` have before the first dot and the
    number of the layer."""
    output: str
    """The layer that joins both."""
    local_first: bool
    """Whether that takes the local discriminator's features first."""
    options: dict[str, Any]
    image_size: int


_OTENIM = _Layout(
    layers=tuple(
        f"{'deconv' if number in (13, 15) else 'conv'}{number}"
        for number in range(1, 18)
    ),
    norm=(r"(de)?conv(\d+)$", r"bn\2"),
    branches=("model_gd.conv{}", "model_ld.conv{}"),
    dense="{}.linear{}",
    output="linear1",
    local_first=True,
    # The published weights are of faces, and the color that stands for unknown pixels
    # is the mean of those; files do not tell.
    options={"norm_last": True, "local_size": 96, "mean": (0.013, -0.148, -0.234)},
    image_size=160,
)
_MMAGIC = _Layout(
    layers=(
        *(f"encoder.enc{i}.conv" for i in range(1, 7)),
        *(f"dilation_neck.dilation_convs.{i}.conv" for i in range(4)),
        *(f"decoder.dec{i}.conv" for i in range(1, 8)),
    ),
    norm=(r"conv$", "bn"),
    branches=("global_disc.conv{}.conv", "local_disc.conv{}.conv"),
    dense="{}.fc.linear",
    output="fc",
    local_first=False,
    options={"sigmoid": False},
    image_size=256,
)
_LAYOUTS = (_OTENIM, _MMAGIC)

LAYERS = (
    *(f"encoder_{i}" for i in range(6)),
    *(f"dilated_{i}" for i in range(4)),
    *(f"decoder_{i}" for i in range(6)),
    "output",
)
"""Our names of the layers of the completion network."""


def recognizes(arrays: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are of either network of either project."""
    arrays = _part(arrays, "generator.")
    return _completion(arrays) is not None or _judge(arrays) is not None


def convert(arrays: Mapping[str, np.ndarray]) -> Converted:
    """Returns the completion network, with the options that names and shapes tell.

    Of a whole mmagic model the part `generator.` is taken; its discriminators, `disc.`,
    may be there. Files do not tell the color of holes, nor the size of pictures: they
    are those of the published weights.

    Raises:
      InputError: discriminators, the network of another project, or arrays that do not
        fill ours exactly.
    """
    arrays = _part(arrays, "generator.")
    layout = _completion(arrays)
    if layout is None:
        if _judge(arrays):
            raise InputError(
                "these are weights of discriminators, with which nothing can be "
                "filled; want those of the completion network; to go on training with "
                "both see jaxpaint.convert.glcic.discriminator"
            )
        raise InputError(
            "these are no weights of GLCIC as otenim (conv1.weight .. conv17.weight) "
            "or mmagic (encoder.enc1.conv.weight, dilation_neck ..) name them"
        )
    width = arrays[f"{layout.layers[0]}.weight"].shape[0]
    options = {"image_size": layout.image_size, "width": width, **layout.options}
    sources = {}
    for name, key in zip(LAYERS, layout.layers, strict=True):
        sources |= _layer(
            name, key, layout, transposed=name in ("decoder_2", "decoder_4")
        )
    tree = template("glcic", options, layout.image_size)
    params = coverage.assemble(tree, arrays, sources, _IGNORED)
    return Converted("glcic", options, params, layout.image_size)


def discriminator(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the variables of discriminators, `{"params": .., "batch_stats": ..}`.

    Of a whole mmagic model the part `disc.` is taken. Inference needs none; docs/
    glcic.md tells how to go on training with them.

    Raises:
      InputError: arrays that do not fill discriminators exactly.
    """
    import jax

    from jaxpaint.methods._glcic_networks import Discriminator

    arrays = _part(arrays, "disc.")
    layout = _judge(arrays)
    if layout is None:
        raise InputError(
            "these are no weights of GLCIC's discriminators as otenim (model_gd.conv1"
            ".weight) or mmagic (global_disc.conv1.conv.weight) name them"
        )
    sources, counts, sides = {}, [], []
    features = arrays[f"{layout.output}.weight"].shape[1] // 2
    for name, pattern in zip(("global", "local"), layout.branches, strict=True):
        keys = [pattern.format(number) for number in range(1, 9)]
        keys = [key for key in keys if f"{key}.weight" in arrays]
        for i, key in enumerate(keys):
            sources |= _layer(f"{name}.encoder_{i}", key, layout)
        count, channels = len(keys), arrays[f"{keys[-1]}.weight"].shape[0]
        dense = layout.dense.format(pattern.split(".")[0], count + 1)
        coverage.report([k for k in [f"{dense}.weight"] if k not in arrays], [], [])
        sources[f"params.{name}.dense.kernel"] = _flattened(f"{dense}.weight", channels)
        sources[f"params.{name}.dense.bias"] = Source(f"{dense}.bias")
        counts.append(count)
        flat = arrays[f"{dense}.weight"].shape[1]
        sides.append(math.isqrt(flat // channels) << count)
    turned = features if layout.local_first else 0
    sources["params.output.kernel"] = Source(
        f"{layout.output}.weight", lambda x: np.roll(x, turned, axis=1).T
    )
    sources["params.output.bias"] = Source(f"{layout.output}.bias")
    network = Discriminator(
        global_levels=counts[0],
        local_levels=counts[1],
        width=arrays[f"{layout.branches[0].format(1)}.weight"].shape[0],
        features=features,
        norm_last=bool(layout.options.get("norm_last")),
    )
    shapes = [jax.ShapeDtypeStruct((1, side, side, 3), "float32") for side in sides]
    tree = jax.eval_shape(
        lambda *x: network.init(jax.random.key(0), *x, False), *shapes
    )
    return coverage.assemble(dict(tree), arrays, sources, _IGNORED)


def _layer(
    path: str, key: str, layout: _Layout, *, transposed: bool = False
) -> dict[str, Source]:
    """Returns the sources of a convolution and its norm; the last one has no norm."""
    kernel = coverage.conv_transposed if transposed else coverage.conv
    if path == "output":
        return {
            "params.output.kernel": kernel(f"{key}.weight"),
            "params.output.bias": Source(f"{key}.bias"),
        }
    return {
        f"params.{path}.conv.kernel": kernel(f"{key}.weight"),
        f"params.{path}.conv.bias": Source(f"{key}.bias"),
        **coverage.batch_norm(f"{path}.norm", re.sub(*layout.norm, key)),
    }


def _flattened(key: str, channels: int) -> Source:
    """Returns the source of a dense layer on flattened maps.

    Those were flattened as channels, rows, columns; ours are with channels last.
    """

    def transform(x: np.ndarray) -> np.ndarray:
        side = math.isqrt(x.shape[1] // channels)
        maps = x.reshape(len(x), channels, side, side)
        return maps.transpose(2, 3, 1, 0).reshape(-1, len(x))

    return Source(key, transform)


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> Mapping[str, np.ndarray]:
    """Returns one network of a whole mmagic model; other files as they are."""
    whole = all(re.match(r"(generator|disc)\.", key) for key in arrays)
    return within(arrays, prefix) if whole else arrays


def _completion(arrays: Mapping[str, np.ndarray]) -> _Layout | None:
    wanted = [[layout.layers[i] for i in (0, 9, 12)] for layout in _LAYOUTS]
    return _found(arrays, wanted)


def _judge(arrays: Mapping[str, np.ndarray]) -> _Layout | None:
    wanted = [
        [*(name.format(1) for name in layout.branches), layout.output]
        for layout in _LAYOUTS
    ]
    return _found(arrays, wanted)


def _found(
    arrays: Mapping[str, np.ndarray], wanted: Sequence[Sequence[str]]
) -> _Layout | None:
    """Returns the layout all of whose wanted layers are there."""
    for layout, names in zip(_LAYOUTS, wanted, strict=True):
        if all(f"{name}.weight" in arrays for name in names):
            return layout
    return None
