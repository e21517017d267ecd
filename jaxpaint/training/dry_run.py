"""What a run would cost and how it would be spread, without training."""

import math
from collections.abc import Iterator

import jax

from jaxpaint.config import Config
from jaxpaint.training import costs, programs
from jaxpaint.training import mesh as meshes


def describe(config: Config) -> Iterator[str]:
    """Yields the lines of `--dry-run`; compiles the step, computes nothing.

    Raises:
      InputError: a configuration that cannot be run.
    """
    program = programs.build(config)
    mesh = dict(program.mesh.shape)
    devices = jax.devices()
    yield f"method     {config.method} {dict(config.options) or ''}".rstrip()
    yield f"devices    {len(devices)} {devices[0].device_kind}, mesh {mesh}"
    side, size = program.images.shape[1], config.data.image_size
    yield (
        f"batch      {config.data.batch_size} pictures of {side}x{side}, seen at "
        f"{size}x{size}; {config.data.batch_size // len(devices)} on each device"
    )
    for name, count in programs.networks(program.state).items():
        yield f"parameters {name or 'network'} {count:,}"
    lowered = programs.lower(program)
    flops = programs.step_flops(program, lowered)
    yield f"FLOPs      {flops:.4g} a step, as the compiler counts them"
    sizes = costs.memory(lowered.compile())
    if sizes:
        held = sizes["arguments"] + sizes["outputs"] - sizes["shared"]
        yield (
            f"memory     {_mega(held + sizes['temporary'])} on each device: "
            f"{_mega(held)} state and batch, {_mega(sizes['temporary'])} for the step"
        )
    yield "metrics    " + ", ".join(program.metric_names)
    yield "state      (path, shape, dtype, sharding)"
    leaves, _ = jax.tree_util.tree_flatten_with_path(program.state)
    total = 0
    for path, leaf in leaves:
        spec = leaf.sharding.spec
        cut = ", ".join(str(axis) for axis in spec) if any(spec) else "replicated"
        shape = "x".join(str(n) for n in leaf.shape) or "scalar"
        yield f"  {meshes.path_name(path)}  {shape}  {leaf.dtype}  {cut}"
        total += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    yield f"state      {_mega(total)} on each device"


def _mega(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB"
