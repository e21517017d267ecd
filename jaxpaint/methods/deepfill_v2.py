"""DeepFill v2: gated convolutions and contextual attention (Yu et al. 2019)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxpaint import crops, optimization, poisson
from jaxpaint import hed as edge_network
from jaxpaint.config import Compute, Optim
from jaxpaint.edges import canny
from jaxpaint.errors import InputError
from jaxpaint.images import check_batch, compose
from jaxpaint.layers.spectral_norm import COLLECTION
from jaxpaint.methods._deepfill_v2_networks import Generator
from jaxpaint.methods._sn_patch_gan import Discriminator, absolute, hinge
from jaxpaint.optimization import Network
from jaxpaint.types import Batch, Method, Metrics, Params, Window

_MULTIPLE = 8
"""Of which sides must be multiples: two halvings, and one in the attention."""

_LINE = 0.25
"""Share of a pixel of a scaled sketch from which it is a line: thin ones stay."""

_SURE = 0.6
"""Above which HED's answer is a line, as in the official code."""


class State(NamedTuple):
    """A training run."""

    step: jax.Array
    generator: Network
    discriminator: Network
    """Its statistics are the vectors of the spectral norms; without parameters where
    nothing is adversarial."""
    average: Params
    """Moving average of the generator's variables; `{}` without `optim.ema_decay`."""
    hed: Params
    """The edge network, which stays as it is; `{}` without one."""


def make(
    *,
    image_size: int = 256,
    width: int = 48,
    discriminator_width: int = 64,
    guided: bool = False,
    hed: str = "",
    channel_order: str = "rgb",
    adversarial_weight: float = 1.0,
    l1_weight: float = 1.0,
    known_weight: float = 1.0,
    hinge_factor: float = 0.5,
    init_gain: float = 1.0,
    fixed_size: bool = False,
    blend: bool = False,
    optim: Optim = Optim(),  # noqa: B008 - frozen
    compute: Compute = Compute(),  # noqa: B008 - frozen
) -> Method:
    """Returns the method; defaults are those of the released models.

    Args:
      image_size: side of the pictures in training, a multiple of 8. Inference takes
        any size, and looks at about as much of a photo around a hole.
      width: of the generator's first layer, of which a gated convolution emits half.
      discriminator_width: features of the discriminator's first layer.
      guided: whether lines tell what is in the hole: in training edges of the truth,
        by Canny's detector.
      hed: file of a network that finds them instead, see `jaxpaint.hed`; read once, by
        `init`.
      channel_order: `rgb`, or `bgr` for networks that see blue first, as the released
        weights do; pictures are RGB in any case.
      adversarial_weight: of the generator's adversarial loss; 0 trains it without a
        discriminator.
      l1_weight: of the mean absolute errors of the coarse and the refined picture.
      known_weight: of these errors on known pixels, against 1 in the hole.
      hinge_factor: of both terms of the discriminator's loss; paper: 1.
      init_gain: of the generator's first weights over Glorot's, which are the official
        code's: with them the first output is nearly nothing (1e-7 of the input), and a
        run begins slowly. 3 keeps the amplitude through the layers.
      fixed_size: whether the network sees nothing but squares of `image_size`, cut out
        around the hole and scaled where that is large. For networks trained on one
        small size, which err at others.
      blend: whether `inpaint` blends what was drawn into the picture by its gradients,
        as GLCIC does.
      optim: how to train; official code: `b1` of 0.5.
      compute: precision and memory.

    Raises:
      InputError: a value that does not fit.
    """
    if image_size < _MULTIPLE or image_size % _MULTIPLE:
        raise InputError(f"image_size is {image_size}; want a multiple of {_MULTIPLE}")
    if width < 4 or width % 4:
        raise InputError(f"width is {width}; want a multiple of 4, such as 48")
    if discriminator_width < 1:
        raise InputError(
            f"discriminator_width is {discriminator_width}; want 1 or more"
        )
    if channel_order not in ("rgb", "bgr"):
        raise InputError(f"channel_order is '{channel_order}'; want rgb or bgr")
    if hed and not guided:
        raise InputError("hed finds lines, for guided=True only; got guided=False")
    if init_gain <= 0:
        raise InputError(f"init_gain is {init_gain}; want more than 0, such as 3")
    if min(adversarial_weight, l1_weight, known_weight, hinge_factor) < 0:
        raise InputError(
            "adversarial_weight, l1_weight, known_weight and hinge_factor must not be "
            "negative"
        )

    dtype = jnp.dtype(compute.dtype)
    generator = Generator(width, init_gain, dtype, compute.remat)
    discriminator = Discriminator(discriminator_width, dtype, compute.remat)
    optimizer = optimization.optimizer(optim)

    def ordered(image: jax.Array) -> jax.Array:
        """Turns RGB into the network's order of channels, or back."""
        return image if channel_order == "rgb" else image[..., ::-1]

    def init(key: jax.Array, batch: Batch) -> State:
        check_batch(batch, image_size)
        keys = jax.random.split(key)
        image = jnp.zeros((1, image_size, image_size, 3))
        mask = jnp.zeros((1, image_size, image_size, 1))
        sketch = [mask] if guided else []
        variables = dict(generator.init(keys[0], image, mask, *sketch))
        artist = optimization.begin(variables, optimizer)
        if adversarial_weight:
            seen = jnp.concatenate([image, mask, *sketch], axis=-1)
            found = discriminator.init(keys[1], seen)
            judge = optimization.begin({"params": found["params"]}, optimizer)
            judge = judge._replace(stats=found[COLLECTION])
        else:
            judge = optimization.begin({"params": {}}, optimizer)
        average = optimization.first_average(variables, optim)
        frozen = edge_network.read(hed) if hed else {}
        return State(jnp.int32(0), artist, judge, average, frozen)

    def lines_of(state: State, image: jax.Array) -> jax.Array:
        """Returns the edges of pictures, 1 = edge."""
        if not hed:
            return canny(image)
        sure = edge_network.edges(optimization.gathered(state.hed), image)
        return (sure > _SURE).astype(jnp.float32)

    def paint(
        variables: Params,
        image: jax.Array,
        mask: jax.Array,
        sketch: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the coarse and the refined picture."""
        coarse, refined = generator.apply(variables, image, mask, sketch)
        return jnp.asarray(coarse), jnp.asarray(refined)

    def scores(
        params: Params, vectors: Params, pictures: list[jax.Array], batch: Batch
    ) -> tuple[jax.Array, Params]:
        """Returns scores of pictures, one batch after the other, and new vectors."""
        shown = [batch[name] for name in ("mask", "sketch") if name in batch]
        seen = [jnp.concatenate([x, *shown], axis=-1) for x in pictures]
        variables = {"params": params, COLLECTION: vectors}
        out, new = discriminator.apply(
            variables, jnp.concatenate(seen), mutable=[COLLECTION]
        )
        return out, new[COLLECTION]

    def discriminator_loss(artist: Network):
        def loss(params: Params, vectors: Params, batch: Batch, key: jax.Array):
            del key
            truth, mask = batch["image"], batch["mask"]
            _, refined = paint(optimization.gathered(artist.variables()), **batch)
            fake = jax.lax.stop_gradient(compose(truth, refined, mask))
            out, vectors = scores(params, vectors, [truth, fake], batch)
            real, fake = jnp.split(out, 2)
            total = hinge(real, fake, hinge_factor)
            return total, (vectors, {"loss/disc": total})

        return loss

    def generator_loss(judge: Network):
        # The place of the statistics takes the discriminator's vectors, which move on.
        def loss(params: Params, vectors: Params, batch: Batch, key: jax.Array):
            del key
            truth, mask = batch["image"], batch["mask"]
            coarse, refined = paint({"params": params}, **batch)
            weights = mask + known_weight * (1 - mask)
            l1 = absolute(coarse, refined, truth, weights)
            total = l1_weight * l1
            metrics = {"loss/l1": l1}
            if adversarial_weight:
                fake = compose(truth, refined, mask)
                whole = optimization.gathered(judge.params)
                out, vectors = scores(whole, vectors, [fake], batch)
                metrics["loss/adv"] = -jnp.mean(out)
                total += adversarial_weight * metrics["loss/adv"]
            return total, (vectors, {"loss/gen": total, **metrics})

        return loss

    def train_step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        check_batch(batch, image_size)
        image, mask = batch["image"], batch["mask"]
        batch = {"image": ordered(image), "mask": mask}
        if guided:
            batch["sketch"] = lines_of(state, image) * mask
        judge, metrics = state.discriminator, {}
        if adversarial_weight:
            grads, vectors, metrics = optimization.gradients(
                discriminator_loss(state.generator),
                judge,
                batch,
                key,
                microbatches=optim.microbatches,
            )
            judge = optimization.update(judge, grads, vectors, optimizer)
            metrics["grad_norm/disc"] = optimization.norm(grads)
        grads, vectors, more = optimization.gradients(
            generator_loss(judge),
            state.generator._replace(stats=judge.stats),
            batch,
            key,
            microbatches=optim.microbatches,
        )
        judge = judge._replace(stats=vectors)
        artist = optimization.update(state.generator, grads, {}, optimizer)
        average = optimization.moving_average(
            state.average, artist.variables(), optim.ema_decay, state.step
        )
        more["grad_norm/gen"] = optimization.norm(grads)
        new = State(state.step + 1, artist, judge, average, state.hed)
        return new, metrics | more

    def eval_params(state: State) -> Params:
        return state.average or state.generator.variables()

    def load_params(state: State, params: Params) -> State:
        artist = optimization.begin(params, optimizer)
        average = optimization.first_average(params, optim)
        return state._replace(generator=artist, average=average)

    def refine(
        params: Params, image: jax.Array, mask: jax.Array, sketch: jax.Array
    ) -> jax.Array:
        """Returns the refined picture, of RGB pictures of any size."""
        height, width = image.shape[1:3]
        lines = [_padded(sketch)] if guided else []
        _, refined = paint(params, _padded(ordered(image)), _padded(mask), *lines)
        return ordered(refined[:, :height, :width])

    def led(
        params: Params,
        image: jax.Array,
        mask: jax.Array,
        sketch: jax.Array,
        key: jax.Array,
    ) -> jax.Array:
        del key
        seen = jnp.broadcast_to(image, (*image.shape[:3], 3))
        if fixed_size:
            crop = crops.around_hole(seen, mask, image_size)
            lines = (crop.cut(sketch) > _LINE).astype(jnp.float32)
            result = crop.back(refine(params, crop.image, crop.mask, lines))
        else:
            result = refine(params, seen, mask, sketch)
        return poisson.paste(image, result, mask, blended=blend)

    def inpaint(
        params: Params, image: jax.Array, mask: jax.Array, key: jax.Array
    ) -> jax.Array:
        return led(params, image, mask, jnp.zeros_like(mask), key)

    # With a hole of a quarter of the training pictures' sides it sees as much as there.
    window = Window(margin=image_size // 4, relative=0.5)
    if fixed_size:
        window = crops.window(image_size)
    return Method(
        init,
        train_step,
        eval_params,
        inpaint,
        window,
        load_params,
        guided=led if guided else None,
    )


def _padded(x: jax.Array) -> jax.Array:
    """Returns pictures mirrored at the lower and right border up to a size that fits.

    Masks too: what is a hole in the picture is one in the mirror.
    """
    height, width = (-side % _MULTIPLE for side in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, height), (0, width), (0, 0)), mode="reflect")
