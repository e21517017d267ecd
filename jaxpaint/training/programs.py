"""A configuration made into compiled programs and shardings."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint import config as configs
from jaxpaint import masks, methods, weights
from jaxpaint.config import Config
from jaxpaint.data import augment
from jaxpaint.errors import InputError
from jaxpaint.optimization import Network
from jaxpaint.training import costs
from jaxpaint.training import mesh as meshes
from jaxpaint.training import step as steps
from jaxpaint.types import Method


class Program(NamedTuple):
    """All that the loop runs; nothing in it is computed yet."""

    config: Config
    method: Method
    mesh: jax.sharding.Mesh
    state: Any
    """A `TrainState` of `ShapeDtypeStruct`s with shardings."""
    images: jax.ShapeDtypeStruct
    """The batch that the host delivers, uint8."""
    metric_names: list[str]
    initialize: Any
    """Jitted `() -> TrainState`, which is made in place on its devices."""
    advance: Any
    """Jitted `(state, tally, images) -> (state, tally, step)`; the first two are
    donated."""
    new_tally: Any
    """Jitted `() -> Tally`."""
    all_finite: Any
    """Jitted `state -> bool`."""


def method_of(config: Config) -> Method:
    """Returns the configured method.

    Raises:
      InputError: no such method or option, or one that cannot be trained.
    """
    options = dict(config.options)
    for name in ("optim", "compute"):
        if name in options:
            raise InputError(f"'options.{name}' is no option; set {name}.KEY=value")
    method = methods.make(config.method)
    if method.train_step is None:
        trainable = [n for n in methods.names() if methods.make(n).train_step]
        raise InputError(
            f"method '{config.method}' has nothing to train; want one of: "
            + ", ".join(trainable)
        )
    return methods.make(
        config.method, **options, optim=config.optim, compute=config.compute
    )


def build(config: Config, devices: Sequence[Any] | None = None) -> Program:
    """Returns the programs of a run on `devices`, by default all there are.

    Raises:
      InputError: a configuration that cannot be run.
    """
    configs.check(config)
    for kind in (*config.data.masks, *config.eval.masks):
        masks.parse(kind)
    method = method_of(config)
    data = config.data
    sizes = [data.batch_size // config.optim.microbatches]
    if data.validation and config.eval.every:
        sizes.append(config.eval.batch_size)
    mesh = meshes.make(config.mesh.fsdp, sizes, devices)
    side, size = data.load_size or data.image_size, data.image_size
    images = jax.ShapeDtypeStruct(
        (data.batch_size, side, side, 3), jnp.uint8, sharding=meshes.over_batch(mesh)
    )
    draw = functools.partial(augment.prepare, data=data)

    init = steps.initial(method, size, config.seed)
    shapes = jax.eval_shape(init)
    shardings = meshes.of_state(mesh, shapes, config.mesh.rules)
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        shardings,
    )
    # Traced once, here; `advance` finds it.
    step = jax.jit(steps.make(method, draw, config.seed))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        names = sorted(jax.eval_shape(step, state, images)[1])
    everywhere = meshes.replicated(mesh)

    def advance(state: steps.TrainState, tally: steps.Tally, images: jax.Array):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            state, metrics = step(state, images)
        return state, steps.add(tally, metrics, state.step), state.step

    def all_finite(state: steps.TrainState) -> jax.Array:
        leaves = [
            x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)
        ]
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))

    return Program(
        config,
        method,
        mesh,
        state,
        images,
        names,
        initialize=jax.jit(
            init, out_shardings=shardings, compiler_options=_compile_init()
        ),
        advance=jax.jit(
            advance,
            in_shardings=(shardings, everywhere, images.sharding),
            out_shardings=(shardings, everywhere, everywhere),
            donate_argnums=(0, 1),
        ),
        new_tally=jax.jit(lambda: steps.empty_tally(names), out_shardings=everywhere),
        all_finite=jax.jit(all_finite, out_shardings=everywhere),
    )


def _compile_init() -> dict[str, int] | None:
    """Returns how to compile what runs once: on a CPU many random numbers of different
    shapes would take minutes to be optimized."""
    cpu = jax.default_backend() == "cpu"
    return {"xla_backend_optimization_level": 0} if cpu else None


def lower(program: Program) -> jax.stages.Lowered:
    """Returns the step, lowered for its shapes and shardings."""
    tally = jax.eval_shape(program.new_tally)
    return program.advance.lower(program.state, tally, program.images)


def state_from(program: Program, path: str) -> Any:
    """Returns a fresh state that starts from the weights in a run folder or file.

    Optimizers start anew, and so do networks that inference does not need.

    Raises:
      InputError: no such weights, or those of another method or network.
    """
    config = program.config
    loaded = weights.read(Path(path))
    if loaded.method != config.method:
        raise InputError(
            f"init_from={path} holds weights of {loaded.method}; want {config.method}"
        )
    wanted = loaded._replace(
        options=dict(config.options), image_size=config.data.image_size
    )
    params = weights.fitting(wanted).params
    state = program.initialize()
    load_params = program.method.load_params
    if load_params is None:
        raise InputError(f"method '{config.method}' cannot start from weights")
    shardings = jax.tree.map(lambda x: x.sharding, program.state)
    start = jax.jit(
        lambda state, params: state._replace(inner=load_params(state.inner, params)),
        out_shardings=shardings,
        donate_argnums=0,
    )
    return start(state, params)


def networks(state: Any) -> dict[str, int]:
    """Returns the number of parameters of each network in a state, by its name."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        state.inner, is_leaf=lambda x: isinstance(x, Network)
    )
    return {
        meshes.path_name(path): sum(
            int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(node.params)
        )
        for path, node in found
        if isinstance(node, Network)
    }


def step_flops(program: Program, lowered: jax.stages.Lowered) -> float:
    """Returns the FLOPs of a step over all devices, as the compiler counts them.

    `lowered` is the program's step. One with microbatches is lowered anew without them:
    the compiler counts the body of a loop once.
    """
    if program.config.optim.microbatches > 1:
        optim = dataclasses.replace(program.config.optim, microbatches=1)
        lowered = lower(build(dataclasses.replace(program.config, optim=optim)))
    return costs.flops(lowered)
