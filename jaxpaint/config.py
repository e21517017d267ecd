"""The configuration of a training run: frozen dataclasses, files, overrides.

A configuration file is Python with a function `config() -> Config`; its docstring gives
the command, hardware, time and expected score. Nothing here imports jax.
"""

import ast
import dataclasses
import difflib
import json
import runpy
import types
import typing
from collections.abc import Mapping, Sequence
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
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    compute: Compute = field(default_factory=Compute)
    mesh: Mesh = field(default_factory=Mesh)
    eval: Eval = field(default_factory=Eval)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    log: Log = field(default_factory=Log)
