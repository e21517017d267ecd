"""Parallel PatchMatch search over lists of patches: the core of field and fill.

A patch is named by its position: the flat index `row * width + column` of its top-left
pixel. Only listed patches are searched, in chunks of a static size, so that cost
follows their number and not the size of the image.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Carry = TypeVar("Carry")

JUMPS = (8, 4, 2, 1)
"""Distances over which successive passes spread matches, the longest first."""


class Positions(NamedTuple):
    """A list of flat positions, with a static capacity for all of an image's."""

    at: jax.Array
    """`[capacity]` int32: the listed positions in raster order, then zeros."""

    slot: jax.Array
    """`[H * W]` int32: index in `at` of each position; `capacity` where not listed."""

    length: jax.Array
    """Scalar int32: how many are listed."""


def list_positions(flags: jax.Array, chunk: int) -> Positions:
    """Returns the positions where `flags` `[H, W]` is set, for chunks of `chunk`."""
    flags = flags.reshape(-1)
    capacity = -(-flags.size // chunk) * chunk
    rank = jnp.cumsum(flags, dtype=jnp.int32)
    slot = jnp.where(flags, rank - 1, capacity)
    at = jnp.zeros(capacity, jnp.int32)
    at = at.at[slot].set(jnp.arange(flags.size, dtype=jnp.int32), mode="drop")
    return Positions(at, slot, rank[-1])


def for_chunks(
    count: jax.Array, chunk: int, body: Callable[[jax.Array, Carry], Carry], init: Carry
) -> Carry:
    """Returns the carry after `body(start, carry)` for each chunk of `count` items."""
    return lax.fori_loop(
        0, -(-count // chunk), lambda i, carry: body(i * chunk, carry), init
    )


def patches(
    image: jax.Array, at: jax.Array, size: int, row_stride: int = 1
) -> jax.Array:
    """Returns the patches of `image` `[H, W, C]` at flat positions `at` `[...]`.

    Shape `[..., rows, size * C]`, where `rows` are every `row_stride`-th of the patch,
    from the first on: each is one contiguous run of the image, so that a patch costs
    few short copies.
    """
    _, width, channels = image.shape
    rows = width * jnp.arange(0, size, row_stride)
    start = (jnp.expand_dims(at, -1) + rows.reshape((1,) * at.ndim + (-1,))) * channels
    runs = lax.GatherDimensionNumbers(
        offset_dims=(start.ndim,), collapsed_slice_dims=(), start_index_map=(0,)
    )
    length = size * channels
    return lax.gather(image.reshape(-1), start[..., None], runs, (length,), mode="clip")


def search(
    match: jax.Array,
    targets: Positions,
    distance: Callable[[jax.Array, jax.Array], jax.Array],
    source: jax.Array,
    key: jax.Array,
    *,
    passes: jax.Array | int,
    bounds: jax.Array,
    longest: int,
    target_width: int,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """Returns better matches and their distances after `passes` passes of search.

    In a pass each target compares its match with those of its four neighbours 8, 4, 2
    or 1 pixels away, moved along by as much, and with random positions around its
    match, which is the best so far. `len(JUMPS)` passes, one for each of these
    distances and together for all radii from `longest` down to 1, are an iteration in
    the sense of Barnes et al., PatchMatch, SIGGRAPH 2009. Only a smaller distance
    displaces a match, so ties keep the old one.

    Args:
      match: `[capacity]` int32, flat positions in the source image, all of them in
        `source`.
      targets: the positions to match.
      distance: `(at [K], candidate [K, N]) -> [K, N]`, of listed targets to positions
        in the source image.
      source: `[H, W]` bool, the positions that may be matched.
      key: random key.
      passes: how many. Without any, the distances are 0.
      bounds: `[2]` int32, rows and columns of the positions that may be drawn.
      longest: radius of the widest random search.
      target_width: width of the image that `targets` index.
      chunk: how many targets to treat at once. Later chunks see earlier results.
    """
    radii = [longest >> i for i in range(longest.bit_length())]
    radii += [1] * (-len(radii) % len(JUMPS))
    radii = jnp.array(radii, jnp.int32).reshape(len(JUMPS), -1)

    def body(i: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]):
        match, _, key = carry
        key, pass_key = jax.random.split(key)
        match, best = _search_pass(
            match,
            targets,
            distance,
            source,
            pass_key,
            jump=jnp.array(JUMPS)[i % len(JUMPS)],
            radii=radii[i % len(JUMPS)],
            bounds=bounds,
            target_width=target_width,
            chunk=chunk,
        )
        return match, best, key

    start = match, jnp.zeros(match.size), key
    return lax.fori_loop(0, passes, body, start)[:2]


def _search_pass(
    match: jax.Array,
    targets: Positions,
    distance: Callable[[jax.Array, jax.Array], jax.Array],
    source: jax.Array,
    key: jax.Array,
    *,
    jump: jax.Array,
    radii: jax.Array,
    bounds: jax.Array,
    target_width: int,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    source_width = source.shape[1]
    source = source.reshape(-1)
    capacity = targets.at.size
    steps = jnp.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    target_step = jump * (steps[:, 0] * target_width + steps[:, 1])[None]
    source_step = jump * (steps[:, 0] * source_width + steps[:, 1])[None]

    def neighbors(at: jax.Array, match: jax.Array) -> tuple[jax.Array, jax.Array]:
        # A step over the border of the image wraps to another row. What it finds
        # there is as good a guess as a random one, so only the ends are checked.
        at = at[:, None] + target_step
        slot = targets.slot.at[at].get(mode="fill", fill_value=capacity)
        slot = jnp.where(at < 0, capacity, slot)
        candidate = match.at[slot].get(mode="clip") - source_step
        return candidate, slot < capacity

    def draws(own: jax.Array, key: jax.Array) -> jax.Array:
        bits = jax.random.bits(key, (own.size, radii.size), jnp.uint32)

        def near(center: jax.Array, bits16: jax.Array, size: jax.Array):
            low = jnp.maximum(center[:, None] - radii[None], 0)
            high = jnp.minimum(center[:, None] + radii[None], size - 1)
            span = (high - low + 1).astype(jnp.uint32)
            return low + ((span * bits16) >> 16).astype(jnp.int32)

        row = near(own // source_width, bits >> 16, bounds[0])
        column = near(own % source_width, bits & 0xFFFF, bounds[1])
        return row * source_width + column

    def body(start, carry):
        match, best, key = carry
        key, draw_key = jax.random.split(key)
        at = lax.dynamic_slice_in_dim(targets.at, start, chunk)
        own = lax.dynamic_slice_in_dim(match, start, chunk)
        near, listed = neighbors(at, match)
        far = draws(own, draw_key)
        candidate = jnp.concatenate([own[:, None], near, far], axis=1)
        allowed = (candidate >= 0) & (candidate < source.size)
        candidate = jnp.clip(candidate, 0, source.size - 1)
        allowed &= source[candidate]
        allowed = allowed.at[:, 1:5].set(allowed[:, 1:5] & listed)
        d = jnp.where(allowed, distance(at, candidate), jnp.inf)
        winner = jnp.argmin(d, axis=1)
        own = jnp.take_along_axis(candidate, winner[:, None], axis=1)[:, 0]
        match = lax.dynamic_update_slice_in_dim(match, own, start, 0)
        best = lax.dynamic_update_slice_in_dim(best, jnp.min(d, axis=1), start, 0)
        return match, best, key

    best = jnp.zeros(capacity)
    match, best, _ = for_chunks(targets.length, chunk, body, (match, best, key))
    return match, best
