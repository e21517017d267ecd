"""Weights of learned methods in files: with the method and options they belong to.

A file that jaxpaint writes is a safetensors file with dotted names. Its metadata holds
`format` ("jaxpaint"), `format_version`, `jaxpaint_version`, `method`, `image_size`,
`options` (JSON), and for a trained network `step` and `config` (JSON).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxpaint import safetensors
from jaxpaint.config import tuples
from jaxpaint.convert import convert, is_published, template
from jaxpaint.convert.coverage import Source, assemble, leaves, nest
from jaxpaint.errors import InputError
from jaxpaint.version import __version__

_FORMAT_VERSION = "1"

_METADATA = (
    *("format", "format_version", "jaxpaint_version"),
    *("method", "options", "image_size"),
)
"""What every file says, beside what it may say about its origin."""


class Weights(NamedTuple):
    """What `jaxpaint.inpaint` needs of a learned method."""

    method: str
    """A name out of `jaxpaint.names()`."""

    options: dict[str, Any]
    """Of the method, by name."""

    params: dict[str, Any]
    """Nested dicts of arrays."""

    image_size: int
    """Side of the square pictures that the network was made for."""

    about: Mapping[str, str] = {}
    """Further texts: `step` and `config` of the training run, or `source`."""


def load(path: Path | str) -> Weights:
    """Returns the weights in a file or a run folder, on the default device.

    Args:
      path: a `.safetensors` file of `jaxpaint export` or `jaxpaint convert`, the folder
        of a training run (its best checkpoint, otherwise the latest), one of its
        `checkpoints/<step>`, or a published file or folder that `jaxpaint.convert`
        knows.

    Raises:
      InputError: nothing of that, damage, or arrays that do not fit the method.
    """
    import jax

    weights = read(path)
    return weights._replace(params=jax.device_put(weights.params))


def read(path: Path | str) -> Weights:
    """Returns what `load` does, as numpy arrays that may be mapped into memory."""
    path = Path(path)
    if path.is_dir():
        if path.parent.name == "checkpoints" and path.name.isdigit():
            return of_run(path.parent.parent, int(path.name))
        if not is_published(path):
            return of_run(path)
    if path.suffix == ".safetensors":
        arrays, metadata = safetensors.read(path)
        if metadata.get("format") == "jaxpaint":
            try:
                return fitting(_described(nest(arrays), metadata))
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
    return Weights(*convert(path), about={"source": path.name})


def write(path: Path | str, weights: Weights) -> None:
    """Writes weights as a safetensors file, whole or not at all.

    Raises:
      InputError: the disk refuses.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in leaves(weights.params)}
    metadata = {
        "format": "jaxpaint",
        "format_version": _FORMAT_VERSION,
        "jaxpaint_version": __version__,
        "method": weights.method,
        "options": json.dumps(weights.options),
        "image_size": str(weights.image_size),
    }
    safetensors.write(path, arrays, {**weights.about, **metadata})


def halved(weights: Weights) -> Weights:
    """Returns the weights with float32 arrays as float16; reading makes them float32.

    Raises:
      InputError: a value that float16 does not hold.
    """

    def half(path: str, leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        if array.dtype != np.float32:
            return array
        if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
            raise InputError(f"{path} has values beyond 65504, the largest of float16")
        return array.astype(np.float16)

    arrays = {name: half(name, leaf) for name, leaf in leaves(weights.params)}
    return weights._replace(params=nest(arrays))


def fitting(weights: Weights) -> Weights:
    """Returns the weights with parameters in the order and dtypes of the method.

    Raises:
      InputError: no such method or option, or parameters that are missing, unexpected
        or misshaped for them; all in one line.
    """
    size = weights.options.get("image_size", weights.image_size)
    wanted = template(weights.method, weights.options, size)
    sources = {name: Source(name) for name, _ in leaves(wanted)}
    arrays = dict(leaves(weights.params))
    return weights._replace(params=assemble(wanted, arrays, sources))


def of_run(run: Path, step: int | str | None = None) -> Weights:
    """Returns the weights that a training run has reached.

    Args:
      run: its folder.
      step: number of a checkpoint, `best` or `latest`; None: the best if there is one,
        otherwise the latest.

    Raises:
      InputError: no run, no such checkpoint, or a damaged one.
    """
    import jax

    from jaxpaint import config as configs
    from jaxpaint.training import checkpoints, programs
    from jaxpaint.training import step as steps

    config = checkpoints.read_config(run)
    if config is None:
        raise InputError(
            f"{run} is no run of training: there is no {checkpoints.CONFIG} in it"
        )
    if step is None or step == "best":
        best = checkpoints.best_step(run, config.checkpoint)
        if best is None and step == "best":
            raise InputError(f"{run} has no best checkpoint: none was evaluated")
        step = "latest" if best is None else best
    found = checkpoints.steps(run)
    if not found:
        raise InputError(f"{run} has no checkpoint yet")
    number = found[-1] if step == "latest" else step
    if number not in found:
        raise InputError(
            f"{run} has no checkpoint {number}; it has {', '.join(map(str, found))}"
        )
    method = programs.method_of(config)
    size = config.data.image_size
    state = jax.eval_shape(steps.initial(method, size, config.seed))
    state = checkpoints.restore_on_host(run, int(number), state)
    params = jax.tree.map(np.asarray, method.eval_params(state.inner))
    about = {"step": str(number), "config": configs.to_json(config).strip()}
    return Weights(config.method, dict(config.options), params, size, about)


def _described(params: dict[str, Any], metadata: Mapping[str, str]) -> Weights:
    """Returns weights as the metadata of their file tells; not checked yet."""
    version = metadata.get("format_version")
    if version != _FORMAT_VERSION:
        raise InputError(
            f"it has format version {version}, but jaxpaint {__version__} reads "
            f"{_FORMAT_VERSION}: update jaxpaint"
        )
    try:
        options = {k: tuples(v) for k, v in json.loads(metadata["options"]).items()}
        size, method = int(metadata["image_size"]), metadata["method"]
    except (KeyError, AttributeError, ValueError) as error:
        raise InputError(f"its metadata is incomplete: {error}") from None
    about = {k: v for k, v in metadata.items() if k not in _METADATA}
    return Weights(method, options, params, size, about)
