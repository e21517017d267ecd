"""Globally and Locally Consistent Image Completion: two judges, of all and of a window.

Iizuka, Simo-Serra, Ishikawa, "Globally and Locally Consistent Image Completion",
SIGGRAPH 2017. The training code was never published; what is known only through ports
of it, and what differs from them, is told in docs/glcic.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxpaint import optimization, poisson
from jaxpaint.config import Compute, Optim
from jaxpaint.crops import extent
from jaxpaint.errors import InputError
from jaxpaint.images import check_batch, compose
from jaxpaint.methods._glcic_networks import Completion, Discriminator, levels
from jaxpaint.optimization import Network
from jaxpaint.types import Batch, Method, Metrics, Params, Window


class State(NamedTuple):
    """A training run."""

    step: jax.Array
    """Steps done, which tell the phase."""
    completion: Network
    discriminator: Network
    average: Params
    """Moving average of the completion network's variables; `{}` without one."""


def make(
    *,
    image_size: int = 256,
    local_size: int = 0,
    width: int = 64,
    dilations: tuple[int, ...] = (2, 4, 8, 16),
    discriminator_width: int = 64,
    discriminator_features: int = 1024,
    completion_steps: int = 90_000,
    discriminator_steps: int = 10_000,
    alpha: float = 0.0004,
    judge_raw: bool = False,
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    sigmoid: bool = True,
    norm_last: bool = False,
    adadelta: bool = True,
    blend: bool = True,
    optim: Optim = Optim(),  # noqa: B008 - frozen
    compute: Compute = Compute(),  # noqa: B008 - frozen
) -> Method:
    """Returns the method; defaults are those of the paper for 256 x 256 pixels.

    A run has three phases: the completion network alone, on squared errors; the
    discriminators alone, while the completion network rests; and both. The number of
    the step decides, so that a run can be interrupted in any of them. With a
    `completion_steps` of the run's length it stays with squared errors.

    Args:
      image_size: side of the pictures in training, a multiple of 4.
      local_size: side of the window that the local discriminator sees; 0: half of the
        picture's. The largest hole should fit into it.
      width: channels of the completion network's first layer; up to 4 times more.
      dilations: of the layers in the middle, at a quarter of the sides.
      discriminator_width: channels of the discriminators' first layers; up to 8 times
        more.
      discriminator_features: of what each discriminator hands to the last layer.
      completion_steps: length of the first phase.
      discriminator_steps: length of the second.
      alpha: weight of the adversarial loss against the mean squared error, of pictures
        in [0, 1] with `sigmoid`.
      judge_raw: show the discriminators the network's output as it is, and not the
        picture with its hole filled from there.
      mean: color that stands for unknown pixels, that of the data, in [-1, 1].
      sigmoid: the networks work on [0, 1] and the output is a sigmoid; False: [-1, 1],
        clipped, as in mmagic.
      norm_last: batch norm behind the ReLU and biases in the convolutions, as in the
        weights of otenim.
      adadelta: use ADADELTA, with `optim.lr` as a factor that is 1 in the paper;
        otherwise Adam.
      blend: `inpaint` blends what was drawn into the picture by its gradients.
      optim: how to train. Each network counts the steps of its schedule by itself.
      compute: precision and memory.

    Raises:
      InputError: a value that does not fit.
    """
    local_size = local_size or image_size // 2
    _check(image_size, local_size, completion_steps, discriminator_steps, alpha)
    dtype = jnp.dtype(compute.dtype)
    network = Completion(
        width, tuple(dilations), sigmoid, norm_last, dtype, compute.remat
    )
    judge = Discriminator(
        levels(image_size),
        levels(local_size),
        discriminator_width,
        discriminator_features,
        norm_last,
        dtype,
        compute.remat,
    )
    transformation = (
        optimization.adadelta(optim) if adadelta else optimization.optimizer(optim)
    )
    # The completion network may update in phases 0 and 2, the judges in 1 and 2.
    borders = (completion_steps, completion_steps + discriminator_steps)

    def to_network(image: jax.Array) -> jax.Array:
        return (image + 1) / 2 if sigmoid else image

    color = to_network(jnp.asarray(mean, jnp.float32))

    def init(key: jax.Array, batch: Batch) -> State:
        check_batch(batch, image_size)
        keys = jax.random.split(key)
        sides, local_sides = (image_size,) * 2, (local_size,) * 2
        variables = dict(network.init(keys[0], jnp.zeros((1, *sides, 4)), False))
        critic = judge.init(
            keys[1], jnp.zeros((1, *sides, 3)), jnp.zeros((1, *local_sides, 3)), False
        )
        return State(
            jnp.int32(0),
            optimization.begin(variables, transformation),
            optimization.begin(dict(critic), transformation),
            optimization.first_average(variables, optim),
        )

    def draw(
        params: Params, stats: Params, batch: Batch, train: bool
    ) -> tuple[jax.Array, Params]:
        """Returns what the network draws and, with `train`, new statistics."""
        variables = {"params": params, "batch_stats": stats}
        x = masked(to_network(batch["image"]), batch["mask"], color)
        if not train:
            return jnp.asarray(network.apply(variables, x, False)), stats
        output, new = network.apply(variables, x, True, mutable=["batch_stats"])
        return output, new["batch_stats"]

    def judged(
        params: Params, stats: Params, image: jax.Array, start: jax.Array
    ) -> tuple[jax.Array, Params]:
        """Returns logits, and new statistics; start: of the local windows."""
        variables = {"params": params, "batch_stats": stats}
        window = cut(image, start, local_size)
        logits, new = judge.apply(
            variables, image, window, True, mutable=["batch_stats"]
        )
        return logits, new["batch_stats"]

    def shown(output: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns what the discriminators see of a drawing: picture, and window."""
        start = around_hole(batch["mask"], local_size)
        if judge_raw:
            return output, start
        return compose(to_network(batch["image"]), output, batch["mask"]), start

    def completion_loss(critic: Network | None):
        """Returns the loss of the completion network, adversarial with a critic."""

        def loss(params: Params, stats: Params, batch: Batch, key: jax.Array):
            del key
            output, stats = draw(params, stats, batch, True)
            error = squared_error(output, to_network(batch["image"]), batch["mask"])
            if critic is None:
                return error, (stats, {"loss/gen": error, "loss/rec": error})
            whole = optimization.gathered(critic.params)
            logits, _ = judged(whole, critic.stats, *shown(output, batch))
            adversarial = cross_entropy(logits, 1.0)
            total = error + alpha * adversarial
            metrics = {
                "loss/gen": total,
                "loss/rec": error,
                "loss/adv": adversarial,
            }
            return total, (stats, metrics)

        return loss

    def discriminator_loss(artist: Network, train: bool):
        """Returns the loss of the discriminators; train: the artist trains as well."""

        def loss(params: Params, stats: Params, batch: Batch, key: jax.Array):
            whole = optimization.gathered(artist.params)
            output, _ = draw(whole, artist.stats, batch, train)
            drawn, hole = shown(jax.lax.stop_gradient(output), batch)
            true = to_network(batch["image"])
            anywhere = random_windows(key, len(true), image_size, local_size)
            on_true, stats = judged(params, stats, true, anywhere)
            on_drawn, stats = judged(params, stats, drawn, hole)
            total = cross_entropy(on_true, 1.0) + cross_entropy(on_drawn, 0.0)
            return total, (stats, {"loss/disc": total})

        return loss

    def learn(loss, learner: Network, batch: Batch, key: jax.Array, name: str):
        """Returns the network after one step, and metrics."""
        grads, stats, metrics = optimization.gradients(
            loss, learner, batch, key, microbatches=optim.microbatches
        )
        learner = optimization.update(learner, grads, stats, transformation)
        return learner, metrics | {f"grad_norm/{name}": optimization.norm(grads)}

    def completion_phase(artist: Network, critic: Network, batch: Batch, key):
        artist, metrics = learn(completion_loss(None), artist, batch, key, "gen")
        return artist, critic, _NOTHING | metrics

    def discriminator_phase(artist: Network, critic: Network, batch: Batch, key):
        loss = discriminator_loss(artist, train=False)
        critic, metrics = learn(loss, critic, batch, key, "disc")
        return artist, critic, _NOTHING | metrics

    def joint_phase(artist: Network, critic: Network, batch: Batch, key):
        loss = discriminator_loss(artist, train=True)
        critic, metrics = learn(loss, critic, batch, key, "disc")
        artist, more = learn(completion_loss(critic), artist, batch, key, "gen")
        return artist, critic, metrics | more

    def train_step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        check_batch(batch, image_size)
        phase = sum((state.step >= border).astype(jnp.int32) for border in borders)
        artist, critic, metrics = jax.lax.switch(
            phase,
            (completion_phase, discriminator_phase, joint_phase),
            *(state.completion, state.discriminator, batch, key),
        )
        average = optimization.moving_average(
            state.average, artist.variables(), optim.ema_decay, state.step
        )
        return State(state.step + 1, artist, critic, average), metrics

    def eval_params(state: State) -> Params:
        return state.average or state.completion.variables()

    def load_params(state: State, params: Params) -> State:
        params = jax.tree.map(jnp.asarray, params)
        artist = state.completion._replace(
            params=params["params"], stats=params["batch_stats"]
        )
        average = optimization.first_average(params, optim)
        return state._replace(completion=artist, average=average)

    def inpaint(
        params: Params, image: jax.Array, mask: jax.Array, key: jax.Array
    ) -> jax.Array:
        del key
        height, width = image.shape[1:3]
        image_3 = jnp.broadcast_to(image, (*image.shape[:3], 3))
        x = masked(to_network(image_3), mask, color)
        pad = ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0))
        output = network.apply(params, jnp.pad(x, pad, mode="symmetric"), False)
        output = jnp.asarray(output)[:, :height, :width]
        fill = 2 * output - 1 if sigmoid else output
        return poisson.paste(image, fill, mask, blended=blend)

    # A hole as large as in training gets a window as large as there, at least.
    window = Window(margin=image_size // 4, relative=0.25)
    return Method(init, train_step, eval_params, inpaint, window, load_params)


_NOTHING = dict.fromkeys(
    (
        *("loss/gen", "loss/rec", "loss/adv", "loss/disc"),
        *("grad_norm/gen", "grad_norm/disc"),
    ),
    0.0,
)
"""The metrics of a network that rests."""


def masked(image: jax.Array, mask: jax.Array, color: jax.Array) -> jax.Array:
    """Returns `[B, H, W, 4]`: pictures with a color `[3]` in the hole, and the mask."""
    known = jnp.where(mask > 0.5, color[None, None, None], image)
    return jnp.concatenate([known, mask], axis=-1)


def squared_error(output: jax.Array, truth: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the squared error in the hole, averaged over all elements (equation 2).

    The paper writes a norm; the mean is that of otenim's port.
    """
    return jnp.mean(jnp.square(mask * (output - truth)))


def cross_entropy(logits: jax.Array, label: float) -> jax.Array:
    """Returns the mean cross entropy with one label for all (equation 3).

    With label 1 on what was drawn, the completion network's loss: -log D in the place
    of log(1 - D), whose gradient vanishes where the discriminators are sure.
    """
    labels = jnp.full_like(logits, label)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels))


def around_hole(mask: jax.Array, size: int) -> jax.Array:
    """Returns the upper left corners of windows around the holes, int32 `[B, 2]`.

    The hole lies in the middle of a window of sides `size`, as far as the picture's
    border allows; holes that fit into one are inside.
    """
    starts = []
    for axes, side in zip(((2, 3), (1, 3)), mask.shape[1:3], strict=True):
        first, behind = extent(mask, axes)
        starts.append(jnp.clip((first + behind - size) // 2, 0, side - size))
    return jnp.stack(starts, axis=-1)


def random_windows(key: jax.Array, count: int, image_size: int, size: int) -> jax.Array:
    """Returns the upper left corners of windows anywhere, int32 `[count, 2]`."""
    return jax.random.randint(key, (count, 2), 0, image_size - size + 1)


def cut(image: jax.Array, start: jax.Array, size: int) -> jax.Array:
    """Returns the windows `[B, size, size, C]` that start at `[B, 2]`."""

    def one(image: jax.Array, start: jax.Array) -> jax.Array:
        corner = (start[0], start[1], 0)
        return jax.lax.dynamic_slice(image, corner, (size, size, image.shape[-1]))

    return jax.vmap(one)(image, start)


def _check(
    image_size: int, local_size: int, completion: int, discriminator: int, alpha: float
) -> None:
    if image_size < 16 or image_size % 4:
        raise InputError(
            f"image_size is {image_size}; want 16 or more, a multiple of 4"
        )
    if not 8 <= local_size <= image_size:
        raise InputError(f"local_size is {local_size}; want 8 to {image_size}, or 0")
    if completion < 0 or discriminator < 0:
        raise InputError(
            "completion_steps and discriminator_steps must not be negative; got "
            f"{completion} and {discriminator}"
        )
    if alpha < 0:
        raise InputError(f"alpha is {alpha}; want 0 or more")
