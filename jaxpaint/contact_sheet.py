"""Pictures in rows and columns with titles, to look at many results at once."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARK = np.array([255, 0, 255], np.uint8)
"""The colour that stands for the hole."""

GAP = 8
"""White pixels between two pictures."""

TITLE = 18
"""Pixels of height for a title above a picture."""

SHOWN = 256
"""Pixels to which the longer side of small pictures is enlarged, at least nearly."""


def marked(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Returns RGB pixels with the hole painted over."""
    return np.where(hole[..., None], MARK, pixels)


def enlarged(pixels: np.ndarray) -> np.ndarray:
    """Returns small RGB pictures enlarged by a whole number, others as they are."""
    height, width = pixels.shape[:2]
    times = max(1, SHOWN // max(height, width))
    image = Image.fromarray(pixels)
    size = times * width, times * height
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def contact_sheet(
    pictures: Sequence[tuple[str, np.ndarray]], columns: int
) -> np.ndarray:
    """Returns (title, RGB pixels) of one size in rows of `columns`."""
    shown = [(title, enlarged(pixels)) for title, pixels in pictures]
    height, width = shown[0][1].shape[:2]
    rows = -(-len(shown) // columns)
    down, right = height + TITLE + GAP, width + GAP
    sheet = Image.new("RGB", (columns * right - GAP, rows * down - GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (title, pixels) in enumerate(shown):
        top, left = number // columns * down, number % columns * right
        draw.text((left, top), title, fill="black", font=font)
        sheet.paste(Image.fromarray(pixels), (left, top + TITLE))
    return np.asarray(sheet)
