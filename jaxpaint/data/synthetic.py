"""Drawn pictures for tests and dry runs, without any file."""

import numpy as np

from jaxpaint.errors import InputError


class SyntheticSource:
    """Shapes with sharp and soft edges on a gradient; picture i depends on i only."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, index: int, short_side: int = 0) -> np.ndarray:
        """Returns picture `index` as uint8 `[S, W, 3]`, S `short_side` or 128."""
        if not 0 <= index < self._count:
            raise IndexError(f"index is {index}; want 0 to {self._count - 1}")
        random = np.random.Generator(np.random.Philox(key=[index, 0x5EED]))
        height = short_side or 128
        width = round(height * random.uniform(1, 1.5))
        # Rows and columns in units of the height.
        y, x = np.mgrid[:height, :width].astype(np.float32) / height
        corner, down, right = random.uniform(0, 160, (3, 3))
        canvas = (
            corner + (down - corner) * y[..., None] + (right - corner) * x[..., None]
        )
        for _ in range(random.integers(3, 8)):
            center_y, center_x = random.uniform(0, (1, width / height))
            angle, round_ = random.uniform(0, np.pi), random.random() < 0.5
            sides = random.uniform(0.08, 0.35, 2)
            along = (x - center_x) * np.cos(angle) + (y - center_y) * np.sin(angle)
            across = (y - center_y) * np.cos(angle) - (x - center_x) * np.sin(angle)
            a, b = np.abs(along / sides[0]), np.abs(across / sides[1])
            distance = np.hypot(a, b) if round_ else np.maximum(a, b)
            softness = random.choice([0.02, 0.02, 0.3])
            cover = np.clip((1 - distance) / softness, 0, 1)[..., None]
            canvas = canvas + cover * (random.uniform(0, 255, 3) - canvas)
        return np.clip(np.round(canvas), 0, 255).astype(np.uint8)

    def name(self, index: int) -> str:
        """Returns what the picture is called."""
        return f"synthetic picture {index}"


def parse_count(text: str) -> int:
    """Returns COUNT of `synthetic:COUNT`.

    Raises:
      InputError: no whole number from 1 on.
    """
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise InputError(f"'synthetic:{text}': want a count, like synthetic:1000")
    return int(text)
