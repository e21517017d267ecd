"""Pictures scaled for training, out of a memory or a source, and what to do when one
cannot be read."""

import logging
import threading

import numpy as np
from PIL import Image

from jaxpaint.data.sources import Source
from jaxpaint.errors import InputError

LONGEST = 8
"""Of a picture this many times longer than wide, the middle is taken."""


class Pictures:
    """The pictures of a source with their short side scaled to `side`.

    Decoded pictures are kept until `cache_bytes` are full; what does not fit is read
    anew each time. (Throwing old ones out would not help: an epoch touches each
    picture once, so the oldest is the next to be needed.)

    A picture that cannot be read is logged once, by name, and replaced by the next
    one that can. More than one bad picture, and more than 1 % of the set, are an
    error: one bad file should not end a run on 20 pictures, and two should.

    For use from many threads.
    """

    def __init__(self, source: Source, side: int, cache_bytes: int = 0):
        self._source = source
        self._side = side
        self._free = cache_bytes
        self._cache: dict[int, np.ndarray] = {}
        self._bad: set[int] = set()
        self._lock = threading.Lock()

    def read(self, index: int) -> np.ndarray:
        """Returns picture `index`, or its replacement, as uint8 `[H, W, 3]`.

        Raises:
          InputError: too many pictures of the set cannot be read.
        """
        for number in range(index, index + len(self._source)):
            number %= len(self._source)
            pixels = self._cache.get(number)
            if pixels is None and number not in self._bad:
                pixels = self.load(number)
            if pixels is not None:
                return pixels
        raise InputError(f"none of the {len(self._source)} pictures can be read")

    def load(self, index: int) -> np.ndarray | None:
        """Returns picture `index` as uint8 `[H, W, 3]`, None if it cannot be read.

        Raises:
          InputError: too many pictures of the set cannot be read.
        """
        try:
            pixels = scale(self._source.read(index, self._side), self._side)
        except InputError as error:
            self._note_bad(index, error)
            return None
        with self._lock:
            if pixels.nbytes <= self._free and index not in self._cache:
                self._free -= pixels.nbytes
                self._cache[index] = pixels
        return pixels

    def _note_bad(self, index: int, error: InputError) -> None:
        with self._lock:
            if index in self._bad:
                return
            self._bad.add(index)
            bad, count = len(self._bad), len(self._source)
        logging.getLogger(__name__).warning(
            "picture left out (%d of %d so far): %s", bad, count, error
        )
        if bad > max(1, count / 100):
            raise InputError(
                f"{bad} of {count} pictures cannot be read, want at most 1 %; mend or "
                f"remove them; the last one: {error}"
            ) from error


def scale(pixels: np.ndarray, side: int) -> np.ndarray:
    """Returns uint8 pixels `[H, W, 3]` with the short side scaled to `side`.

    Downscaling is antialiased (bicubic after a box filter that leaves twice the size);
    a picture whose short side is `side` comes back as it is.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    if max(height, width) > LONGEST * short:
        top = max(0, height - LONGEST * short) // 2
        left = max(0, width - LONGEST * short) // 2
        pixels = pixels[top : top + LONGEST * short, left : left + LONGEST * short]
        height, width = pixels.shape[:2]
    if short == side:
        return np.ascontiguousarray(pixels)
    size = round(width * side / short), round(height * side / short)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))
