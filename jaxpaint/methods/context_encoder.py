"""Context Encoder: an encoder-decoder trained to draw what its input lacks.

Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016, and its
official code, from which this differs as docs/context_encoder.md tells.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxpaint import crops, optimization, poisson
from jaxpaint.config import Compute, Optim
from jaxpaint.crops import extent, resample, sampling
from jaxpaint.errors import InputError
from jaxpaint.images import check_batch
from jaxpaint.methods._context_encoder_networks import Discriminator, Generator
from jaxpaint.optimization import Network
from jaxpaint.types import Batch, Method, Metrics, Params, Window

# Red, green and blue that stand for unknown pixels. Means of ImageNet in an order that
# fits no color space: the published weights know it so.
FILL = np.array([117, 104, 123], np.float32) / np.float32(127.5) - np.float32(1)


class State(NamedTuple):
    """A training run."""

    step: jax.Array
    generator: Network
    discriminator: Network
    average: Params
    """Moving average of the generator's variables; `{}` without `optim.ema_decay`."""


def make(
    *,
    image_size: int = 128,
    whole_image: bool = False,
    encoder_width: int = 64,
    decoder_width: int = 64,
    discriminator_width: int = 64,
    bottleneck: int = 4000,
    channelwise: bool = False,
    overlap: int = 4,
    overlap_weight: float = 10.0,
    known_weight: float = 0.0,
    shared_mask: bool = False,
    adversarial_weight: float = 0.001,
    generator_lr_factor: float = 10.0,
    blend: bool = False,
    optim: Optim = Optim(),  # noqa: B008 - frozen
    compute: Compute = Compute(),  # noqa: B008 - frozen
) -> Method:
    """Returns the method; defaults are those of the released centre model.

    There are two of them. The centre model, the default, predicts the central half of
    the sides of a picture, and nothing else: holes of other sizes at other places are
    brought there by scaling and moving the picture. It trains on its own hole, whatever
    masks the batch has. With `whole_image` the prediction is as large as the picture,
    and the hole is what the mask says.

    Args:
      image_size: side of the pictures in training: 16, 32, 64, 128 .. pixels.
      whole_image: the model for holes of any shape.
      encoder_width: features of the encoder's first layer; the last has 8 times more.
      decoder_width: of the decoder's last but one layer, likewise.
      discriminator_width: of the discriminator's first layer, likewise.
      bottleneck: features of the layer between encoder and decoder.
      channelwise: put the paper's channel-wise fully connected layer in its place.
      overlap: width in pixels of the border of the centre model's prediction that is
        known; released: 4, paper: 7. The hole has sides of
        `image_size / 2 - 2 overlap`.
      overlap_weight: of the squared error there, against 1 inside.
      known_weight: of the squared error on known pixels, against 1 in the hole, for
        `whole_image`; weights are then scaled to a mean of 1 in each picture. Official
        code: 1, or 10 with its option `useOverlapPred`.
      shared_mask: the first mask of a batch serves all its pictures, as in the official
        code, for `whole_image`.
      adversarial_weight: a; the generator's loss is (1 - a) * squared error + a *
        adversarial loss.
      generator_lr_factor: the generator's learning rate as a multiple of `optim.lr`.
      blend: whether `inpaint` blends what was drawn into the picture by its gradients,
        as GLCIC does.
      optim: how to train; paper: `b1` of 0.5.
      compute: precision and memory.

    Raises:
      InputError: a value that does not fit.
    """
    if image_size < 16 or image_size & (image_size - 1):
        raise InputError(
            f"image_size is {image_size}; want 16, 32, 64, 128 or another power of two"
        )
    if not whole_image and not 0 <= overlap < image_size // 4:
        raise InputError(
            f"overlap is {overlap}; want 0 to {image_size // 4 - 1} with an image_size "
            f"of {image_size}, so that something is left to predict"
        )
    if not 0 <= adversarial_weight < 1:
        raise InputError(
            f"adversarial_weight is {adversarial_weight}; want 0 to less than 1"
        )
    if known_weight < 0 or overlap_weight < 0:
        raise InputError("known_weight and overlap_weight must not be negative")

    patch_size = image_size if whole_image else image_size // 2
    dtype = jnp.dtype(compute.dtype)
    generator = Generator(
        image_size,
        patch_size,
        encoder_width,
        decoder_width,
        bottleneck,
        channelwise,
        dtype,
        compute.remat,
    )
    discriminator = Discriminator(patch_size, discriminator_width, dtype, compute.remat)
    generator_optimizer = optimization.optimizer(optim, generator_lr_factor)
    discriminator_optimizer = optimization.optimizer(optim)

    def init(key: jax.Array, batch: Batch) -> State:
        check_batch(batch, image_size)
        keys = jax.random.split(key)
        first = jnp.zeros((1, image_size, image_size, 3))
        variables = dict(generator.init(keys[0], first, False))
        artist = optimization.begin(variables, generator_optimizer)
        patch = jnp.zeros((1, patch_size, patch_size, 3))
        judge = optimization.begin(
            dict(discriminator.init(keys[1], patch, False)), discriminator_optimizer
        )
        average = optimization.first_average(variables, optim)
        return State(jnp.int32(0), artist, judge, average)

    def task(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the network's input, the true patch, and weights of its pixels."""
        image, mask = batch["image"], batch["mask"]
        if not whole_image:
            weights = overlap_weights(patch_size, overlap, overlap_weight)
            hole = center_hole(image_size, overlap)
            return masked(image, hole), _center(image), weights
        if shared_mask:
            mask = jnp.broadcast_to(mask[:1], mask.shape)
        return masked(image, mask), image, hole_weights(mask, known_weight)

    def discriminator_loss(
        network: Network,
    ):
        def loss(params: Params, stats: Params, batch: Batch, key: jax.Array):
            del key
            context, real, _ = task(batch)
            whole = optimization.gathered(network.params)
            fake, _ = _train(generator, whole, network.stats, context)
            fake = jax.lax.stop_gradient(fake)
            on_real, stats = _train(discriminator, params, stats, real)
            on_fake, stats = _train(discriminator, params, stats, fake)
            total = cross_entropy(on_real, 1.0) + cross_entropy(on_fake, 0.0)
            return total, (stats, {"loss/disc": total})

        return loss

    def generator_loss(network: Network):
        def loss(params: Params, stats: Params, batch: Batch, key: jax.Array):
            del key
            context, real, weights = task(batch)
            fake, stats = _train(generator, params, stats, context)
            whole = optimization.gathered(network.params)
            on_fake, _ = _train(discriminator, whole, network.stats, fake)
            rec = reconstruction(fake, real, weights)
            adv = cross_entropy(on_fake, 1.0)
            total = (1 - adversarial_weight) * rec + adversarial_weight * adv
            metrics = {"loss/gen": total, "loss/rec": rec, "loss/adv": adv}
            return total, (stats, metrics)

        return loss

    def train_step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        check_batch(batch, image_size)
        grads, stats, metrics = optimization.gradients(
            discriminator_loss(state.generator),
            state.discriminator,
            batch,
            key,
            microbatches=optim.microbatches,
        )
        judge = optimization.update(
            state.discriminator, grads, stats, discriminator_optimizer
        )
        # The official code judges with what the discriminator was before its update.
        grads, stats, more = optimization.gradients(
            generator_loss(judge),
            state.generator,
            batch,
            key,
            microbatches=optim.microbatches,
        )
        artist = optimization.update(state.generator, grads, stats, generator_optimizer)
        average = optimization.moving_average(
            state.average, artist.variables(), optim.ema_decay, state.step
        )
        norm = {"grad_norm/gen": optimization.norm(grads)}
        return State(state.step + 1, artist, judge, average), metrics | more | norm

    def eval_params(state: State) -> Params:
        return state.average or state.generator.variables()

    def load_params(state: State, params: Params) -> State:
        params = jax.tree.map(jnp.asarray, params)
        network = state.generator._replace(
            params=params["params"], stats=params["batch_stats"]
        )
        average = optimization.first_average(params, optim)
        return state._replace(generator=network, average=average)

    def inpaint(
        params: Params, image: jax.Array, mask: jax.Array, key: jax.Array
    ) -> jax.Array:
        del key
        known = jnp.where(mask > 0.5, 0, image)
        if image.shape[-1] == 1:
            known = jnp.broadcast_to(known, (*image.shape[:-1], 3))
        sides = image.shape[1:3]
        if whole_image:
            scale = [jnp.full(len(image), side / image_size) for side in sides]
            start = [jnp.zeros(len(image))] * 2
        else:
            start, scale = _around_hole(mask, image_size, overlap)
        take, put = [], []
        shift = (image_size - patch_size) // 2
        for side, first, step in zip(sides, start, scale, strict=True):
            take.append(sampling(first, step, image_size, side, reflect=True))
            put.append(
                sampling(
                    -first / step - shift, 1 / step, side, patch_size, reflect=False
                )
            )
        share = resample(1 - mask, *take)
        hole = (share < 0.5).astype(jnp.float32)
        context = resample(known, *take) / jnp.maximum(share, 1e-6)
        if not whole_image:
            hole = jnp.maximum(hole, center_hole(image_size, overlap))
        prediction = generator.apply(params, masked(context, hole), False)
        fill = resample(jnp.asarray(prediction), *put)
        return poisson.paste(image, fill, mask, blended=blend)

    if whole_image:
        # Holes were 20 to 30 % of the training pictures: half of their sides.
        window = crops.window(image_size)._replace(whole=True)
    else:
        ratio = image_size / (image_size // 2 - 2 * overlap)
        window = Window(
            margin=image_size // 4 + overlap,
            relative=(ratio - 1) / 2,
            size=image_size,
        )
    return Method(init, train_step, eval_params, inpaint, window, load_params)


def center_hole(image_size: int, overlap: int) -> jax.Array:
    """Returns the centre model's hole, float32 `[1, S, S, 1]`: 1 = hole.

    Its sides are half of the picture's, less `overlap` at each border.
    """
    hole = image_size // 2 - 2 * overlap
    border = (image_size - hole) // 2
    pad = (border, image_size - hole - border)
    return jnp.pad(jnp.ones((1, hole, hole, 1)), ((0, 0), pad, pad, (0, 0)))


def overlap_weights(patch_size: int, overlap: int, weight: float) -> jax.Array:
    """Returns 1 inside and `weight` on the border of a patch; float32 `[1, P, P, 1]`.

    The border of `overlap` pixels is known to the network.
    """
    inside = jnp.ones((1, *[patch_size - 2 * overlap] * 2, 1))
    pad = (overlap, overlap)
    return jnp.pad(inside, ((0, 0), pad, pad, (0, 0)), constant_values=weight)


def hole_weights(mask: jax.Array, known_weight: float) -> jax.Array:
    """Returns 1 in the hole and `known_weight` elsewhere, scaled to a mean of 1.

    The mean is that of each mask `[B, H, W, 1]` of its own.
    """
    weights = mask + known_weight * (1 - mask)
    mean = jnp.mean(weights, axis=(1, 2, 3), keepdims=True)
    return weights / jnp.maximum(mean, 1e-6)


def masked(image: jax.Array, hole: jax.Array) -> jax.Array:
    """Returns `[B, H, W, 3]` pictures with the color of the unknown in the hole."""
    return jnp.where(hole > 0.5, jnp.asarray(FILL)[None, None, None], image)


def reconstruction(
    fake: jax.Array, real: jax.Array, weights: jax.Array | float = 1.0
) -> jax.Array:
    """Returns the mean of `weights` times the squared error (equation 1)."""
    return jnp.mean(weights * jnp.square(fake - real))


def cross_entropy(logits: jax.Array, label: float) -> jax.Array:
    """Returns the mean cross entropy with one label for all (equation 2)."""
    labels = jnp.full_like(logits, label)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels))


def _train(
    network: Generator | Discriminator, params: Params, stats: Params, x: jax.Array
) -> tuple[jax.Array, Params]:
    """Returns the output in training mode, and the new running statistics."""
    variables = {"params": params, "batch_stats": stats}
    out, new = network.apply(variables, x, True, mutable=["batch_stats"])
    return out, new["batch_stats"]


def _center(image: jax.Array) -> jax.Array:
    border = image.shape[1] // 4
    return image[:, border : 3 * border, border : 3 * border]


def _around_hole(
    mask: jax.Array, image_size: int, overlap: int
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Returns where the centre model must look: start and scale, `[B]`, of both axes.

    The box around the hole gets the place and size of the hole in training. Sizes and
    places are in pixels of the picture; the scale is how many of them make one pixel of
    the network's input.
    """
    low, high = [], []
    for axes in ((2, 3), (1, 3)):
        first, behind = extent(mask, axes)
        low.append(first)
        high.append(behind)
    longer = jnp.maximum(high[0] - low[0], high[1] - low[1])
    scale = longer / (image_size // 2 - 2 * overlap)
    start = [
        (a + b) / 2 - scale * (image_size / 2) for a, b in zip(low, high, strict=True)
    ]
    return start, [scale, scale]
