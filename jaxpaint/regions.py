"""Cuts a photo into windows around its holes, so that cost follows the hole.

Host code on numpy arrays: it runs before jit and decides static shapes. Windows take
few different shapes, since each one is compiled.
"""

import functools
import itertools
from typing import NamedTuple, cast

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
_CORE = 400
_OVERLAP = 64
_THIN = 8
# Compiling for one more shape takes as long as filling this many pixels.
_SHAPE_PIXELS = 3_000_000
# Photos up to this side may be one window. In larger ones holes are joined only in
# windows up to the next side: memory stays small, and one shape serves most of them.
_ONE_WINDOW = 1024 + _EXTRA
_LARGEST = 512 + _EXTRA
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
    seen: Box
    """Rows and columns, inside the window, whose holes count. Smaller than the window
    where that is as large as others only to be compiled with them, and the method
    would scale down what lies between far holes."""


class Plan(NamedTuple):
    """Where the holes of one photo are filled."""

    labels: np.ndarray
    """`[H, W]` int32: number of each pixel's hole, 0 = known."""
    pieces: list[Piece]
    """In the order of filling."""


def plan(hole: np.ndarray, window: Window) -> Plan:
    """Returns the windows in which to fill a `[H, W]` bool hole."""
    labels, count = _label(hole)
    whole = [
        (box, [number])
        for number, box in enumerate(ndimage.find_objects(labels, count), start=1)
        if box is not None
    ]
    thin: list[Hole] = []
    if window.splits:
        spread = [part for part in whole if _longer(part[0]) > _CORE]
        whole = [part for part in whole if _longer(part[0]) <= _CORE]
        for box, (number,) in spread:
            wide, rest = _split(labels, number, box, count)
            count += len(wide) + len(rest)
            whole += wide
            thin += rest
        if spread:
            window = window._replace(margin=max(window.margin, _OVERLAP))
    groups = _group(whole + thin, window, max(hole.shape))
    # Wide parts first: the thin ones that lead into them then find them filled.
    late = {number for _, numbers in thin for number in numbers}
    groups.sort(key=lambda group: late.issuperset(group[1]))
    sides = [_side(group, window) for group in groups]
    pieces: list[Piece] = []
    larger = sides if window.whole else _few(sides)
    for (box, numbers), side, large in zip(groups, sides, larger, strict=True):
        cut = _square(box, large, hole.shape)
        seen = _square(box, side, hole.shape) if window.size else cut
        same = next((i for i, piece in enumerate(pieces) if piece.seen == seen), None)
        if same is not None:
            other = pieces.pop(same)
            box, numbers = _union(box, other.core), [*other.labels, *numbers]
        pieces.append(Piece(cut, box, np.array(numbers), seen))
    return Plan(labels, pieces)


def within(inner: Box, outer: Box) -> Box:
    """Returns a box of the photo as one of a window of it."""
    rows, cols = (
        slice(i.start - o.start, i.stop - o.start)
        for i, o in zip(inner, outer, strict=True)
    )
    return rows, cols


def _split(
    labels: np.ndarray, number: int, box: Box, count: int
) -> tuple[list[Hole], list[Hole]]:
    """Returns the wide parts of a hole, and its thin rest cut into tiles.

    Numbers the parts in `labels`, from `count` + 1.
    """
    view = labels[box]
    hole = view == number
    distance = np.asarray(ndimage.distance_transform_cdt(np.pad(hole, 1), "chessboard"))
    inside = distance[1:-1, 1:-1]
    wide = hole & ndimage.maximum_filter(inside > _THIN, 4 * _THIN + 1)
    found, wide_count = _label(wide)
    view[wide] = found[wide] + count
    parts = [
        (_moved(part, box), [count + i])
        for i, part in enumerate(ndimage.find_objects(found, wide_count), start=1)
    ]
    count += wide_count
    thin = hole & ~wide
    tiles = []
    for row in range(0, hole.shape[0], _CORE):
        for col in range(0, hole.shape[1], _CORE):
            tile = slice(row, row + _CORE), slice(col, col + _CORE)
            (part,) = ndimage.find_objects(thin[tile].astype(np.int8), 1)
            if part is not None:
                count += 1
                view[tile][thin[tile]] = count
                tiles.append((_moved(_moved(part, tile), box), [count]))
    return parts, tiles


def _label(hole: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the number of each pixel's connected hole, and how many there are."""
    labels = np.empty(hole.shape, np.int32)
    count = ndimage.label(hole, np.ones((3, 3)), output=labels)
    return labels, cast(int, count)


def _moved(inner: Box, outer: Box) -> Box:
    """Returns a box inside another one, seen from outside."""
    rows, cols = (
        slice(o.start + i.start, o.start + i.stop)
        for i, o in zip(inner, outer, strict=True)
    )
    return rows, cols


def _longer(box: Box) -> int:
    return max(s.stop - s.start for s in box)


def _side(hole: Hole, window: Window) -> int:
    box, numbers = hole
    longer, margin = _longer(box), window.margin
    more = int(np.ceil(window.relative * longer))
    side, extra = _SMALLEST, _EXTRA
    if window.size:
        side, extra = window.size, 0
        # Unlike one hole, several leave something known between them.
        around = margin if len(numbers) > 1 else max(margin, more)
    else:
        around = margin + more
    while side + extra < longer + 2 * around:
        side *= 2
    return side + extra


def _few(sides: list[int]) -> list[int]:
    """Returns the sides, some made larger so that fewer shapes are compiled."""

    def enlarged(shapes: tuple[int, ...]) -> list[int]:
        return [min(shape for shape in shapes if shape >= side) for side in sides]

    def cost(shapes: tuple[int, ...]) -> int:
        pixels = sum(side**2 for side in enlarged(shapes))
        return pixels + len(shapes) * _SHAPE_PIXELS

    if not sides:
        return []
    *smaller, largest = sorted(set(sides))
    choices = (
        (*some, largest)
        for count in range(len(smaller) + 1)
        for some in itertools.combinations(smaller, count)
    )
    return enlarged(min(choices, key=cost))


def _square(box: Box, side: int, shape: tuple[int, ...]) -> Box:
    """Returns a window of `side`, at most the photo, with the box in its middle."""
    cut = []
    for extent, length in zip(box, shape, strict=True):
        size = min(side, length)
        start = (extent.start + extent.stop - size) // 2
        start = min(max(start, 0), length - size)
        cut.append(slice(start, start + size))
    return cut[0], cut[1]


def _group(holes: list[Hole], window: Window, limit: int) -> list[Hole]:
    """Returns the holes, joined where one window costs less than several.

    Bisects them along the longer side of their common box as long as that pays.
    """

    def cost(groups: list[Hole]) -> int:
        sides = (min(_side(group, window), limit) for group in groups)
        return sum(side**2 + _CALL_PIXELS for side in sides)

    if len(holes) < 2:
        return holes
    box = functools.reduce(_union, (box for box, _ in holes))
    together = [(box, [number for _, numbers in holes for number in numbers])]
    side = min(_side(together[0], window), limit)
    axis = int(box[1].stop - box[1].start > box[0].stop - box[0].start)
    ordered = sorted(holes, key=lambda hole: hole[0][axis].start + hole[0][axis].stop)
    middle = len(ordered) // 2
    apart = _group(ordered[:middle], window, limit)
    apart += _group(ordered[middle:], window, limit)
    most = window.size or (limit if limit <= _ONE_WINDOW else _LARGEST)
    return together if side <= most and cost(together) <= cost(apart) else apart


def _union(a: Box, b: Box) -> Box:
    rows, cols = (
        slice(min(x.start, y.start), max(x.stop, y.stop))
        for x, y in zip(a, b, strict=True)
    )
    return rows, cols
