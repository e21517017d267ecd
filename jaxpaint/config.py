"""The configuration of a training run: frozen dataclasses, files, overrides.

A configuration file is Python with a function `config() -> Config`; its docstring gives
the command, hardware, time and expected score. Nothing here imports jax.
"""

import ast
import dataclasses
import json
import runpy
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxpaint.errors import InputError, unknown_name


@dataclass(frozen=True)
class Data:
    """Where the pictures come from and how they reach the training step."""

    train: str = ""
    """A folder, `tfds:NAME/SPLIT`, `tfds:FOLDER/SPLIT` or `synthetic:COUNT`."""
    validation: str = ""
    """Likewise; empty: no validation."""
    tfds_dir: str = ""
    """Where prepared tensorflow-datasets sets lie; empty: its own default."""
    image_size: int = 64
    """Side in pixels of the square pictures that the method sees."""
    load_size: int = 0
    """Short side in pixels to which the host scales a picture; 0: `image_size`."""
    min_crop: float = 1.0
    """Smallest side of the random square crop, as a fraction of `load_size`."""
    max_crop: float = 1.0
    """Largest side of the random square crop, as a fraction of `load_size`."""
    flip: bool = True
    """Whether pictures are mirrored at random."""
    masks: tuple[str, ...] = ("free_form",)
    """Kinds of masks, drawn with equal chance: `kind` or `kind(option=value, ...)`."""
    batch_size: int = 16
    """Pictures of one step, over all devices and processes."""
    workers: int = 0
    """Decoding threads of a process; 0: one per core, at most 16."""
    cache_mb: int = 1024
    """Memory for decoded pictures, per process."""
    prefetch: int = 2
    """Batches kept ready on the device."""


@dataclass(frozen=True)
class Optim:
    """How gradients become new parameters."""

    lr: float = 2e-4
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    decay_steps: int = 0
    """Step at which a cosine decay ends; 0: constant."""
    final_lr: float = 0.0
    """Where the decay ends, as a fraction of `lr`."""
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled (AdamW); 0: Adam."""
    clip_norm: float = 0.0
    """Largest global norm of a gradient; 0: not clipped."""
    microbatches: int = 1
    """Parts of a batch whose gradients are added up one after the other."""
    ema_decay: float = 0.0
    """Of the moving average of parameters that inference uses; 0: none."""


@dataclass(frozen=True)
class Compute:
    """Precision and memory of the networks."""

    dtype: str = "float32"
    """Of activations: `float32` or `bfloat16`. Parameters stay float32."""
    remat: bool = False
    """Whether activations are computed again in the backward pass, to save memory."""


@dataclass(frozen=True)
class Mesh:
    """How batch and parameters are spread over devices."""

    fsdp: int = 1
    """Devices over which parameters and optimizer state are sharded."""
    rules: tuple[tuple[str, str], ...] = ((".*", "fsdp"),)
    """(regular expression, `fsdp` or `replicate`): the first that is found in the
    path of a leaf decides. `fsdp` cuts the longest axis that divides."""


@dataclass(frozen=True)
class Eval:
    """What is measured on the validation pictures during a run."""

    every: int = 1000
    """Steps between evaluations; 0: never."""
    images: int = 64
    """Pictures to measure on; the first of the validation set in sorted order."""
    batch_size: int = 16
    masks: tuple[str, ...] = ("free_form",)
    """Kinds of masks, each measured on its own."""
    baselines: tuple[str, ...] = ("mean_color", "harmonic")
    """Methods without parameters, measured once on the same pictures and masks."""


@dataclass(frozen=True)
class Checkpoint:
    """What is kept of a run."""

    every: int = 1000
    """Steps between checkpoints."""
    keep: int = 1
    """How many of the newest are kept."""
    best: str = ""
    """Metric whose best checkpoint is kept too, such as `eval/center/hole_l1`."""
    best_is: str = "lowest"
    """`lowest` or `highest`."""


@dataclass(frozen=True)
class Log:
    """What is written down of a run."""

    every: int = 50
    """Steps between lines of `metrics.jsonl`, which hold means over those steps."""
    samples_every: int = 1000
    """Steps between pictures of (truth, masked, result); 0: never."""
    samples: int = 8
    """Rows of such a picture."""


@dataclass(frozen=True)
class Config:
    """A training run."""

    method: str
    """A name out of `jaxpaint.names()`."""
    steps: int
    """Training steps in all."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the method, by name."""
    seed: int = 0
    init_from: str = ""
    """Weights to start from: a run folder, an exported or a published file."""
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    compute: Compute = field(default_factory=Compute)
    mesh: Mesh = field(default_factory=Mesh)
    eval: Eval = field(default_factory=Eval)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    log: Log = field(default_factory=Log)


def load(path: Path) -> Config:
    """Returns what the function `config` of a Python file returns.

    Raises:
      InputError: no such file, no such function, or an error inside the file.
    """
    if not path.is_file():
        raise _missing_file(path)
    try:
        build = runpy.run_path(str(path)).get("config")
        config = build() if callable(build) else None
    except Exception as error:
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise InputError(f"{path} has no function config() that returns a Config")
    return config


def _missing_file(path: Path) -> InputError:
    near = path.parent if path.parent.is_dir() else Path("configs")
    known = sorted(p.stem for p in near.glob("*.py"))
    if not known:
        return InputError(f"there is no configuration file {path}")
    error = unknown_name("configuration", path.stem, known)
    return InputError(f"there is no file {path}: {error}")


def override(config: Config, settings: Sequence[str]) -> Config:
    """Returns the configuration with `key=value` settings, such as `optim.lr=1e-4`.

    Values are Python literals; what is none is taken as a string. `options.NAME` sets
    an option of the method, whose name `check` looks at.

    Raises:
      InputError: no `=`, an unknown key, or a value of another type.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"'{setting}' has no '='; want key=value")
        config = _replace(config, key.strip(), key.strip().split("."), _literal(text))
    return config


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.strip(), text.strip())


def _replace(section: Any, key: str, names: Sequence[str], value: object) -> Any:
    name, rest = names[0], names[1:]
    if isinstance(section, Mapping):
        if rest:
            raise InputError(f"'{key}' goes too deep; want options.NAME=value")
        return {**section, name: value}
    if name not in {f.name for f in dataclasses.fields(section)}:
        raise unknown_name("config key", key, keys())
    old = getattr(section, name)
    if rest and not dataclasses.is_dataclass(old) and not isinstance(old, Mapping):
        raise unknown_name("config key", key, keys())
    if not rest and (dataclasses.is_dataclass(old) or isinstance(old, Mapping)):
        raise InputError(f"'{key}' is a section; set one of its keys: {key}.NAME=value")
    new = _replace(old, key, rest, value) if rest else _fitting(section, name, value)
    return dataclasses.replace(section, **{name: new})


def _fitting(section: Any, name: str, value: object) -> object:
    """Returns the value in the type of the field, or raises InputError."""
    wanted = typing.get_type_hints(type(section))[name]
    if wanted is float and type(value) is int:
        return float(value)
    if typing.get_origin(wanted) is tuple:
        strings = typing.get_args(wanted)[0] is str
        if strings and isinstance(value, str):
            value = (value,)
        if isinstance(value, list):
            value = tuple(value)
        items = value if isinstance(value, tuple) else (None,)
        if all(isinstance(item, str if strings else tuple) for item in items):
            return value
    elif type(value) is wanted:
        return value
    elif wanted is str:
        return str(value)
    kind = wanted.__name__ if isinstance(wanted, type) else str(wanted)
    raise InputError(f"config key '{name}' is {value!r}; want {kind}")


def keys() -> list[str]:
    """Returns the dotted names of all keys, with `options` as one."""
    return [name for name, _ in flatten(Config("", 0))] + ["options"]


def flatten(config: Config) -> Iterator[tuple[str, object]]:
    """Yields the dotted name and the value of every key."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if isinstance(value, Mapping):
            yield from ((f"{f.name}.{n}", v) for n, v in sorted(value.items()))
        elif dataclasses.is_dataclass(value):
            for g in dataclasses.fields(value):
                yield f"{f.name}.{g.name}", getattr(value, g.name)
        else:
            yield f.name, value


def to_json(config: Config) -> str:
    """Returns the configuration as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Returns the configuration that `to_json` wrote.

    Keys that this version does not know are an error, missing ones take defaults.

    Raises:
      InputError: not the JSON of a configuration.
    """
    try:
        tree = json.loads(text)
        config = Config(method=tree.pop("method"), steps=tree.pop("steps"))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not the configuration of a run: {error}") from error
    for name, value in tree.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                full = f"{name}.{key}"
                config = _replace(config, full, [name, key], tuples(inner))
        else:
            config = _replace(config, name, [name], tuples(value))
    return config


def tuples(value: Any) -> Any:
    """Returns a JSON value with tuples, which options need, in the place of lists."""
    return tuple(tuples(v) for v in value) if isinstance(value, list) else value


FREE = (
    *("steps", "init_from", "log", "eval", "checkpoint", "mesh"),
    *("data.workers", "data.cache_mb", "data.prefetch"),
)
"""Keys and sections that may change when a run is resumed: they say how long it goes
on, what is written down and on which devices, not what is computed."""


def differences(old: Config, new: Config) -> list[str]:
    """Returns `key: old -> new` for each key that changed and is not `FREE`."""
    before, after = dict(flatten(old)), dict(flatten(new))
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
        and key not in FREE
        and key.partition(".")[0] not in FREE
    ]


def check(config: Config) -> None:
    """Raises InputError for the first value that no run can be started with."""
    for key in ("steps", "data.image_size", "data.batch_size", "optim.microbatches"):
        _at_least(config, key, 1)
    for key in ("mesh.fsdp", "log.every", "log.samples", "data.prefetch"):
        _at_least(config, key, 1)
    for key in ("checkpoint.every", "checkpoint.keep", "eval.images"):
        _at_least(config, key, 1)
    for key in ("eval.every", "log.samples_every", "data.load_size", "data.workers"):
        _at_least(config, key, 0)
    for key in ("optim.warmup_steps", "optim.decay_steps", "optim.clip_norm"):
        _at_least(config, key, 0)
    _at_least(config, "eval.batch_size", 1)
    _one_of(config, "compute.dtype", ("float32", "bfloat16"))
    _one_of(config, "checkpoint.best_is", ("lowest", "highest"))
    data, optim = config.data, config.optim
    if optim.lr <= 0:
        raise InputError(f"optim.lr is {optim.lr}; want more than 0")
    if not 0 <= optim.ema_decay < 1:
        raise InputError(f"optim.ema_decay is {optim.ema_decay}; want 0 to below 1")
    if not 0 < data.min_crop <= data.max_crop <= 1:
        raise InputError(
            f"data.min_crop is {data.min_crop} and data.max_crop {data.max_crop}; want "
            "0 < min_crop <= max_crop <= 1"
        )
    if not data.masks:
        raise InputError("data.masks is empty; want at least one kind of mask")
    if data.batch_size % optim.microbatches:
        raise InputError(
            f"data.batch_size is {data.batch_size}; want a multiple of "
            f"optim.microbatches, {optim.microbatches}"
        )
    if config.checkpoint.best and not (config.eval.every and data.validation):
        raise InputError(
            f"checkpoint.best is {config.checkpoint.best}, but nothing is evaluated; "
            "set data.validation and eval.every, or checkpoint.best= to keep none"
        )
    for _, rule in config.mesh.rules:
        if rule not in ("fsdp", "replicate"):
            raise unknown_name("rule in mesh.rules", rule, ("fsdp", "replicate"))


def _at_least(config: Config, key: str, least: int) -> None:
    value = dict(flatten(config))[key]
    if typing.cast(float, value) < least:
        raise InputError(f"{key} is {value}; want at least {least}")


def _one_of(config: Config, key: str, known: tuple[str, ...]) -> None:
    value = dict(flatten(config))[key]
    if value not in known:
        raise InputError(f"{key} is '{value}'; want one of {', '.join(known)}")
