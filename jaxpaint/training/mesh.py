"""Devices as a named mesh, and how arrays lie on it.

The step is one `jit` program with a global view: arrays carry `NamedSharding`s over an
Auto mesh and the compiler inserts the communication. (`pmap`, the older way, is kept by
JAX in maintenance mode only.) Rows of a batch are spread over both axes; `fsdp` also
cuts parameters and optimizer state.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxpaint.errors import InputError

DATA, FSDP = "data", "fsdp"


def make(
    fsdp: int, batch_sizes: Sequence[int], devices: Sequence[Any] | None = None
) -> jax.sharding.Mesh:
    """Returns the mesh `(data, fsdp)` of `devices`, by default all of all processes.

    Raises:
      InputError: `fsdp` does not divide the number of devices, or they do not divide
        one of the `batch_sizes`.
    """
    count = len(devices or jax.devices())
    if count % fsdp:
        raise InputError(
            f"mesh.fsdp is {fsdp}, which does not divide the {count} devices"
        )
    for size in batch_sizes:
        if size % count:
            raise InputError(
                f"a batch of {size} cannot be spread over {count} devices; want a "
                f"multiple, such as {-(-size // count) * count}"
            )
    # Auto axes: with Explicit ones, the default, a scan that starts from fresh noise
    # fails because its carry changes sharding.
    return jax.make_mesh(
        (count // fsdp, fsdp),
        (DATA, FSDP),
        axis_types=(AxisType.Auto,) * 2,
        devices=devices,
    )


def over_batch(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def path_name(path: Sequence[Any]) -> str:
    """Returns the path of a leaf as `generator/params/encoder/kernel`."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def of_state(
    mesh: jax.sharding.Mesh, state: Any, rules: Sequence[tuple[str, str]]
) -> Any:
    """Returns the sharding of each leaf of a state, by the first rule that applies.

    A leaf no rule applies to, and one without an axis that divides, is replicated.

    Raises:
      InputError: a rule is no regular expression.
    """
    try:
        compiled = [(re.compile(pattern), rule) for pattern, rule in rules]
    except re.error as error:
        raise InputError(f"mesh.rules: {error.pattern!r}: {error}") from error

    def sharding(path: Sequence[Any], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        name = path_name(path)
        rule = next((r for p, r in compiled if p.search(name)), "replicate")
        spec = _longest_axis(leaf.shape, mesh.shape[FSDP]) if rule == FSDP else ()
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(sharding, state)


SMALL = 1024
"""Leaves with fewer elements stay whole: cutting them saves nothing."""


def _longest_axis(shape: tuple[int, ...], parts: int) -> tuple[str | None, ...]:
    if math.prod(shape) < SMALL:
        return ()
    sizes = [size if size % parts == 0 else 0 for size in shape]
    if parts == 1 or not any(sizes):
        return ()
    axis = int(np.argmax(sizes))
    return (None,) * axis + (FSDP,)
