"""Which picture stands where: a pure function of the seed and the position.

Position p of a run is row p % batch_size of step p // batch_size. One epoch after the
other, each a permutation of all pictures, is laid along the positions, so a batch may
hold the end of an epoch and the beginning of the next. There is no state: a run that is
resumed at a step, or spread over another number of processes, sees the same pictures.

All numbers are raw outputs of Philox, which NumPy promises to keep between versions.
"""

import functools

import numpy as np

from jaxpaint.errors import InputError

# Independent streams of one seed, by the last word of Philox' counter.
_ORDER, _WINDOW = 0, 1


def positions(
    step: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> range:
    """Returns the positions that one process reads for a step.

    The processes share a batch in contiguous rows.

    Raises:
      InputError: the batch does not divide.
    """
    if batch_size % process_count:
        raise InputError(
            f"data.batch_size is {batch_size}; want a multiple of the "
            f"{process_count} processes"
        )
    rows = batch_size // process_count
    first = step * batch_size + process_index * rows
    return range(first, first + rows)


def indices(where: range, count: int, seed: int) -> list[int]:
    """Returns the indices, out of `count`, of the pictures at these positions."""
    return [int(permutation(count, seed, p // count)[p % count]) for p in where]


@functools.lru_cache(maxsize=2)
def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of an epoch: a permutation of 0 to `count`, excluded."""
    order = np.argsort(_raw(seed, epoch, _ORDER, count), kind="stable")
    return order.astype(np.int32 if count < 2**31 else np.int64)


def window(position: int, seed: int, places: int) -> int:
    """Returns one of `places`, with equal chance, for the picture at a position."""
    return int(_raw(seed, position, _WINDOW, 1)[0]) % places


def _raw(seed: int, number: int, stream: int, count: int) -> np.ndarray:
    key = np.array([seed % 2**64, number], np.uint64)
    counter = np.array([0, 0, 0, stream], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)
