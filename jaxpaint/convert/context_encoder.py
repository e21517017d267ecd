"""Weights of Context Encoders: the PyTorch port of the released Torch7 models.

The layout is that of BoyuanJiang's `context_encoder_pytorch`: one numbered sequence
`main` of convolutions, batch norms and activations, for generator and discriminator.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxpaint.convert import Converted, coverage, template
from jaxpaint.errors import InputError

_IGNORED = (r"\.num_batches_tracked$",)


def recognizes(arrays: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are of a generator or discriminator of this kind."""
    return _is_ours(arrays) or _is_pytorch_gan(arrays)


def convert(arrays: Mapping[str, np.ndarray]) -> Converted:
    """Returns the generator, with the options that its shapes tell.

    The number of its layers tells the size of pictures, and whether it predicts their
    centre or all of them. The overlap cannot be seen: it is 4, as in the released
    models.

    Raises:
      InputError: a discriminator, the network of another project, or arrays that do
        not fill the generator exactly.
    """
    if _is_pytorch_gan(arrays):
        raise InputError(
            "these are weights of PyTorch-GAN's context_encoder, which is another "
            "network (no bottleneck, biases, patch discriminator); want those of "
            "context_encoder_pytorch, names main.0.weight to main.29.weight"
        )
    layers = _convolutions(arrays)
    if _is_discriminator(arrays, layers):
        raise InputError(
            "these are weights of a discriminator, with which nothing can be filled; "
            "want those of the generator, netG; to go on training with both see "
            "jaxpaint.convert.context_encoder.discriminator"
        )
    # n convolutions, the bottleneck twice, and n - 1 transposed ones; n for whole
    # pictures.
    count = (len(layers) - 1) // 2
    if count < 3:
        raise InputError(
            f"a generator has at least 7 convolutions, main.0.weight, main.2.weight, "
            f"main.5.weight ..; found {len(layers)}"
        )
    whole_image = len(layers) % 2 == 0
    image_size = 4 << count
    shapes = [arrays[key].shape for key in layers]
    options: dict[str, Any] = {
        "image_size": image_size,
        "whole_image": whole_image,
        "encoder_width": shapes[count - 1][0] // 8,
        "decoder_width": shapes[count + 1][1] // 8,
        "bottleneck": shapes[count][0],
    }
    ups = len(layers) - count - 2
    names = [
        *[f"encoder_{i}" for i in range(count)],
        "bottleneck",
        *[f"decoder_{i}" for i in range(ups)],
        "output",
    ]
    sources = _sources(layers, names, transposed=range(count + 1, len(layers)))
    tree = template("context_encoder", options, image_size)
    params = coverage.assemble(tree, arrays, sources, _IGNORED)
    return Converted("context_encoder", options, params, image_size)


def discriminator(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the variables of a discriminator, `{"params": .., "batch_stats": ..}`.

    Inference needs none; to go on training with a published pair, put them into the
    state: `state._replace(discriminator=state.discriminator._replace(params=..,
    stats=..))`.

    Raises:
      InputError: arrays that do not fill a discriminator exactly.
    """
    import jax

    from jaxpaint.methods._context_encoder_networks import Discriminator

    layers = _convolutions(arrays)
    if not _is_discriminator(arrays, layers):
        raise InputError(
            "these are no weights of a discriminator: its last convolution has one "
            "output"
        )
    count = len(layers) - 1
    patch_size = 4 << count
    network = Discriminator(patch_size, arrays[layers[-1]].shape[1] // 8)
    patch = jax.ShapeDtypeStruct((1, patch_size, patch_size, 3), "float32")
    tree = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, False), patch)
    names = [*[f"encoder_{i}" for i in range(count)], "output"]
    sources = _sources(layers, names, transposed=())
    return coverage.assemble(dict(tree), arrays, sources, _IGNORED)


def _sources(
    layers: Sequence[str], names: Sequence[str], transposed: Sequence[int]
) -> dict[str, coverage.Source]:
    """Returns the sources of a sequence of layers, where all have a batch norm but the
    first and the last.
    """
    sources = {}
    for i, (key, name) in enumerate(zip(layers, names, strict=True)):
        kernel = coverage.conv_transposed if i in transposed else coverage.conv
        if name == "output":
            sources["params.output.kernel"] = kernel(key)
            continue
        sources[f"params.{name}.conv.kernel"] = kernel(key)
        if i:
            norm = f"main.{_number(key) + 1}"
            sources |= coverage.batch_norm(f"{name}.norm", norm)
    return sources


def _convolutions(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the names of the convolution kernels in the order of the layers.

    The first two have numbers 0 and 2, and from there on every third number is one.
    """
    found = [
        _number(key)
        for key, array in arrays.items()
        if re.fullmatch(r"main\.\d+\.weight", key) and array.ndim == 4
    ]
    wanted = [0, *range(2, max(found, default=0) + 1, 3)]
    names = [f"main.{number}.weight" for number in wanted]
    coverage.report([key for key in names if key not in arrays], [], [])
    return names


def _number(key: str) -> int:
    return int(key.split(".")[1])


def _is_ours(arrays: Mapping[str, np.ndarray]) -> bool:
    first, second = (_shape(arrays, f"main.{i}.weight") for i in (0, 2))
    return first[1:] == (3, 4, 4) and second[2:] == (4, 4)


def _is_discriminator(arrays: Mapping[str, np.ndarray], layers: Sequence[str]) -> bool:
    return bool(layers) and arrays[layers[-1]].shape[0] == 1


def _is_pytorch_gan(arrays: Mapping[str, np.ndarray]) -> bool:
    first, squeeze, last = (_shape(arrays, f"model.{i}.weight") for i in (0, 14, 11))
    generator = first[1:] == (3, 4, 4) and squeeze[2:] == (1, 1)
    judge = first[1:] == (3, 3, 3) and last[:1] == (1,) and last[2:] == (3, 3)
    return "model.0.bias" in arrays and (generator or judge)


def _shape(arrays: Mapping[str, np.ndarray], key: str) -> tuple[int, ...]:
    return arrays[key].shape if key in arrays else ()
