"""Published weights of other projects as parameter trees: one file for each method.

The converter of a method is `jaxpaint/convert/<method>.py` with two pure functions:

- `recognizes(arrays) -> bool`: whether these names are of a network it knows; cheap.
- `convert(arrays) -> Converted`: infers the method's options from names and shapes,
  makes the `template(...)` of the method with them and fills it with
  `coverage.assemble`, which refuses whatever is left over.

`arrays` is the flat state dict: containers are unwrapped and the `module.` of
`DataParallel` is gone; `within` takes out the part under another prefix. Of a
TensorFlow checkpoint they are the variables, with the `/` in their names.

For folders of diffusers, `convert` also takes the contents of `config.json` and, or
None, `scheduler_config.json`.
"""

import importlib
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxpaint import safetensors, tf_checkpoint, torch_file
from jaxpaint.errors import InputError, unknown_name

_CONTAINERS = ("state_dict", "model", "netG", "generator", "params", "G")
"""Names under which files keep the state dict of the network that inference needs."""

_OF_DIFFUSERS = {"UNet2DModel": "repaint"}
"""The methods of networks of diffusers, by the names of their classes."""


class Converted(NamedTuple):
    """The weights of a method, ready for `Method.inpaint`."""

    method: str
    """A name out of `jaxpaint.names()`."""

    options: dict[str, Any]
    """For `jaxpaint.make`: what a file of this kind needs; JSON values and tuples."""

    params: dict[str, Any]
    """As `Method.eval_params` returns them; numpy arrays."""

    image_size: int
    """Side of square pictures that the network was made for."""


def names() -> list[str]:
    """Returns the names of the methods that have a converter, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if name != "coverage" and name[0] != "_")


def convert(path: Path | str, method: str | None = None) -> Converted:
    """Returns the weights that another project published.

    Args:
      path: a `.safetensors` file, a TensorFlow checkpoint as `tf_checkpoint.prefix_of`
        takes it, a file of `torch.save` with any other suffix, or a folder of
        diffusers: of the network, or of a pipeline that has it in `unet`.
      method: a name out of `names()`; by default the first that recognizes the file.

    Raises:
      InputError: a file that cannot be read, that no converter knows, or whose arrays
        do not fill the method's parameters exactly.
    """
    if method is not None and method not in names():
        raise unknown_name("converter", method, names())
    try:
        if Path(path).is_dir() and tf_checkpoint.prefix_of(Path(path)) is None:
            return _of_diffusers(Path(path), method)
        arrays = _read(Path(path))
        for name in [method] if method else names():
            converter = importlib.import_module(f"{__name__}.{name}")
            if method or converter.recognizes(arrays):
                return converter.convert(arrays)
        raise InputError(
            f"no method knows these weights, of which one is {next(iter(arrays))}; "
            f"known are those of {', '.join(names())}"
        )
    except InputError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise InputError(f"{where}{error}") from None


def is_published(folder: Path) -> bool:
    """Returns whether a folder holds what `convert` takes, and is not of a run."""
    diffusers = any(_class_name(path) for path in _configs(folder))
    return diffusers or tf_checkpoint.prefix_of(folder) is not None


def _configs(folder: Path) -> list[Path]:
    """Returns where the configuration of a network may lie."""
    return [folder / "config.json", folder / "unet" / "config.json"]


def _class_name(path: Path) -> str | None:
    """Returns what kind of network a file of diffusers configures; None: no such."""
    try:
        return json.loads(path.read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_diffusers(folder: Path, method: str | None) -> Converted:
    """Returns the weights in a folder; see `convert`."""
    found = [path for path in _configs(folder) if _class_name(path)]
    if not found:
        raise InputError(
            "no folder of diffusers: want config.json with a _class_name, and "
            "diffusion_pytorch_model.safetensors, here or in unet"
        )
    config = json.loads(found[0].read_text())
    kind = config["_class_name"]
    name = _OF_DIFFUSERS.get(kind)
    if name is None or method not in (None, name):
        wanted = [
            key for key, value in _OF_DIFFUSERS.items() if method in (None, value)
        ]
        known = f"known: {', '.join(wanted)}" if wanted else f"{method} has none there"
        raise InputError(f"config.json is of a network '{kind}' of diffusers; {known}")
    for suffix in (".safetensors", ".bin"):
        weights = found[0].with_name(f"diffusion_pytorch_model{suffix}")
        if weights.exists():
            converter = importlib.import_module(f"{__name__}.{name}")
            return converter.convert(
                _read(weights), config, _scheduler(found[0].parent)
            )
    raise InputError(
        "diffusion_pytorch_model.safetensors is missing beside config.json"
    )


def _scheduler(folder: Path) -> dict[str, Any] | None:
    """Returns the configuration of the scheduler beside a network, if there is any."""
    for path in (folder, folder / "scheduler", folder.parent / "scheduler"):
        if (path / "scheduler_config.json").exists():
            return json.loads((path / "scheduler_config.json").read_text())
    return None


def _read(path: Path) -> dict[str, np.ndarray]:
    """Returns the state dict in a file, or the variables of a checkpoint."""
    prefix = tf_checkpoint.prefix_of(path)
    if prefix is not None:
        return tf_checkpoint.load(prefix)
    if path.suffix == ".safetensors":
        return state_dict(safetensors.read(path)[0])
    return state_dict(torch_file.load(path))


def state_dict(loaded: Any) -> dict[str, np.ndarray]:
    """Returns the arrays by name out of what a file holds.

    Containers such as `{epoch, state_dict}` and `{n_iter, model, optimizer}` are
    unwrapped, and `module.` is removed where every name begins with it.

    Raises:
      InputError: no arrays, or something else beside them.
    """
    while isinstance(loaded, dict):
        inner = [loaded[n] for n in _CONTAINERS if isinstance(loaded.get(n), dict)]
        if not inner:
            break
        loaded = inner[0]
    if not isinstance(loaded, dict) or not any(
        isinstance(value, np.ndarray) for value in loaded.values()
    ):
        found = (
            ", ".join(map(str, list(loaded)[:5])) if isinstance(loaded, dict) else ""
        )
        raise InputError(
            f"no state dict found, but {f'{{{found}}}' if found else type(loaded)}; "
            f"want arrays by name, or a dict that has them under {_CONTAINERS[0]}"
        )
    arrays = {str(key): value for key, value in loaded.items()}
    for key, value in arrays.items():
        if not isinstance(value, np.ndarray):
            raise InputError(
                f"'{key}' is of type {type(value).__name__} among arrays by name; save "
                "the state dict alone"
            )
    parallel = all(key.startswith("module.") for key in arrays)
    return within(arrays, "module.") if parallel else arrays


def within(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Returns the arrays whose names begin with `prefix`, without it."""
    return {
        key.removeprefix(prefix): value
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def template(method: str, options: Mapping[str, Any], image_size: int) -> Any:
    """Returns the shapes and dtypes of a method's inference parameters.

    A tree of `jax.ShapeDtypeStruct` as `Method.eval_params` returns it, for square
    pictures with sides of `image_size`; nothing is computed.
    """
    import jax

    from jaxpaint import methods

    made = methods.make(method, **options)

    def init() -> Any:
        state = made.init(jax.random.key(0), methods.example(image_size))
        return made.eval_params(state)

    return jax.eval_shape(init)
