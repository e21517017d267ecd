"""`--max-side`: large holes are filled at a lower resolution, on a crop around them.

The rest of the picture stays out of it: only hole pixels are pasted back, and what is
under the hole is never read.
"""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

CONTEXT = 0.5
"""Surroundings of a hole on each side, in lengths of its longer side."""

LEAST_CONTEXT = 64
"""Pixels of surroundings on each side at least, where there are as many within half of
`max_side`."""

BLOCK = 32
"""Holes in blocks of so many pixels that touch are filled together."""


def fill_within(
    pixels: np.ndarray,
    hole: np.ndarray,
    max_side: int,
    fill: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Returns `pixels` with the hole filled, working on at most `max_side` pixels.

    Args:
      pixels: uint8 `[H, W]` or `[H, W, 3]`.
      hole: boolean `[H, W]`.
      max_side: longer side, in pixels, that a hole and its surroundings may have;
        larger ones are shrunk to it.
      fill: `(pixels, hole) -> pixels`, which works at full resolution.
    """
    result, rest = pixels.copy(), hole.copy()
    least = min(LEAST_CONTEXT, max_side // 4)
    for area, own in _crops(hole, least):
        if max(own.shape) > max_side:
            filled = _fill_shrunk(result[area], hole[area], max_side, fill)
            result[area][own] = filled[own]
            rest[area][own] = False
    return fill(result, rest) if rest.any() else result


def _crops(
    hole: np.ndarray, least: int
) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Yields the crop around each group of holes, and which hole pixels are its own."""
    from scipy import ndimage  # half of the start-up time of the command

    height, width = hole.shape
    padded = np.pad(hole, ((0, -height % BLOCK), (0, -width % BLOCK)))
    rows, columns = (side // BLOCK for side in padded.shape)
    blocks = padded.reshape(rows, BLOCK, columns, BLOCK).any(axis=(1, 3))
    groups = np.zeros(blocks.shape, np.int32)
    ndimage.label(blocks, structure=np.ones((3, 3)), output=groups)
    for number in range(1, groups.max() + 1):
        members = np.repeat(groups == number, BLOCK, 0).repeat(BLOCK, 1)
        own = hole & members[:height, :width]
        ys, xs = (np.flatnonzero(own.any(axis=axis)) for axis in (1, 0))
        longer = max(np.ptp(ys), np.ptp(xs)) + 1
        context = max(least, int(CONTEXT * longer))
        area = (
            slice(max(0, ys[0] - context), ys[-1] + 1 + context),
            slice(max(0, xs[0] - context), xs[-1] + 1 + context),
        )
        yield area, own[area]


def _fill_shrunk(
    pixels: np.ndarray,
    hole: np.ndarray,
    max_side: int,
    fill: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Returns the crop, filled at a resolution of `max_side`, at its own size."""
    height, width = hole.shape
    scale = max_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    known = (~hole).astype(np.float32)
    coverage = _area_mean(known, size)
    # Means over known pixels alone, so that nothing leaks out of the hole.
    channels = [
        _area_mean(channel * known, size) / np.maximum(coverage, 1e-6)
        for channel in np.moveaxis(np.atleast_3d(pixels), -1, 0)
    ]
    small = np.clip(np.round(np.stack(channels, -1)), 0, 255).astype(np.uint8)
    small = small.reshape(size[1], size[0], *pixels.shape[2:])
    small_hole = coverage <= (0.5 if coverage.max() > 0.5 else 0)
    if small_hole.any():
        small = fill(small, small_hole)
    enlarged = Image.fromarray(small).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(enlarged)


def _area_mean(channel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(channel, np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BOX))
