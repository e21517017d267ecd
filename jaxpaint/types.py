"""The `Method` interface and the names of the types that cross module borders."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Params = Any
"""A pytree of network parameters; `{}` for classical methods."""

State = Any
"""A pytree with all that a training run must remember."""

Batch = dict[str, jax.Array]
"""Arrays of one training batch, by name."""

Metrics = dict[str, jax.Array]
"""Scalars of one training step, by name."""


class Window(NamedTuple):
    """How much of a photo a method wants to see around one hole.

    The front end cuts this window out, runs the method on it and pastes the hole
    back, so that cost follows the hole and not the photo.
    """

    margin: int
    """Pixels of surroundings on each side, at least."""

    relative: float = 0.0
    """Further surroundings on each side, as a multiple of the hole's longer side."""

    splits: bool = False
    """Whether a thin hole may be cut into pieces that are filled independently.

    True for local solvers, whose answer at a pixel depends on far pixels of a thin
    hole by a vanishing amount only.
    """

    size: int = 0
    """Side of the square that the method sees of any window, if it has one: it scales
    larger windows down to it, by which holes lose detail. Windows are this large, or
    larger by powers of two, and holes share one only where none has to be scaled. The
    larger one of `margin` and `relative` counts then; for holes that share a window,
    `margin`."""

    whole: bool = False
    """Whether the square shows all of a window, and not what lies around the hole: then
    none is larger than wanted, and more shapes are compiled."""


class Stages(NamedTuple):
    """Inpainting in pieces, for methods that take so long that people want to see how
    far they are, and to stop them. One after another they give what `inpaint` does."""

    begin: Callable[[Params, jax.Array, jax.Array, jax.Array], Any]
    """`(params, image, mask, key) -> carry`.

    Where the method sees squares of one size, the carry has the same shapes for all
    images: `advance`, the long part, is then compiled once.
    """

    parts: tuple[Any, ...]
    """Pytrees of arrays, of the same shapes: what `advance` does, part by part."""

    advance: Callable[[Params, Any, Any], Any]
    """`(params, carry, part) -> carry`."""

    finish: Callable[[Any, jax.Array, jax.Array], jax.Array]
    """`(carry, image, mask) -> image`."""

    broken: Callable[[Any], jax.Array]
    """`(carry) -> number of the first step whose result is not finite`, or -1."""


class Method(NamedTuple):
    """An inpainting method as pure functions, in the manner of an optax transformation.

    Images are float32 `[B, H, W, C]` in [-1, 1], masks float32 `[B, H, W, 1]` with
    1 = hole. All functions can be jitted; shapes are static.
    """

    init: Callable[[jax.Array, Batch], State]
    """`(key, batch) -> state`."""

    train_step: Callable[[State, Batch, jax.Array], tuple[State, Metrics]] | None
    """`(state, batch, key) -> (state, metrics)`; None for classical methods."""

    eval_params: Callable[[State], Params]
    """`(state) -> params`: what inference needs."""

    inpaint: Callable[[Params, jax.Array, jax.Array, jax.Array], jax.Array]
    """`(params, image, mask, key) -> image`: known pixels come back bit for bit."""

    window: Window
    """The surroundings that `inpaint` needs."""

    load_params: Callable[[State, Params], State] | None = None
    """`(state, params) -> state`: puts what `eval_params` returns into a fresh state,
    to go on training from published or exported weights; None for classical methods."""

    stages: Stages | None = None
    """`inpaint` in pieces, where it takes long."""

    guided: (
        Callable[[Params, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array] | None
    ) = None
    """`(params, image, mask, sketch, key) -> image`: `inpaint` led by lines, float32
    `[B, H, W, 1]` with 1 = line; None where no lines are taken."""


def classical(
    inpaint: Callable[[jax.Array, jax.Array, jax.Array], jax.Array], window: Window
) -> Method:
    """Returns the method without parameters of an `(image, mask, key) -> image`."""
    return Method(
        init=lambda key, batch: {},
        train_step=None,
        eval_params=lambda state: state,
        inpaint=lambda params, image, mask, key: inpaint(image, mask, key),
        window=window,
    )
