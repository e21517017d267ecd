"""Pictures to look at: the hole marked, and input beside results."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxpaint.contact_sheet import GAP, marked
from jaxpaint.files import Picture


def masked(picture: Picture, hole: np.ndarray) -> np.ndarray:
    """Returns the picture as RGB with its hole painted over."""
    return marked(_on_white(picture), hole)


def compare(
    picture: Picture, hole: np.ndarray, results: Sequence[Picture]
) -> np.ndarray:
    """Returns the masked picture and the results side by side, as RGB."""
    gap = np.full((hole.shape[0], GAP, 3), 255, np.uint8)
    row = [masked(picture, hole)]
    for result in results:
        row += [gap, _on_white(result)]
    return np.concatenate(row, axis=1)


class Sums(NamedTuple):
    """Sums over results, up to 66,000, from which their deviation follows exactly."""

    results: int
    levels: np.ndarray
    """Uint32 `[H, W, 3]`, as the next."""
    squares: np.ndarray


def add(sums: Sums | None, result: Picture) -> Sums:
    """Returns the sums with one result more; None: the first."""
    levels = _on_white(result).astype(np.uint32)
    if sums is None:
        return Sums(1, levels, levels**2)
    return Sums(sums.results + 1, sums.levels + levels, sums.squares + levels**2)


def deviation(sums: Sums) -> np.ndarray:
    """Returns the standard deviation of results at each pixel, mean of the channels, as
    grey RGB: twice its grey levels, black where all agree."""
    mean = sums.levels / sums.results
    variance = np.maximum(sums.squares / sums.results - mean**2, 0)
    grey = np.mean(np.sqrt(variance), axis=-1, keepdims=True)
    return np.repeat(np.clip(np.round(2 * grey), 0, 255).astype(np.uint8), 3, axis=-1)


def _on_white(picture: Picture) -> np.ndarray:
    """Returns the picture as RGB, laid on white where it is transparent."""
    pixels = picture.pixels
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if picture.alpha is None:
        return pixels
    alpha = picture.alpha[..., None].astype(np.uint16)
    return ((pixels * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
