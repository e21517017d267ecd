"""Offsets of patches as colors: the color wheel of the Middlebury flow benchmark."""

import numpy as np

# Steps from one color to the next: red, yellow, green, cyan, blue, magenta, red.
_STEPS = (15, 6, 4, 11, 13, 6)


def color_wheel() -> np.ndarray:
    """Returns the 55 colors of the wheel, float32 `[55, 3]` in [0, 255]."""
    corners = [(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1)]
    corners = np.array([*corners, corners[0]], np.float32)
    parts = []
    for start, end, count in zip(corners, corners[1:], _STEPS, strict=False):
        share = np.floor(255 * np.arange(count) / count)[:, None]
        rising, falling = np.maximum(end - start, 0), np.maximum(start - end, 0)
        parts.append(255 * start + share * rising - share * falling)
    return np.concatenate(parts).astype(np.float32)


def flow_picture(offsets: np.ndarray) -> np.ndarray:
    """Returns uint8 `[B, H, W, 3]` for offsets `[B, H, W, 2]` of rows and columns.

    The direction is the hue, the length the saturation, relative to the greatest length
    in this and earlier pictures of the batch; no offset is white.
    """
    rows, columns = np.moveaxis(np.asarray(offsets, np.float32), -1, 0)
    radius = np.sqrt(rows**2 + columns**2)
    greatest = np.maximum.accumulate(radius.max(axis=(1, 2)))
    greatest = greatest[:, None, None] + np.finfo(np.float32).eps
    rows, columns, radius = rows / greatest, columns / greatest, radius / greatest
    wheel = color_wheel() / 255
    place = (np.arctan2(-columns, -rows) / np.pi + 1) / 2 * (len(wheel) - 1)
    first = np.floor(place).astype(int)
    share = (place - first)[..., None]
    color = (1 - share) * wheel[first] + share * wheel[(first + 1) % len(wheel)]
    radius = radius[..., None]
    color = np.where(radius <= 1, 1 - radius * (1 - color), 0.75 * color)
    return np.floor(255 * color).astype(np.uint8)
