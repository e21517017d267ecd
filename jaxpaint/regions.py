"""Cuts a photo into windows around its holes, so that cost follows the hole.

Host code on numpy arrays: it runs before jit and decides static shapes. Windows take
few different shapes, since each one is compiled.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from jaxpaint.types import Window

# A window is a power of two and this many pixels, so that a hole of a power of two
# fits with its margin.
_EXTRA = 16
_SMALLEST = 64
# Pieces of a thin hole: core and overlap on each side. What lies d pixels behind the
# end of a strip of width w acts on a Laplace solution by exp(-pi d / w): 4e-6 for the
# widest thin hole.
_CORE = 512
_OVERLAP = 64
_THIN = 8
# Windows are filled at the largest shape, which is compiled anyway, when that adds
# fewer pixels than this; compiling a shape takes as long as filling some millions.
_FREE_PIXELS = 4_000_000

# What a call costs beside its pixels, in pixels.
_CALL_PIXELS = 8_000

Box = tuple[slice, slice]
Hole = tuple[Box, list[int]]


class Piece(NamedTuple):
    """A window of the photo and the part of the hole to fill in it."""

    window: Box
    """Rows and columns to cut out."""
    core: Box
    """Rows and columns, inside the window, of the pixels to paste."""
    labels: np.ndarray
    """Numbers of the holes to paste."""


class Plan(NamedTuple):
    """Where the holes of one photo are filled."""

    labels: np.ndarray
    """`[H, W]` int32: number of each pixel's hole, 0 = known."""
    pieces: list[Piece]
    """In the order of filling."""


def plan(hole: np.ndarray, window: Window) -> Plan:
    """Returns the windows in which to fill a `[H, W]` bool hole.

    Holes closer together than the method's margin are one hole.
    """
    height, width = hole.shape
    reach = max(1, window.margin // 2)
    near = ndimage.maximum_filter(hole, 2 * reach + 1) if hole.any() else hole
    labels, count = ndimage.label(near, np.ones((3, 3)))
    labels = np.where(hole, labels, 0).astype(np.int32)
    boxes = ndimage.find_objects(labels, count)
    whole, tiles = [], {}
    for number, box in enumerate(boxes, start=1):
        assert box is not None
        if window.splits and _is_spread_thin(labels[box] == number):
            for row in range(box[0].start // _CORE, (box[0].stop - 1) // _CORE + 1):
                for col in range(box[1].start // _CORE, (box[1].stop - 1) // _CORE + 1):
                    tiles.setdefault((row, col), []).append(number)
        else:
            whole.append((box, [number]))
    if whole:
        whole, _ = _group(whole, window, max(height, width))
    sides = [_side(box, window) for box, _ in whole]
    sides += [_CORE + 2 * _OVERLAP] * len(tiles)
    largest = max(sides, default=0)
    extra = sum(largest**2 - side**2 for side in sides)
    if extra <= _FREE_PIXELS:
        sides = [largest] * len(sides)
    pieces = []
    for (box, numbers), side in zip(whole, sides, strict=False):
        cut = _square(box, side, height, width)
        pieces.append(Piece(cut, box, np.array(numbers)))
    for (row, col), numbers in sorted(tiles.items()):
        core = (
            slice(row * _CORE, min((row + 1) * _CORE, height)),
            slice(col * _CORE, min((col + 1) * _CORE, width)),
        )
        side = sides[-1]
        pieces.append(
            Piece(_square(core, side, height, width), core, np.array(numbers))
        )
    return Plan(labels, pieces)


def _is_spread_thin(hole: np.ndarray) -> bool:
    if max(hole.shape) <= _CORE:
        return False
    distance = ndimage.distance_transform_cdt(np.pad(hole, 1), "chessboard")
    return distance.max() <= _THIN


def _longer(box: Box) -> int:
    return max(s.stop - s.start for s in box)


def _side(box: Box, window: Window) -> int:
    longer = _longer(box)
    wanted = longer + 2 * (window.margin + int(np.ceil(window.relative * longer)))
    side = _SMALLEST
    while side + _EXTRA < wanted:
        side *= 2
    return side + _EXTRA


def _square(box: Box, side: int, height: int, width: int) -> Box:
    """Returns a window of `side`, at most the photo, with the box in its middle."""
    cut = []
    for extent, length in zip(box, (height, width), strict=True):
        size = min(side, length)
        start = (extent.start + extent.stop - size) // 2
        start = min(max(start, 0), length - size)
        cut.append(slice(start, start + size))
    return cut[0], cut[1]


def _group(holes: list[Hole], window: Window, limit: int) -> tuple[list[Hole], int]:
    """Returns the holes, joined where one window costs less than several, and the cost.

    Bisects the holes along the longer side of their common box as long as that pays.
    """
    box = holes[0][0]
    for other, _ in holes[1:]:
        box = _union(box, other)
    together = [(box, [number for _, numbers in holes for number in numbers])]
    cost = min(_side(box, window), limit) ** 2 + _CALL_PIXELS
    if len(holes) == 1:
        return together, cost
    axis = int(box[1].stop - box[1].start > box[0].stop - box[0].start)
    ordered = sorted(holes, key=lambda hole: hole[0][axis].start + hole[0][axis].stop)
    middle = len(ordered) // 2
    first, first_cost = _group(ordered[:middle], window, limit)
    second, second_cost = _group(ordered[middle:], window, limit)
    if first_cost + second_cost < cost:
        return first + second, first_cost + second_cost
    return together, cost


def _union(a: Box, b: Box) -> Box:
    rows, cols = (
        slice(min(x.start, y.start), max(x.stop, y.stop))
        for x, y in zip(a, b, strict=True)
    )
    return rows, cols
