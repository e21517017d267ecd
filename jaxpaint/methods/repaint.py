"""RePaint: a diffusion model led by what is known, and faster samplers; many answers.

Lugmayr et al. 2022, and its successors in `jaxpaint.diffusion`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxpaint import convert, crops, images, optimization, poisson, torch_file
from jaxpaint.config import Compute, Optim
from jaxpaint.convert._guided_classifier import convert_classifier
from jaxpaint.diffusion import (
    denoiser,
    importance,
    losses,
    resampling,
    sampler,
    solvers,
)
from jaxpaint.diffusion import process as processes
from jaxpaint.diffusion.classifier import Classifier
from jaxpaint.diffusion.ddnm import ddnm
from jaxpaint.diffusion.lanpaint import lanpaint
from jaxpaint.diffusion.mmps import mmps
from jaxpaint.diffusion.pigdm import pigdm
from jaxpaint.diffusion.process import Process
from jaxpaint.diffusion.repaint import repaint
from jaxpaint.diffusion.resampling import Resampling
from jaxpaint.diffusion.sampler import Known, Sampler
from jaxpaint.diffusion.unet import UNet
from jaxpaint.errors import InputError, unknown_name
from jaxpaint.types import Batch, Method, Metrics, Params, Stages

_PARTS = 20
"""Pieces of a long sampling, between which progress is told."""


class Preset(NamedTuple):
    """What a name in `preset` stands for."""

    levels: int
    jump: int = 1
    repeats: int = 1
    """For `lanpaint` Langevin steps, for `mmps` steps of conjugate gradients, at each
    level."""


PRESETS = {
    "repaint": {
        "paper": Preset(250, 10, 10),
        "balanced": Preset(100, 10, 5),
        "fast": Preset(50, 5, 5),
        "draft": Preset(25, 5, 5),
    },
    "ddnm": {
        "paper": Preset(100),
        "balanced": Preset(100, 10, 3),
        "fast": Preset(50, 5, 2),
        "draft": Preset(50),
    },
    "lanpaint": {
        "paper": Preset(20, 1, 10),
        "balanced": Preset(25, 1, 11),
        "fast": Preset(20, 1, 5),
        "draft": Preset(10, 1, 5),
    },
    "pigdm": {
        "paper": Preset(100),
        "balanced": Preset(100),
        "fast": Preset(50),
        "draft": Preset(25),
    },
    "mmps": {
        "paper": Preset(100, 1, 2),
        "balanced": Preset(40, 1, 2),
        "fast": Preset(20, 1, 1),
        "draft": Preset(10, 1, 1),
    },
}
"""By sampler and name; docs/repaint.md has the number of network calls of each."""


_QUADRATIC = ("lanpaint", "pigdm", "mmps")
"""Samplers that take levels of a linear schedule closer together towards the clean
image, as a cosine one has them; the others take those of their authors."""


class State(NamedTuple):
    """A training run."""

    step: jax.Array
    network: optimization.Network
    average: Params
    """Moving average of what inference needs; `{}` without one."""
    history: importance.History | tuple[()]
    """Losses by level; `()` without `importance_sampling`."""


class Carry(NamedTuple):
    """Sampling under way."""

    known: Known
    state: sampler.State
    label: jax.Array
    key: jax.Array


def make(
    *,
    image_size: int = 64,
    channels: int = 128,
    multipliers: tuple[float, ...] = (1, 2, 3, 4),
    blocks: int = 2,
    attention: tuple[int, ...] = (4, 8),
    heads: int = 4,
    head_channels: int = 0,
    heads_up: int = 0,
    classes: int = 0,
    scale_shift: bool = True,
    resample_blocks: bool = False,
    convolve_resampled: bool = True,
    joint_heads: bool = True,
    dropout: float = 0.0,
    sine_first: bool = False,
    frequency_shift: float = 0.0,
    norm_epsilon: float = 1e-5,
    pad_end: bool = False,
    schedule: str = "linear",
    steps: int = 1000,
    target: str = "noise",
    learned_variance: bool = False,
    variance: str = "small",
    simple: float = 1.0,
    bound: float = 1.0,
    importance_sampling: bool = False,
    sampling: str = "repaint",
    preset: str = "fast",
    levels: int | None = None,
    jump: int | None = None,
    repeats: int | None = None,
    start: int | None = None,
    eta: float | None = None,
    label: int = -1,
    classifier: str = "",
    guidance: float = 1.0,
    clip: bool = True,
    optim: Optim = Optim(),  # noqa: B008
    compute: Compute = Compute(),  # noqa: B008
) -> Method:
    """Returns the method; `sampling` and what follows it need no training anew.

    The network sees a square around the hole, scaled down to `image_size` where the
    hole would take more than half of its side. Known pixels are pasted at the end.

    Args:
      image_size: side of the pictures in training.
      channels: of the U-Net's first level; this and the next fourteen are the fields of
        `jaxpaint.diffusion.unet.UNet`.
      multipliers: channels of each level, as multiples.
      blocks: residual blocks of each level.
      attention: downsampling factors of the levels with attention.
      heads: of attention, where `head_channels` is 0.
      head_channels: channels of a head.
      heads_up: heads on the way up; 0: as `heads`.
      classes: number of labels of a class-conditional network.
      scale_shift: whether the timestep scales and shifts, or is added.
      resample_blocks: whether residual blocks change the resolution.
      convolve_resampled: whether a convolution does otherwise.
      joint_heads: order of query, key and value.
      dropout: in training.
      sine_first: order of the timestep's features.
      frequency_shift: of the timestep's features.
      norm_epsilon: of the group norms.
      pad_end: padding of convolutions with stride 2.
      schedule: of the noise: `linear` or `cosine`.
      steps: levels of the training process.
      target: what the network says: `noise`, `clean` or `velocity`.
      learned_variance: whether it says the variance of a step too.
      variance: of a step, without a learned one: `small` or `large`, which leaves noise
        in results where few levels are taken.
      simple: weight of the squared error in training.
      bound: weight of the variational bound, for a learned variance.
      importance_sampling: whether training draws levels by their losses.
      sampling: `repaint`, `ddnm`, `lanpaint`, `pigdm` or `mmps`.
      preset: `paper`, `balanced`, `fast` or `draft`.
      levels: steps down from noise, in place of the preset's.
      jump: levels of a jump back, in place of the preset's.
      repeats: how often each jump's levels are walked, for `lanpaint` and `mmps` the
        inner steps, in place of the preset's.
      start: level from which on there are jumps; None: the first.
      eta: new noise of a step. `repaint`: takes DDIM's steps with it, not the ancestral
        ones. Otherwise in place of the sampler's own: `ddnm` 0.85, `pigdm` and `mmps`
        1.
      label: class of all results; -1: drawn for each.
      classifier: file of a classifier of guided-diffusion, for guidance to `label`.
      guidance: its strength.
      clip: whether estimates of the clean image are clipped to [-1, 1].
      optim: how parameters are updated.
      compute: precision and memory.

    Raises:
      InputError: an option out of its range.
    """
    for what, value, known_names in (
        ("sampler", sampling, PRESETS),
        ("preset", preset, PRESETS["repaint"]),
        ("target", target, denoiser.TARGETS),
        ("variance", variance, denoiser.VARIANCES),
    ):
        if value not in known_names:
            raise unknown_name(what, value, known_names)
    if not -1 <= label < max(classes, 1):
        raise InputError(
            f"label is {label}; want -1 (drawn) to {max(classes, 1) - 1}, as the "
            f"network has {classes} classes"
        )
    if guidance < 0 or simple < 0 or bound < 0 or simple + bound == 0:
        raise InputError(
            f"guidance is {guidance:g}, simple {simple:g} and bound {bound:g}; want "
            "none below 0, and one of the last two above"
        )
    if importance_sampling and optim.microbatches > 1:
        raise InputError(
            "importance_sampling wants the losses of the whole batch; set "
            "optim.microbatches=1, or importance_sampling=False"
        )
    made = processes.make(schedule, steps)
    choice = PRESETS[sampling][preset]
    choice = Preset(
        choice.levels if levels is None else levels,
        choice.jump if jump is None else jump,
        choice.repeats if repeats is None else repeats,
    )
    spaced, chosen = _sampler(sampling, choice, schedule, steps, start, eta, clip)
    unet = UNet(
        channels=channels,
        out_channels=6 if learned_variance else 3,
        blocks=blocks,
        multipliers=multipliers,
        attention=attention,
        heads=heads,
        head_channels=head_channels,
        heads_up=heads_up,
        classes=classes,
        scale_shift=scale_shift,
        resample_blocks=resample_blocks,
        convolve_resampled=convolve_resampled,
        joint_heads=joint_heads,
        dropout=dropout,
        sine_first=sine_first,
        frequency_shift=frequency_shift,
        norm_epsilon=norm_epsilon,
        pad_end=pad_end,
        dtype=jnp.dtype(compute.dtype),
        remat=compute.remat,
    )
    transformation = optimization.optimizer(optim)

    def init(key: jax.Array, batch: Batch) -> State:
        images.check_size(batch["image"], image_size)
        image = batch["image"][:1]
        zero = jnp.zeros(1, jnp.int32)
        variables = unet.init(key, image, zero, zero if classes else None)
        network = optimization.begin(dict(variables), transformation)
        history = importance.empty(steps) if importance_sampling else ()
        average = optimization.first_average(network.variables(), optim)
        return State(jnp.zeros((), jnp.int32), network, average, history)

    def loss(params: Params, stats: Params, batch: Batch, key: jax.Array):
        noise_key, dropout_key = jax.random.split(key)
        clean, level = batch["image"], batch["level"]
        noise = jax.random.normal(noise_key, clean.shape)
        x = processes.diffuse(made, clean, level, noise)
        output = unet.apply(
            {"params": params}, x, level, train=True, rngs={"dropout": dropout_key}
        )
        found = losses.terms(
            made,
            jnp.asarray(output),
            clean,
            x,
            level,
            noise,
            target=target,
            learned_variance=learned_variance,
            simple=simple,
            bound=bound,
        )
        metrics = {f"loss/{name}": jnp.mean(value) for name, value in found.items()}
        total = jnp.mean(batch["weight"] * found["total"])
        return total, (stats, metrics | {"losses": found["total"]})

    def train_step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        if classes:
            raise InputError(
                "class-conditional networks cannot be trained here: the data has no "
                "labels; set classes=0"
            )
        images.check_size(batch["image"], image_size)
        level_key, key = jax.random.split(key)
        count = len(batch["image"])
        history = state.history
        if history:
            level, weight = importance.draw(history, count, level_key)
        else:
            level = jax.random.randint(level_key, (count,), 0, steps)
            weight = jnp.ones(count)
        grads, stats, metrics = optimization.gradients(
            loss,
            state.network,
            {"image": batch["image"], "level": level, "weight": weight},
            key,
            microbatches=optim.microbatches,
        )
        each = metrics.pop("losses")
        if history:
            history = importance.remember(history, level, each)
        network = optimization.update(state.network, grads, stats, transformation)
        average = optimization.moving_average(
            state.average, network.variables(), optim.ema_decay, state.step
        )
        metrics["grad_norm"] = optimization.norm(grads)
        return State(state.step + 1, network, average, history), metrics

    def eval_params(state: State) -> Params:
        return state.average or state.network.variables()

    def load_params(state: State, params: Params) -> State:
        network = optimization.begin(params, transformation)
        average = optimization.first_average(params, optim)
        return state._replace(network=network, average=average)

    def denoise(params: Params, label: jax.Array) -> denoiser.Denoiser:
        found = denoiser.of_network(
            lambda x, t: jnp.asarray(
                unet.apply(params, x, t, label if classes else None)
            ),
            spaced,
            target=target,
            variance=None if learned_variance else variance,
            clip=clip,
        )
        if not classifier:
            return found
        judge = _classifier(classifier)

        def log_probability(x: jax.Array, t: jax.Array) -> jax.Array:
            return jnp.take_along_axis(judge(x, t), label[:, None], axis=1)[:, 0]

        return denoiser.guided(found, spaced, log_probability, guidance)

    def cut(image: jax.Array, mask: jax.Array) -> crops.Crop:
        shape = (*image.shape[:3], 3)
        return crops.around_hole(jnp.broadcast_to(image, shape), mask, image_size)

    def begin(
        params: Params, image: jax.Array, mask: jax.Array, key: jax.Array
    ) -> Carry:
        del params
        noise_key, label_key = jax.random.split(key)
        crop = cut(image, mask)
        first = sampler.first(noise_key, (1, *crop.image.shape[1:]))
        labels = jnp.full(len(image), label)
        if label < 0:
            labels += jax.random.randint(label_key, (), 1, max(classes, 1) + 1)
        return Carry(
            Known(crop.image, crop.mask),
            sampler.State(
                jnp.broadcast_to(first.x, crop.image.shape),
                jnp.broadcast_to(first.memory, crop.image.shape),
                jnp.int32(-1),
            ),
            labels,
            noise_key,
        )

    def advance(params: Params, carry: Carry, moves: Any) -> Carry:
        state = sampler.part(
            chosen,
            denoise(params, carry.label),
            carry.known,
            carry.state,
            moves,
            # One noise for all images: each comes out as it does alone.
            sampler.noise_of_key(carry.key, (1, *carry.state.x.shape[1:])),
        )
        return carry._replace(state=state)

    def finish(carry: Carry, image: jax.Array, mask: jax.Array) -> jax.Array:
        fill = jnp.clip(cut(image, mask).back(carry.state.x), -1, 1)
        return poisson.paste(image, fill, mask, blended=False)

    def inpaint(
        params: Params, image: jax.Array, mask: jax.Array, key: jax.Array
    ) -> jax.Array:
        carry = begin(params, image, mask, key)
        carry = advance(params, carry, sampler.numbered(chosen.moves))
        return finish(carry, image, mask)

    parts = tuple(sampler.parts(chosen.moves, _PARTS))
    stages = Stages(begin, parts, advance, finish, lambda carry: carry.state.bad)
    window = crops.window(image_size)
    return Method(init, train_step, eval_params, inpaint, window, load_params, stages)


def _sampler(
    name: str,
    choice: Preset,
    schedule: str,
    steps: int,
    start: int | None,
    eta: float | None,
    clip: bool,
) -> tuple[Process, Sampler]:
    """Returns the respaced process and a sampler on it."""
    spacing = "quad" if name in _QUADRATIC and schedule == "linear" else ""
    spaced = processes.make(schedule, steps, f"{spacing}{choice.levels}")
    given = {} if eta is None else {"eta": eta}
    if name == "lanpaint":
        return spaced, lanpaint(spaced, choice.repeats)
    if name == "mmps":
        pairs = resampling.folded(resampling.levels(choice.levels))
        return spaced, mmps(spaced, pairs, choice.repeats, clip=clip, **given)
    pairs = resampling.folded(
        resampling.levels(
            choice.levels,
            Resampling(
                choice.jump,
                choice.repeats,
                start=resampling.NEVER if start is None else start,
            ),
        )
    )
    if name == "ddnm":
        return spaced, ddnm(spaced, pairs, **given)
    if name == "pigdm":
        return spaced, pigdm(spaced, pairs, **given)
    if eta is None:
        return spaced, repaint(spaced, pairs)
    return spaced, repaint(spaced, pairs, solvers.ddim(eta))


@functools.lru_cache(maxsize=2)
def _classifier(path: str) -> Any:
    """Returns `(images, timesteps) -> log-probabilities` of a classifier's file."""
    arrays = convert.state_dict(torch_file.load(path))
    fields, params = convert_classifier(arrays)
    network = Classifier(**fields)
    # On the device: as constants of the program they would be compiled in.
    params = jax.device_put(params)

    def judge(x: jax.Array, t: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(jnp.asarray(network.apply(params, x, t)))

    return judge
