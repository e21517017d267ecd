"""PatchMatch hole filling: texture voted from known patches, coarse to fine.

Source: Barnes et al., PatchMatch, SIGGRAPH 2009, on the optimisation of Wexler et al.,
Space-Time Completion of Video, PAMI 2007. Deviations: the search is data-parallel
(`jaxpaint.patch_search`) and goes from the hole to the known region only; in the
distance of two patches a filled pixel counts less than a known one, the less the
deeper it lies.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxpaint.errors import InputError
from jaxpaint.hole_pyramid import Pyramid, hole_pyramid
from jaxpaint.images import compose
from jaxpaint.patch_search import (
    JUMPS,
    Positions,
    for_chunks,
    list_positions,
    patches,
    search,
)
from jaxpaint.types import Method, Window, classical

CHUNK = 512
"""Patches or pixels treated at once: more leave the cache, fewer loop more often."""

ROW_STRIDE = 2
"""Of each patch every second row is compared: as good a fill in 0.6 of the time."""

TOLERANCE = 1e-3
"""Mean change of the fill, in image units, below which a level has settled."""

LEAST_TRUST = 1e-12
"""Lower bound of a pixel's weight, so that sums over deep patches stay above 0."""


class Options(NamedTuple):
    """The arguments of `make`, which see."""

    patch_size: int
    levels: int
    rounds: int
    final_rounds: int
    decay: float
    filled_weight: float


def make(
    *,
    patch_size: int = 7,
    levels: int = 8,
    rounds: int = 10,
    final_rounds: int = 3,
    decay: float = 1.3,
    filled_weight: float = 0.01,
) -> Method:
    """Returns the method.

    Args:
      patch_size: side of the square patches in pixels, odd.
      levels: most pyramid levels to use. How many are used depends on the width of the
        hole: on the coarsest it is no wider than two patches.
      rounds: most rounds of search and voting on the coarsest level. The levels
        between it and the finest get half as many.
      final_rounds: most rounds of search and voting on the finest level.
      decay: factor by which trust in filled pixels and in votes falls per pixel of
        depth in the hole.
      filled_weight: weight of a filled pixel at the rim of the hole in the distance of
        patches, relative to a known pixel.

    Raises:
      InputError: a value is out of range.
    """
    if patch_size < 3 or patch_size % 2 == 0:
        raise InputError(f"patch_size must be odd and at least 3; got {patch_size}")
    if min(levels, rounds, final_rounds) < 1:
        raise InputError(
            "levels, rounds and final_rounds must be at least 1; got "
            f"{levels}, {rounds} and {final_rounds}"
        )
    if decay < 1 or not 0 < filled_weight <= 1:
        raise InputError(
            "decay must be at least 1 and filled_weight above 0 and at most 1; got "
            f"{decay} and {filled_weight}"
        )
    options = Options(patch_size, levels, rounds, final_rounds, decay, filled_weight)

    def inpaint(image: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
        hole = mask[..., 0] > 0.5
        known = jnp.where(hole[..., None], 0, image)
        # One image after the other, all with the same key: an image is filled alike in
        # any batch, and none waits for the rounds of another.
        fill = lax.map(lambda x: _fill(x[0], x[1], key, options), (known, hole))
        return compose(image, fill, mask)

    return classical(inpaint, Window(margin=64, relative=1.0))


class Level(NamedTuple):
    """One level of the pyramid, with the lists of what is to be matched and filled."""

    image: jax.Array
    """`[H, W, C]`, 0 in the hole."""

    trust: jax.Array
    """`[H, W, C]`, weight of each value in the distance of patches."""

    source: jax.Array
    """`[H, W]` bool, the positions that may be matched."""

    targets: Positions
    """The patches to match."""

    holes: Positions
    """The pixels to fill."""

    log_confidence: jax.Array
    """`[capacity of targets]`, logarithm of a patch's weight as a voter."""

    bounds: jax.Array
    """`[2]`, rows and columns of positions."""

    def live(self) -> jax.Array:
        """`[capacity of targets]` bool, which entries are listed."""
        return jnp.arange(self.targets.at.size) < self.targets.length


def _fill(
    known: jax.Array, hole: jax.Array, key: jax.Array, options: Options
) -> jax.Array:
    """Returns `[H, W, C]` with the hole of `known`, which is 0 there, filled."""
    size = options.patch_size
    pyramid = hole_pyramid(known, hole, patch_size=size, levels=options.levels)
    count = len(pyramid.size)
    # Too coarse a start loses what the picture is about: structures meet across the
    # hole once it is no wider than two patches.
    too_wide = jnp.max(pyramid.depth[0]) > 2 * (size // 2) * 2 ** jnp.arange(count - 1)
    usable = jnp.cumprod(jnp.any(pyramid.source, axis=(1, 2)))
    top = jnp.minimum(1 + jnp.sum(too_wide), jnp.sum(usable)) - 1

    def finer(carry):
        index, coarse_match, _, key = carry
        key, start_key, round_key = jax.random.split(key, 3)
        level = _level(pyramid, index, options)
        match, log_weight = _start(level, coarse_match, size, start_key)
        x, match = _rounds(
            level,
            pyramid.smooth[index],
            match,
            log_weight,
            round_key,
            options,
            coarsest=index == top,
            finest=index == 0,
        )
        coarse_match = match.at[level.targets.slot].get(mode="fill", fill_value=-1)
        return index - 1, coarse_match, x, key

    unmatched = jnp.full(hole.size, -1, jnp.int32)
    start = top, unmatched, pyramid.smooth[0], key
    return lax.while_loop(lambda carry: carry[0] >= 0, finer, start)[2]


def _level(pyramid: Pyramid, index: jax.Array, options: Options) -> Level:
    level = jax.tree.map(lambda x: x[index], pyramid)
    size = options.patch_size
    chunk = min(CHUNK, level.hole.size)
    targets = list_positions(level.target, chunk)
    trust = options.filled_weight * options.decay ** (1 - level.depth)
    trust = jnp.where(level.hole, jnp.maximum(trust, LEAST_TRUST), 1)[..., None]
    center = targets.at + (size // 2) * (level.hole.shape[1] + 1)
    return Level(
        image=level.image,
        trust=jnp.broadcast_to(trust, level.image.shape),
        source=level.source,
        targets=targets,
        holes=list_positions(level.hole, chunk),
        log_confidence=-math.log(options.decay) * level.depth.reshape(-1)[center],
        bounds=level.size - size + 1,
    )


def _start(
    level: Level, coarse_match: jax.Array, size: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns first matches, from the level above where it has one, and log weights.

    Args:
      level: this level.
      coarse_match: `[H * W]`, match of each position one level up, -1 for none.
      size: side of the patches.
      key: random key, for the matches that the level above does not give.
    """
    width = level.image.shape[1]
    source = level.source.reshape(-1)
    rows, columns = level.bounds
    shape = level.targets.at.shape
    draws = jax.random.bits(key, shape, jnp.uint32)
    row = (draws >> 16) * rows.astype(jnp.uint32) >> 16
    column = (draws & 0xFFFF) * columns.astype(jnp.uint32) >> 16
    drawn = (row * width + column).astype(jnp.int32)
    drawn = jnp.where(source[drawn], drawn, jnp.argmax(source))

    # Patches correspond between levels by their centers.
    radius = size // 2
    center = jnp.stack([level.targets.at // width, level.targets.at % width]) + radius
    coarse_size = (level.bounds + size - 1) // 2
    parent = jnp.minimum(center // 2, coarse_size[:, None] - radius - 1)
    at = parent - radius
    coarse = coarse_match.at[at[0] * width + at[1]].get(mode="clip")
    coarse_center = jnp.stack([coarse // width, coarse % width]) + radius
    fine = 2 * coarse_center + (center - 2 * parent) - radius
    inside = jnp.all((at >= 0) & (fine < level.bounds[:, None]), axis=0) & (coarse >= 0)
    fine = jnp.where(inside, fine[0] * width + fine[1], 0)
    inside &= source[fine]
    # Where there is nothing better, a patch drawn at random votes too, in a whisper.
    doubt = jnp.where(inside, 0.0, math.log(1e-6))
    return jnp.where(inside, fine, drawn), level.log_confidence + doubt


def _rounds(
    level: Level,
    x: jax.Array,
    match: jax.Array,
    log_weight: jax.Array,
    key: jax.Array,
    options: Options,
    *,
    coarsest: jax.Array,
    finest: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns fill and matches after rounds of voting and search.

    Args:
      level: the level to work on.
      x: `[H, W, C]`, the fill to start from, known pixels included.
      match: `[capacity]`, matches to start from.
      log_weight: `[capacity]`, logarithms of their weights as voters.
      key: random key.
      options: options of the method.
      coarsest: scalar bool, start from `x` itself and not from the vote of `match`.
      finest: scalar bool, end with a vote and not with a search.
    """
    rounds = jnp.where(coarsest, options.rounds, (options.rounds + 1) // 2)
    rounds = jnp.where(finest, options.final_rounds, rounds)
    last = jnp.where(finest, rounds, rounds - 1)
    never = jnp.int32(options.rounds + options.final_rounds)

    def body(carry):
        i, x, match, log_weight, key = carry
        key, search_key = jax.random.split(key)
        x, change = lax.cond(
            coarsest & (i == 0),
            lambda: (x, jnp.inf),
            lambda: _vote(level, x, match, log_weight, options.patch_size),
        )
        done = (i == rounds) | ((i > 0) & (change < TOLERANCE))
        passes = jnp.where(done, 0, len(JUMPS))
        match, distance = _search(level, x, match, passes, search_key, options)
        # The scale of the distances follows how well the picture repeats itself. Wexler
        # et al. take a percentile; the mean needs no sort.
        total = jnp.sum(jnp.where(level.live(), distance, 0))
        mean = total / jnp.maximum(level.targets.length, 1)
        log_weight = level.log_confidence - distance / (2 * mean + 1e-12)
        return jnp.where(done, never, i + 1), x, match, log_weight, key

    start = jnp.int32(0), x, match, log_weight, key
    return lax.while_loop(lambda carry: carry[0] <= last, body, start)[1:3]


def _search(
    level: Level,
    x: jax.Array,
    match: jax.Array,
    passes: jax.Array,
    key: jax.Array,
    options: Options,
) -> tuple[jax.Array, jax.Array]:
    """Returns matches and distances after `passes` passes, for the fill `x`."""
    size = options.patch_size

    def rows(image: jax.Array, at: jax.Array) -> jax.Array:
        return patches(image, at, size, ROW_STRIDE)

    def distance(at: jax.Array, candidate: jax.Array) -> jax.Array:
        weight = rows(level.trust, at)[:, None]
        difference = rows(x, at)[:, None] - rows(level.image, candidate)
        return jnp.sum(weight * difference**2, (-2, -1)) / jnp.sum(weight, (-2, -1))

    return search(
        match,
        level.targets,
        distance,
        level.source,
        key,
        passes=passes,
        bounds=level.bounds,
        longest=max(x.shape[:2]) - size + 1,
        target_width=x.shape[1],
        chunk=min(CHUNK, level.source.size),
    )


def _vote(
    level: Level, x: jax.Array, match: jax.Array, log_weight: jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
    """Returns `x` with the hole filled by its patches' votes, and the mean change."""
    width, channels = level.image.shape[1:]
    image = level.image.reshape(-1, channels)
    corner = jnp.arange(size)[:, None] * width + jnp.arange(size)[None]
    corner = corner.reshape(1, -1)
    chunk = min(CHUNK, level.source.size)
    capacity = match.size
    old = x.reshape(-1, channels)

    def body(start: jax.Array, carry: tuple[jax.Array, jax.Array]):
        fill, change = carry
        pixel = lax.dynamic_slice_in_dim(level.holes.at, start, chunk)
        # Left of the first column lie the last ones of the row above, where no patch
        # of the list begins.
        voter = pixel[:, None] - corner
        slot = jnp.where(voter >= 0, level.targets.slot[voter], capacity)
        weight = jnp.where(
            slot < capacity, log_weight.at[slot].get(mode="clip"), -jnp.inf
        )
        weight = jax.nn.softmax(weight, axis=1)[..., None]
        color = image[match.at[slot].get(mode="clip") + corner]
        color = jnp.sum(weight * color, axis=1)
        listed = start + jnp.arange(chunk) < level.holes.length
        # The carry is only written here: to read from it too would copy it each time.
        difference = jnp.where(listed[:, None], color - old[pixel], 0)
        fill = fill.at[jnp.where(listed, pixel, len(fill))].set(color, mode="drop")
        return fill, change + jnp.sum(jnp.abs(difference))

    fill, change = for_chunks(level.holes.length, chunk, body, (old, jnp.float32(0)))
    return fill.reshape(x.shape), change / jnp.maximum(level.holes.length * channels, 1)
