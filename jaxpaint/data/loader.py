"""Batches of square pictures on the host, decoded by threads ahead of time."""

import itertools
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from jaxpaint.config import Data
from jaxpaint.data import order
from jaxpaint.data.cores import default_threads
from jaxpaint.data.pictures import Pictures
from jaxpaint.data.sources import Source
from jaxpaint.errors import InputError

Batches = Generator[np.ndarray, None, None]


def batches(
    source: Source,
    data: Data,
    *,
    seed: int,
    first_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns the batches from `first_step` on, without end.

    Each is uint8 `[batch_size / process_count, L, L, 3]`, L `load_size` (or
    `image_size`): pictures with the short side scaled to L, of the long side a random
    window. What a batch holds depends on `seed` and its step only.

    `close()` the iterator to end its threads; a `with contextlib.closing(...)` does.

    Raises:
      InputError: a setting that cannot be followed; while iterating, too many
        pictures that cannot be read.
    """
    side = data.load_size or data.image_size
    for name, value, least in [
        ("image_size", data.image_size, 1),
        ("load_size", side, 1),
        ("batch_size", data.batch_size, 1),
        ("workers", data.workers, 0),
        ("cache_mb", data.cache_mb, 0),
        ("prefetch", data.prefetch, 1),
    ]:
        if value < least:
            raise InputError(f"data.{name} is {value}; want at least {least}")
    rows = len(order.positions(0, data.batch_size, process_index, process_count))
    workers = data.workers or default_threads()
    pictures = Pictures(source, side, data.cache_mb * 2**20)

    def fill(batch: np.ndarray, where: range, chosen: list[int], first: int) -> None:
        for row, (position, index) in enumerate(zip(where, chosen, strict=True), first):
            batch[row] = _window(pictures.read(index), position, seed)

    def generate() -> Batches:
        # A task is a part of a batch: few pictures if there are many threads, so that
        # all work on the batch that is needed next.
        part = -(-rows // workers)
        ahead = -(-2 * workers // rows) + 1
        waiting: deque[tuple[np.ndarray, list[Future[None]]]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            for step in itertools.count(first_step):
                where = order.positions(
                    step, data.batch_size, process_index, process_count
                )
                chosen = order.indices(where, len(source), seed)
                batch = np.empty((rows, side, side, 3), np.uint8)
                tasks = [
                    pool.submit(
                        fill, batch, where[i : i + part], chosen[i : i + part], i
                    )
                    for i in range(0, rows, part)
                ]
                waiting.append((batch, tasks))
                if len(waiting) > ahead:
                    batch, tasks = waiting.popleft()
                    for task in tasks:
                        task.result()
                    yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    return generate()


def validation(source: Source, data: Data, count: int) -> np.ndarray:
    """Returns the middle squares of the first pictures in the order of the source.

    Args:
      source: the validation set.
      data: `image_size` is the side of the squares.
      count: how many; a smaller set gives all that can be read.

    Returns:
      uint8 `[N, image_size, image_size, 3]`.

    Raises:
      InputError: too many pictures cannot be read.
    """
    squares = []
    pictures = Pictures(source, data.image_size)
    for index in range(len(source)):
        if len(squares) == count:
            break
        pixels = pictures.load(index)
        if pixels is not None:
            top = (pixels.shape[0] - data.image_size) // 2
            left = (pixels.shape[1] - data.image_size) // 2
            squares.append(_cut(pixels, top, left, data.image_size))
    if not squares:
        raise InputError("none of the validation pictures can be read")
    return np.stack(squares)


def _window(pixels: np.ndarray, position: int, seed: int) -> np.ndarray:
    """Returns a square `[L, L, 3]` at a random place along the long side."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    place = order.window(position, seed, max(height, width) - side + 1)
    top, left = (place, 0) if height > width else (0, place)
    return _cut(pixels, top, left, side)


def _cut(pixels: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    return pixels[top : top + side, left : left + side]
