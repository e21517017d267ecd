"""Weights of guided-diffusion's classifiers, which guide a U-Net to a class."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxpaint.convert import coverage
from jaxpaint.convert.coverage import Source
from jaxpaint.convert.repaint import (
    count_of,
    encoder_fields,
    guided_encoder,
    linear,
    norm,
)
from jaxpaint.errors import InputError


def convert_classifier(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the fields and `{"params": ..}` of a `Classifier`.

    The released ones have 64 channels a head and their query, key and value together,
    which no shape tells: where these are not so, replace `head_channels` and
    `joint_heads`.

    Raises:
      InputError: arrays of another network, or that do not fill ours exactly.
    """
    import jax

    from jaxpaint.diffusion.classifier import Classifier

    pool = _pool(arrays)
    levels, blocks = _layout(arrays)
    fields = encoder_fields(arrays, levels, blocks)
    size = 8 << (levels - 1)
    if pool == "attention":
        places = arrays["out.2.positional_embedding"].shape[-1]
        size = math.isqrt(places - 1) << (levels - 1)
    fields |= {
        "image_size": size,
        "classes": len(arrays[f"{_OUTPUTS[pool]}.weight"]),
        "pool": pool,
        "heads": 1,
        "head_channels": 64,
        "joint_heads": True,
        "resample_blocks": any(
            f"input_blocks.{(i + 1) * (blocks + 1)}.0.in_layers.0.weight" in arrays
            for i in range(levels - 1)
        ),
        "convolve_resampled": any(
            f"input_blocks.{(i + 1) * (blocks + 1)}.0.op.weight" in arrays
            for i in range(levels - 1)
        ),
    }
    network = Classifier(**fields)
    channels = arrays["input_blocks.0.0.weight"].shape[1]
    x = jax.ShapeDtypeStruct((1, size, size, channels), "float32")
    t = jax.ShapeDtypeStruct((1,), "int32")
    tree = jax.eval_shape(lambda x, t: network.init(jax.random.key(0), x, t), x, t)
    sources = dict(guided_encoder(fields)) | dict(_sources(pool))
    return fields, coverage.assemble(tree, arrays, sources)


_OUTPUTS = {
    "attention": "out.2.c_proj",
    "adaptive": "out.3",
    "spatial_v2": "out.3",
    "spatial": "out.2",
}
"""Names of the layer that gives the logits, by pool."""


def _pool(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the pool whose layers the arrays have."""
    if "output_blocks.0.0.in_layers.0.weight" not in arrays:
        if "out.2.positional_embedding" in arrays:
            return "attention"
        if "out.3.weight" in arrays:
            # The first layer of one is a norm, that of the other a matrix.
            first = arrays.get("out.0.weight", np.empty(0))
            return "adaptive" if first.ndim == 1 else "spatial_v2"
        if "out.2.weight" in arrays:
            return "spatial"
    raise InputError(
        "these are no weights of guided-diffusion's classifier: want input_blocks.0.0."
        "weight .. out.2.c_proj.weight or another pool, and no output_blocks"
    )


def _sources(pool: str) -> Iterator[tuple[str, Source]]:
    """Yields path and source of the pool's parameters."""
    yield from norm("norm", "out.1" if pool == "spatial_v2" else "out.0")
    key = "out.2.positional_embedding"
    yield "params.places", Source(key, lambda x: x.transpose(1, 0))
    yield from linear("pool_qkv", "out.2.qkv_proj")
    yield from linear("pool_hidden", "out.0")
    yield from linear("pool_out", _OUTPUTS[pool])


def _layout(arrays: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Returns the number of levels, and of blocks at each.

    Names do not tell a block that halves the sides from others. It is one without
    attention that keeps its channels, behind as many at each level that all have the
    same channels, and all attention or none. Of several answers that with most levels
    counts: released ones have 4 to 6 levels of 2 to 4 blocks.
    """
    count = count_of(arrays, "input_blocks")
    fitting = [
        (count // size, size - 1)
        for size in range(2, count + 1)
        if count % size == 0 and _fits(arrays, count, size)
    ]
    if not fitting:
        raise InputError(
            f"there are {count} input_blocks; want as many at each level, and a last "
            "one that halves the sides at each but the coarsest"
        )
    return fitting[0]


def _fits(arrays: Mapping[str, np.ndarray], count: int, size: int) -> bool:
    """Whether levels may have `size` blocks, the one that halves the sides included."""
    for start in range(1, count, size):
        level = [f"input_blocks.{i}" for i in range(start, start + size - 1)]
        names = [f"{key}.0.out_layers.3.weight" for key in level]
        if any(name not in arrays for name in names):
            return False
        if len({len(arrays[name]) for name in names}) > 1:
            return False
        if len({f"{key}.1.qkv.weight" in arrays for key in level}) > 1:
            return False
        if start + size > count:
            return True
        down = f"input_blocks.{start + size - 1}"
        changes = f"{down}.0.skip_connection.weight" in arrays
        if changes or f"{down}.1.qkv.weight" in arrays:
            return False
    return True
