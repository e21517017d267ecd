"""Samplers of a diffusion model as one `lax.scan` over a fixed list of moves.

A sampler holds the moves, as arrays, and what each kind of move does; the network is
traced once. `run` scans over all of them; `part` gives the same scan in pieces, for
programs that report progress between them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpaint.diffusion.denoiser import Denoiser
from jaxpaint.diffusion.process import Process
from jaxpaint.errors import InputError

REST, UP, DOWN = 0, 1, 2
"""Kinds of moves: none (only fills up a list), towards noise, one network call."""


class Known(NamedTuple):
    """What a sampler is told of the picture."""

    image: jax.Array
    """`[B, H, W, C]` in [-1, 1]; what lies in the hole is not read."""
    mask: jax.Array
    """`[B, H, W, 1]`, 1 = hole."""

    def paste(self, noisy: jax.Array, known: jax.Array) -> jax.Array:
        """Returns `noisy` in the hole and `known` elsewhere."""
        return jnp.where(self.mask > 0.5, noisy, known)

    def seen(self, image: jax.Array) -> jax.Array:
        """Returns the image with zeros in the hole."""
        return self.paste(jnp.zeros_like(image), image)


class State(NamedTuple):
    """Where a sampler is; the carry of the scan."""

    x: jax.Array
    """`[B, H, W, C]` at the level of the last move."""
    memory: jax.Array
    """What a sampler remembers of its last network call, of the same shape."""
    bad: jax.Array | int = -1
    """Number of the first move after which `x` was not finite; -1: it always was."""


Moves = Mapping[str, np.ndarray]
"""By name, one entry for each move: `kind`, `level` and what the sampler needs."""

Draw = Callable[[int], jax.Array]
"""`number -> standard normal noise` of the image's shape, for one move."""

Noise = Callable[[jax.Array], Draw]
"""`move number -> Draw`."""


class Sampler(NamedTuple):
    """The moves and their meaning."""

    moves: Moves
    down: Callable[[Denoiser, Known, State, Any, Draw], State]
    """`(denoise, known, state, move, draw) -> state`, with one network call."""
    up: Callable[[State, Any, Draw], State] | None = None
    """`(state, move, draw) -> state`, without one; None: there are no such moves."""

    def network_calls(self) -> int:
        """Returns how often the network is called."""
        return int(np.sum(self.moves["kind"] == DOWN))


def noise_of_key(key: jax.Array, shape: tuple[int, ...]) -> Noise:
    """Returns noise that is a function of the key, the move and the draw."""

    def of_move(number: jax.Array) -> Draw:
        of_draw = jax.random.fold_in(key, number + 1)
        return lambda draw: jax.random.normal(jax.random.fold_in(of_draw, draw), shape)

    return of_move


def first(key: jax.Array, shape: tuple[int, ...]) -> State:
    """Returns the state before the first move: pure noise."""
    x = jax.random.normal(jax.random.fold_in(key, 0), shape)
    return State(x, jnp.zeros_like(x))


def run(
    sampler: Sampler,
    denoise: Denoiser,
    known: Known,
    key: jax.Array,
    *,
    state: State | None = None,
    noise: Noise | None = None,
) -> jax.Array:
    """Returns what the sampler ends with, `[B, H, W, C]`; known pixels are not pasted.

    Args:
      sampler: moves and steps.
      denoise: the model.
      known: picture and hole, of which each image of the batch has its own.
      key: for all noise.
      state: the beginning in place of noise of the key.
      noise: noise in place of that of the key: recorded, for example.
    """
    shape = known.image.shape
    state = first(key, shape) if state is None else state
    noise = noise_of_key(key, shape) if noise is None else noise
    return part(sampler, denoise, known, state, numbered(sampler.moves), noise).x


def numbered(moves: Moves) -> dict[str, np.ndarray]:
    """Returns the moves with their `number`."""
    return {**moves, "number": np.arange(len(moves["kind"]), dtype=np.int32)}


def parts(moves: Moves, count: int) -> list[dict[str, np.ndarray]]:
    """Returns the numbered moves in `count` parts of one length, the last one filled up
    with `REST`."""
    length = -(-len(moves["kind"]) // count)
    whole = numbered(moves)
    result = []
    for start in range(0, len(whole["kind"]), length):
        piece = {name: value[start : start + length] for name, value in whole.items()}
        missing = length - len(piece["kind"])
        result.append({n: np.pad(v, (0, missing)) for n, v in piece.items()})
    return result


def part(
    sampler: Sampler,
    denoise: Denoiser,
    known: Known,
    state: State,
    moves: Mapping[str, Any],
    noise: Noise,
) -> State:
    """Returns the state after numbered `moves`, as one scan."""

    def rest(state: State, move: Any) -> State:
        del move
        return state

    def up(state: State, move: Any) -> State:
        if sampler.up is None:
            return state
        return sampler.up(state, move, noise(move["number"]))

    def down(state: State, move: Any) -> State:
        return sampler.down(denoise, known, state, move, noise(move["number"]))

    def body(state: State, move: Any) -> tuple[State, None]:
        after = lax.switch(move["kind"], (rest, up, down), state, move)
        broken = (state.bad < 0) & ~jnp.all(jnp.isfinite(after.x))
        return after._replace(bad=jnp.where(broken, move["number"], state.bad)), None

    state = state._replace(bad=jnp.asarray(state.bad, jnp.int32))
    return lax.scan(body, state, jax.tree.map(jnp.asarray, dict(moves)))[0]


def moves_of(process: Process, pairs: np.ndarray) -> dict[str, np.ndarray]:
    """Returns moves for pairs of levels `[N, 2]`, from and to.

    `kind`; `level`, that of the image a network sees, or that a climb ends at; `keep`
    and `add`, by which a climb multiplies the image and the noise.

    Raises:
      InputError: the first move does not start at the noisiest level of the process.
    """
    start, stop = pairs[:, 0], pairs[:, 1]
    if start[0] != len(process) - 1:
        raise InputError(
            f"the moves start at level {start[0]}, but the process has {len(process)}; "
            f"respace it to {start[0] + 1} steps"
        )
    climbs = stop > start
    ratio = np.where(
        climbs, process.abar[stop] / process.abar[np.maximum(start, 0)], 1.0
    )
    # From the clean image everything is still to come.
    ratio = np.where(climbs & (start < 0), process.abar[stop], ratio)
    return {
        "kind": np.where(climbs, UP, DOWN).astype(np.int32),
        "level": np.where(climbs, stop, start).astype(np.int32),
        "keep": np.sqrt(ratio).astype(np.float32),
        "add": np.sqrt(1 - ratio).astype(np.float32),
    }


def climb(state: State, move: Any, draw: Draw) -> State:
    """Adds the noise that leads from one level to a noisier one (RePaint, line 10)."""
    return state._replace(x=move["keep"] * state.x + move["add"] * draw(0))
