"""Which levels a resampling sampler visits (Lugmayr et al. 2022, section 4.2).

RePaint goes down from noise to the image, and at regular levels jumps back up and down
again, so that what is generated gets to fit what is known.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from jaxpaint.errors import InputError

NEVER = 100_000_000


@dataclasses.dataclass(frozen=True)
class Resampling:
    """How often and how far to jump back; the defaults do not.

    Attributes:
      jump: levels per jump (j in the paper).
      repeats: how often each stretch is walked (r in the paper).
      inner: further jumps inside of those: up to two pairs (jump, repeats).
      single: how often each single step is walked, without a jump.
      start: no resampling above this level.
    """

    jump: int = 1
    repeats: int = 1
    inner: tuple[tuple[int, int], ...] = ()
    single: int = 1
    start: int = NEVER


STRAIGHT_DOWN = Resampling()


def levels(steps: int, resampling: Resampling = STRAIGHT_DOWN) -> list[int]:
    """Returns the levels that are visited, from `steps - 1` to -1 (the clean image).

    Neighbours differ by 1: down is a step of the network, up adds noise.

    Raises:
      InputError: numbers below 1, or more than two inner jumps.
    """
    _check(steps, resampling)
    # From the shortest jump to the longest: a climb resets the shorter ones.
    jumps = [(resampling.jump, resampling.repeats), *resampling.inner][::-1]
    left = [_budget(steps, *pair) for pair in jumps]
    visited, level = [], steps
    while level >= 1:
        level -= 1
        visited.append(level)
        if level + 1 < steps - 1 and level <= resampling.start:
            for _ in range(resampling.single - 1):
                visited += [level + 1, level] if level >= 0 else [level + 1]
        for number, (length, _) in enumerate(jumps):
            if left[number].get(level, 0) > 0 and level <= resampling.start - length:
                left[number][level] -= 1
                visited += range(level + 1, level + length + 1)
                level += length
                for shorter in range(number):
                    left[shorter] = _budget(steps, *jumps[shorter])
    return [*visited, -1]


def _budget(steps: int, jump: int, repeats: int) -> dict[int, int]:
    """Returns how many jumps start at each level."""
    return dict.fromkeys(range(0, steps - jump, jump), repeats - 1)


def _check(steps: int, resampling: Resampling) -> None:
    pairs = [(resampling.jump, resampling.repeats), *resampling.inner]
    if min(steps, resampling.single, *(n for pair in pairs for n in pair)) < 1:
        raise InputError(
            f"{steps} steps with {resampling}: steps, jumps and repeats must be at "
            "least 1"
        )
    if len(pairs) > 3:
        raise InputError(f"{len(resampling.inner)} inner jumps; want at most 2")


def folded(visited: Sequence[int]) -> np.ndarray:
    """Returns the moves between turning points, int32 `[N, 2]` from and to a level.

    Each step down is a move of its own, a climb is a single one: adding noise level by
    level has the law of adding all of it at once.
    """
    moves: list[list[int]] = []
    for start, stop in itertools.pairwise(visited):
        if stop > start and moves and moves[-1][1] > moves[-1][0]:
            moves[-1][1] = stop
        else:
            moves.append([start, stop])
    return np.array(moves, np.int32)


def stepwise(visited: Sequence[int]) -> np.ndarray:
    """Returns the moves one level at a time, int32 `[N, 2]`, as the official code."""
    return np.stack([visited[:-1], visited[1:]], axis=1).astype(np.int32)


def network_calls(moves: np.ndarray) -> int:
    """Returns how many of the moves go down."""
    return int(np.sum(moves[:, 1] < moves[:, 0]))
