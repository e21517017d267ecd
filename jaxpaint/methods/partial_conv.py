"""Partial Convolutions: a U-Net that looks at known pixels only (Liu et al. 2018)."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxpaint import features as feature_networks
from jaxpaint import images, losses, optimization, poisson
from jaxpaint.config import Compute, Optim
from jaxpaint.errors import InputError
from jaxpaint.features import imagenet
from jaxpaint.methods._partial_conv_unet import UNet
from jaxpaint.types import Batch, Method, Metrics, Params, Window


class State(NamedTuple):
    """A training run."""

    step: jax.Array
    network: optimization.Network
    average: Params
    """Moving average of what inference needs; `{}` without one."""
    features: Params
    """The feature network, which stays as it is; `{}` without one."""


def make(
    *,
    levels: int = 8,
    width: int = 64,
    max_width: int = 512,
    first_bias: bool = False,
    window_scale: bool = True,
    normalize: bool = False,
    freeze_encoder_norm: bool = False,
    freeze_encoder_affine: bool = False,
    valid: float = 1.0,
    hole: float = 6.0,
    perceptual: float = 0.05,
    style: float = 120.0,
    tv: float = 0.1,
    features: str = "",
    optim: Optim = Optim(),  # noqa: B008
    compute: Compute = Compute(),  # noqa: B008
) -> Method:
    """Returns the method; the defaults are the paper's network for 512 x 512 pixels.

    Args:
      levels: halvings of the encoder, which has as many layers, and so the decoder.
      width: channels of the first layer; they double with each level.
      max_width: up to this many.
      first_bias: whether the first layer has a bias, as in mmagic.
      window_scale: False divides by the known entries of a window without multiplying
        by their greatest number, as the weights of naoto0804 need.
      normalize: whether the network works on images with ImageNet's mean and standard
        deviation, as the weights of naoto0804 need.
      freeze_encoder_norm: the second phase of training, in which the encoder uses its
        running statistics and keeps them.
      freeze_encoder_affine: whether scale and bias of the encoder's norms rest too.
      valid: weight of the mean absolute difference of known pixels.
      hole: weight of that of the hole.
      perceptual: weight of the difference of feature maps.
      style: weight of the difference of their Gram matrices.
      tv: weight of the total variation in the hole.
      features: file of the feature network that `perceptual` and `style` need: VGG16 of
        torchvision (`.pth`) or EfficientNet-Lite0 (`.npz`); read once, by `init`.
      optim: how parameters are updated.
      compute: precision and memory.

    Raises:
      InputError: an option out of its range; from `train_step`: no feature network.
    """
    _check(levels, width, max_width)
    dtype = jnp.dtype(compute.dtype)
    extractor = feature_networks.find(features) if features else None
    unet = UNet(
        levels=levels,
        width=width,
        max_width=max_width,
        first_bias=first_bias,
        window_scale=window_scale,
        freeze_encoder_norm=freeze_encoder_norm,
        dtype=dtype,
        remat=compute.remat,
    )
    transformation = optimization.optimizer(optim)
    if freeze_encoder_affine:
        rest = optax.masked(optax.set_to_zero(), _encoder_affine)
        transformation = optax.chain(transformation, rest)
    weights = {
        "valid": valid,
        "hole": hole,
        "perceptual": perceptual,
        "style": style,
        "tv": tv,
    }

    def run(variables: Params, image: jax.Array, mask: jax.Array, **how: Any) -> Any:
        """Applies the network; gives images in [-1, 1], unclipped."""
        if normalize:
            image = imagenet.normalize(image)
        result = unet.apply(variables, image, 1 - mask, **how)
        (output, _), *stats = result if "mutable" in how else (result,)
        output = output.astype(jnp.float32)
        if normalize:
            output = imagenet.restore(output)
        return (output, *stats)

    def init(key: jax.Array, batch: Batch) -> State:
        image, mask = batch["image"][:1], batch["mask"][:1]
        variables = unet.init(key, image, 1 - mask, train=False)
        network = optimization.begin(dict(variables), transformation)
        average = optimization.first_average(network.variables(), optim)
        frozen = extractor.read(features) if extractor else {}
        return State(jnp.zeros((), jnp.int32), network, average, frozen)

    def train_step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        if (perceptual or style) and extractor is None:
            raise InputError(
                "the perceptual and style losses need a feature network; give "
                "features=PATH (VGG16 of torchvision, .pth), or perceptual=0 style=0"
            )

        maps = None
        if extractor is not None:
            frozen = optimization.gathered(state.features)
            maps = functools.partial(extractor.maps, frozen, dtype=dtype)

        def loss(params: Params, stats: Params, batch: Batch, key: jax.Array):
            variables = optimization.Network(params, stats, None).variables()
            output, changed = run(
                variables,
                batch["image"],
                batch["mask"],
                train=True,
                mutable=["batch_stats"],
            )
            terms = _terms(output, batch["image"], batch["mask"], weights, maps)
            total = jnp.float32(0)
            for name, value in terms.items():
                total += weights[name] * value
            metrics = {f"loss/{name}": value for name, value in terms.items()}
            stats = changed.get("batch_stats", {})
            return total, (stats, {"loss/total": total, **metrics})

        grads, stats, metrics = optimization.gradients(
            loss, state.network, batch, key, microbatches=optim.microbatches
        )
        network = optimization.update(state.network, grads, stats, transformation)
        average = optimization.moving_average(
            state.average, network.variables(), optim.ema_decay, state.step
        )
        metrics["grad_norm"] = optimization.norm(grads)
        return State(state.step + 1, network, average, state.features), metrics

    def eval_params(state: State) -> Params:
        return state.average or state.network.variables()

    def load_params(state: State, params: Params) -> State:
        network = optimization.begin(params, transformation)
        average = optimization.first_average(params, optim)
        return state._replace(network=network, average=average)

    def inpaint(
        params: Params, image: jax.Array, mask: jax.Array, key: jax.Array
    ) -> jax.Array:
        del key
        shape = (*image.shape[:3], 3)
        (output,) = run(params, jnp.broadcast_to(image, shape), mask, train=False)
        return poisson.paste(image, jnp.clip(output, -1, 1), mask, blended=False)

    # A window of twice the hole's side, in which every layer has something to see.
    window = Window(margin=2 ** (levels - 1), relative=0.5)
    return Method(init, train_step, eval_params, inpaint, window, load_params)


def _terms(
    output: jax.Array,
    truth: jax.Array,
    mask: jax.Array,
    weights: dict[str, float],
    maps: Callable[[jax.Array], list[jax.Array]] | None,
) -> Metrics:
    """Returns the loss terms that have a weight; Liu et al. (2018), section 3.3."""
    composite = images.compose(truth, output, mask)
    terms: Metrics = {}
    if weights["valid"]:
        terms["valid"] = losses.masked_l1(output, truth, 1 - mask)
    if weights["hole"]:
        terms["hole"] = losses.masked_l1(output, truth, mask)
    if maps is not None and (weights["perceptual"] or weights["style"]):
        want = jax.lax.stop_gradient(maps(truth))
        got = [maps(output), maps(composite)]
        for name in ("perceptual", "style"):
            if weights[name]:
                compare = getattr(losses, name)
                terms[name] = compare(got[0], want) + compare(got[1], want)
    if weights["tv"]:
        terms["tv"] = losses.total_variation(composite, losses.dilate(mask))
    return terms


def _encoder_affine(params: Params) -> Params:
    """Returns the tree of True at scale and bias of the encoder's norms."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[0].key.startswith("enc") and path[1].key == "norm", params
    )


def _check(levels: int, width: int, max_width: int) -> None:
    for name, value in {
        "levels": levels,
        "width": width,
        "max_width": max_width,
    }.items():
        if value < 1:
            raise InputError(f"{name} is {value}; want a whole number of at least 1")
