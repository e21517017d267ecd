"""DeepFill v1: coarse to fine, with contextual attention and a Wasserstein GAN.

Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018, as the
official code has it, from which this differs as docs/deepfill_v1.md tells.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxpaint import crops, losses, optimization, poisson
from jaxpaint.config import Compute, Optim
from jaxpaint.errors import InputError, unknown_name
from jaxpaint.images import check_size, compose
from jaxpaint.methods._deepfill_v1_networks import Critic, Generator
from jaxpaint.types import Batch, Method, Metrics, Params, Window

_MULTIPLE = 8
"""Sides of pictures: two halvings of the encoder and one of the attention."""

_EPS = 1e-12
"""Under the root of the penalty's norms, whose gradient is not finite at 0."""

_CHANNEL_ORDERS = ("rgb", "bgr")

_METRICS = ("loss/gen", "loss/hole", "loss/known", "grad_norm/gen")
_ADVERSARIAL = (
    *("loss/adv", "loss/critics", "loss/distance", "loss/penalty"),
    "grad_norm/critics",
)


class State(NamedTuple):
    """A training run."""

    step: jax.Array
    """Batches seen."""
    generator: optimization.Network
    critics: Any
    """The `Network` of both critics, `local` and `global`; `{}` without them."""
    average: Params
    """Moving average of the generator's variables; `{}` without `optim.ema_decay`."""
    metrics: Metrics
    """Those of the last turn of each network."""


def make(
    *,
    image_size: int = 256,
    width: int = 32,
    critic_width: int = 64,
    discount: float = 0.9,
    box_loss: bool = True,
    hole_weight: float = 1.2,
    known_weight: float = 1.2,
    coarse_weight: float = 1.2,
    adversarial_weight: float = 0.001,
    global_weight: float = 1.0,
    penalty_weight: float = 10.0,
    critic_steps: int = 5,
    pretrain_coarse: bool = False,
    channel_order: str = "rgb",
    fixed_size: bool = False,
    blend: bool = False,
    optim: Optim = Optim(),  # noqa: B008 - frozen
    compute: Compute = Compute(),  # noqa: B008 - frozen
) -> Method:
    """Returns the method; defaults are those of the official code.

    A training step sees one batch and updates either the critics or the generator:
    `critic_steps` steps of the critics, then one of the generator. So `steps` of the
    configuration counts batches, and the generator learns from one in
    `critic_steps + 1`. Whose turn it is follows from the number of the step. Steps of
    the learning rate's schedule are those of the run.

    Holes are boxes: the mask may be anything, but the reconstruction of the hole, the
    local critic and the discount look at the box with half the picture's sides around
    the middle of the mask's bounding box, shifted into the picture.

    Args:
      image_size: side of the pictures in training, a multiple of 8 pixels, to which
        the critics are bound; the generator works at any size.
      width: features of the generator's first layer.
      critic_width: of the critics' first layer.
      discount: of the weights in the box, for each pixel away from its border; official
        code: 0.9, paper: 0.99.
      box_loss: False takes the error of the hole itself, undiscounted, in place of that
        of the box: for masks that are no boxes.
      hole_weight: of the discounted absolute error in the box.
      known_weight: of the absolute error of known pixels.
      coarse_weight: of the coarse picture in both, against 1 of the refined one.
      adversarial_weight: of the critics' judgement; with 0 there are no critics, and
        each step is the generator's.
      global_weight: of the critic of whole pictures in it, against 1 of the local one.
      penalty_weight: of the gradient penalty in the critics' loss.
      critic_steps: updates of the critics before each of the generator.
      pretrain_coarse: train the coarse network alone, without critics; its picture is
        then the result.
      channel_order: in which the network takes and gives colors: "rgb", or "bgr" for
        the weights of the official code.
      fixed_size: whether the network sees nothing but squares of `image_size`, cut out
        around the hole and scaled where that is large. For networks trained on one
        small size, which err at others.
      blend: whether `inpaint` blends what was drawn into the picture by its gradients,
        as GLCIC does.
      optim: how to train; official code: `lr` of 1e-4, `b1` of 0.5, `b2` of 0.9.
      compute: precision and memory.

    Raises:
      InputError: a value that does not fit.
    """
    widths = width, critic_width
    _check(image_size, widths, critic_steps, discount, channel_order)
    dtype = jnp.dtype(compute.dtype)
    remat = compute.remat
    box = image_size // 2
    adversarial = adversarial_weight != 0 and not pretrain_coarse
    cycle = critic_steps + 1 if adversarial else 1
    generator = Generator(width, dtype, remat)
    critics = {
        "local": Critic(critic_width, 8 * critic_width, dtype, remat),
        "global": Critic(critic_width, 4 * critic_width, dtype, remat),
    }
    sides = {"local": box, "global": image_size}
    artist_optimizer = optimization.optimizer(_in_updates(optim, 1 / cycle))
    critics_optimizer = optimization.optimizer(_in_updates(optim, 1 - 1 / cycle))

    def ordered(image: jax.Array) -> jax.Array:
        """Turns RGB into the network's order of channels, or back."""
        return image if channel_order == "rgb" else image[..., ::-1]

    def draw(
        params: Params, image: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the coarse and the refined picture."""
        coarse, refined = generator.apply({"params": params}, ordered(image), mask)
        return ordered(jnp.asarray(coarse)), ordered(jnp.asarray(refined))

    def judge(name: str, params: Params, picture: jax.Array) -> jax.Array:
        return jnp.asarray(critics[name].apply({"params": params[name]}, picture))

    def generator_loss(judges: Params):
        def loss(params: Params, stats: Params, batch: Batch, key: jax.Array):
            del key
            image, mask = batch["image"], batch["mask"]
            pictures = draw(params, image, mask)
            weighted = [(coarse_weight, pictures[0]), (1.0, pictures[1])]
            if pretrain_coarse:
                weighted = weighted[:1]
            metrics = {"loss/hole": jnp.float32(0), "loss/known": jnp.float32(0)}
            for weight, picture in weighted:
                hole, known = reconstruction(picture, image, mask, discount)
                if not box_loss:
                    hole = mean_error(picture, image, mask)
                metrics["loss/hole"] += weight * hole
                metrics["loss/known"] += weight * known
            total = hole_weight * metrics["loss/hole"]
            total += known_weight * metrics["loss/known"]
            if adversarial:
                fake = compose(image, pictures[1], mask)
                seen = views(fake, corners(mask, box), box)
                scores = {
                    name: jnp.mean(judge(name, judges, seen[name])) for name in seen
                }
                adv = -scores["local"] - global_weight * scores["global"]
                total += adversarial_weight * adv
                metrics["loss/adv"] = adv
            return total, (stats, metrics | {"loss/gen": total})

        return loss

    def critics_loss(artist: Params):
        def loss(params: Params, stats: Params, batch: Batch, key: jax.Array):
            image, mask = batch["image"], batch["mask"]
            _, refined = draw(artist, image, mask)
            fake = lax.stop_gradient(compose(image, refined, mask))
            corner = corners(mask, box)
            real, fake, hole = (views(x, corner, box) for x in (image, fake, mask))
            distance = penalty = jnp.float32(0)
            for name, mix_key in zip(critics, jax.random.split(key), strict=True):
                score = functools.partial(judge, name, params)
                alpha = jax.random.uniform(mix_key, (len(image), 1, 1, 1))
                terms = wasserstein(score, real[name], fake[name], hole[name], alpha)
                distance, penalty = distance + terms[0], penalty + terms[1]
            total = penalty_weight * penalty - distance
            metrics = {
                "loss/critics": total,
                "loss/distance": distance,
                "loss/penalty": penalty,
            }
            return total, (stats, metrics)

        return loss

    def init(key: jax.Array, batch: Batch) -> State:
        _check_batch(batch, image_size)
        keys = jax.random.split(key, 3)
        # The generator has parameters for no particular size; a small one is quick.
        small = jnp.zeros((1, _MULTIPLE, _MULTIPLE, 3))
        variables = dict(generator.init(keys[0], small, small[..., :1]))
        artist = optimization.begin(variables, artist_optimizer)
        judges, names = {}, [*_METRICS]
        if adversarial:
            params = {
                name: critics[name].init(key, jnp.zeros((1, side, side, 3)))["params"]
                for key, (name, side) in zip(keys[1:], sides.items(), strict=True)
            }
            judges = optimization.begin({"params": params}, critics_optimizer)
            names += _ADVERSARIAL
        average = optimization.first_average(variables, optim)
        last = {name: jnp.zeros(()) for name in names}
        return State(jnp.zeros((), jnp.int32), artist, judges, average, last)

    def generator_turn(state: State, batch: Batch, key: jax.Array) -> State:
        judges = optimization.gathered(state.critics.params) if adversarial else {}
        grads, stats, metrics = optimization.gradients(
            generator_loss(judges),
            state.generator,
            batch,
            key,
            microbatches=optim.microbatches,
        )
        artist = optimization.update(state.generator, grads, stats, artist_optimizer)
        average = optimization.moving_average(
            state.average, artist.variables(), optim.ema_decay, state.step // cycle
        )
        metrics["grad_norm/gen"] = optimization.norm(grads)
        return state._replace(
            generator=artist, average=average, metrics=state.metrics | metrics
        )

    def critics_turn(state: State, batch: Batch, key: jax.Array) -> State:
        grads, stats, metrics = optimization.gradients(
            critics_loss(optimization.gathered(state.generator.params)),
            state.critics,
            batch,
            key,
            microbatches=optim.microbatches,
        )
        judges = optimization.update(state.critics, grads, stats, critics_optimizer)
        metrics["grad_norm/critics"] = optimization.norm(grads)
        return state._replace(critics=judges, metrics=state.metrics | metrics)

    def train_step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        _check_batch(batch, image_size)
        if adversarial:
            state = lax.cond(
                state.step % cycle < critic_steps,
                critics_turn,
                generator_turn,
                state,
                batch,
                key,
            )
        else:
            state = generator_turn(state, batch, key)
        return state._replace(step=state.step + 1), state.metrics

    def eval_params(state: State) -> Params:
        return state.average or state.generator.variables()

    def load_params(state: State, params: Params) -> State:
        params = jax.tree.map(jnp.asarray, params)
        network = optimization.begin(params, artist_optimizer)
        average = optimization.first_average(params, optim)
        return state._replace(generator=network, average=average)

    def refine(params: Params, known: jax.Array, mask: jax.Array) -> jax.Array:
        """Returns the last picture, of RGB pictures of any size."""
        height, width = known.shape[1:3]
        pads = [(0, 0), (0, -height % _MULTIPLE), (0, -width % _MULTIPLE), (0, 0)]
        pictures = draw(
            params["params"],
            jnp.pad(known, pads, mode="reflect"),
            jnp.pad(mask, pads, mode="reflect"),
        )
        return pictures[0 if pretrain_coarse else 1][:, :height, :width]

    def inpaint(
        params: Params, image: jax.Array, mask: jax.Array, key: jax.Array
    ) -> jax.Array:
        del key
        known = jnp.where(mask > 0.5, 0, image)
        known = jnp.broadcast_to(known, (*image.shape[:3], 3))
        if fixed_size:
            crop = crops.around_hole(known, mask, image_size)
            fill = crop.back(refine(params, crop.image, crop.mask))
        else:
            fill = refine(params, known, mask)
        return poisson.paste(image, fill, mask, blended=blend)

    # Holes in training have nearly half of the pictures' sides.
    window = Window(margin=image_size // 4, relative=0.5)
    if fixed_size:
        window = crops.window(image_size)
    return Method(init, train_step, eval_params, inpaint, window, load_params)


def corners(mask: jax.Array, box: int) -> jax.Array:
    """Returns where the box around each hole begins: rows and columns, int `[B, 2]`.

    It has sides of `box` and the middle of the hole's bounding box, if that leaves it
    inside of the picture. For the holes of the official code, which are shrunk by the
    same amount on opposite sides, this is the box they were before.
    """
    starts = []
    for axes in ((2, 3), (1, 3)):
        found = jnp.any(mask > 0.5, axis=axes)
        side = found.shape[1]
        low = jnp.argmax(found, axis=1)
        high = side - jnp.argmax(found[:, ::-1], axis=1)
        starts.append(jnp.clip((low + high - box) // 2, 0, side - box))
    return jnp.stack(starts, axis=1)


def crop(image: jax.Array, corner: jax.Array, box: int) -> jax.Array:
    """Returns the boxes `[B, box, box, C]` of pictures that begin at `corner`."""

    def one(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1], 0)
        return lax.dynamic_slice(image, start, (box, box, image.shape[-1]))

    return jax.vmap(one)(image, corner)


def views(image: jax.Array, corner: jax.Array, box: int) -> dict[str, jax.Array]:
    """Returns what each critic sees of pictures or masks, by its name."""
    return {"local": crop(image, corner, box), "global": image}


def reconstruction(
    picture: jax.Array, image: jax.Array, mask: jax.Array, discount: float
) -> tuple[jax.Array, jax.Array]:
    """Returns the mean absolute error of box and of known pixels, section 3.2.

    That of the box around the hole, known pixels in it included, is discounted from
    its borders inwards. That of known pixels is a mean over them, each picture's own,
    where the official code has one mask for all.
    """
    box = image.shape[1] // 2
    corner = corners(mask, box)
    weights = jnp.asarray(losses.spatial_discount(box, box, discount))
    hole = losses.masked_l1(
        crop(picture, corner, box), crop(image, corner, box), weights
    )
    return hole, mean_error(picture, image, 1 - mask)


def mean_error(picture: jax.Array, image: jax.Array, where: jax.Array) -> jax.Array:
    """Returns the mean absolute error where the mask `[B, H, W, 1]` is 1.

    Each picture's own mean counts alike.
    """
    share = jnp.mean(where, axis=(1, 2, 3), keepdims=True)
    return losses.masked_l1(picture, image, where / jnp.maximum(share, 1e-6))


def wasserstein(
    score: Callable[[jax.Array], jax.Array],
    real: jax.Array,
    fake: jax.Array,
    hole: jax.Array,
    alpha: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns a critic's mean distance of true from drawn pictures, and the penalty.

    Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, equation 3, with
    gradients at pixels of the hole only (Yu et al., equation 4).

    Args:
      score: maps `[B, H, W, 3]` to `[B]`.
      real: `[B, H, W, 3]`.
      fake: likewise.
      hole: `[B, H, W, 1]`, 1 = hole.
      alpha: `[B, 1, 1, 1]` in [0, 1]: where the gradient is taken between the two.
    """
    of_real, of_fake = jnp.split(score(jnp.concatenate([real, fake])), 2)
    between = real + alpha * (fake - real)
    slope = jax.grad(lambda x: jnp.sum(score(x)))(between)
    norm = jnp.sqrt(jnp.sum(jnp.square(slope) * hole, axis=(1, 2, 3)) + _EPS)
    return jnp.mean(of_real) - jnp.mean(of_fake), jnp.mean(jnp.square(norm - 1))


def _in_updates(optim: Optim, share: float) -> Optim:
    """Returns settings whose schedule counts the updates of a network that has this
    share of the steps."""
    return dataclasses.replace(
        optim,
        warmup_steps=math.ceil(optim.warmup_steps * share),
        decay_steps=math.ceil(optim.decay_steps * share),
    )


def _check_batch(batch: Batch, image_size: int) -> None:
    image, mask = batch["image"], batch["mask"]
    check_size(image, image_size)
    if mask.shape != (*image.shape[:3], 1):
        raise InputError(
            f"masks have shape {list(mask.shape)}; want {[*image.shape[:3], 1]}"
        )


def _check(
    image_size: int,
    widths: tuple[int, int],
    critic_steps: int,
    discount: float,
    order: str,
) -> None:
    if image_size < 16 or image_size % _MULTIPLE:
        raise InputError(
            f"image_size is {image_size}; want a multiple of {_MULTIPLE}, 16 or more"
        )
    for name, value, least in (
        ("width", widths[0], 2),
        ("critic_width", widths[1], 1),
        ("critic_steps", critic_steps, 0),
    ):
        if value < least:
            raise InputError(f"{name} is {value}; want a whole number from {least} on")
    if not 0 < discount <= 1:
        raise InputError(f"discount is {discount}; want more than 0, up to 1")
    if order not in _CHANNEL_ORDERS:
        raise unknown_name("channel_order", order, _CHANNEL_ORDERS)
