"""Random access to the records of TFRecord files, without TensorFlow.

A record is its length (8 bytes, little endian), 4 bytes of checksum, the data, and 4
more bytes of checksum. The lengths lead from record to record, so that opening a file
means to visit each of its records once. Checksums are not compared: a damaged picture
does not decode.
"""

import bisect
import itertools
import os
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from jaxpaint.errors import InputError

_HEADER, _FOOTER = 12, 4


class Part(NamedTuple):
    """Consecutive records of one file."""

    path: str
    skip: int
    """Records in front of them."""

    take: int


class TFRecords:
    """The records of several files as one sequence; for use from many threads."""

    def __init__(self, parts: Iterable[Part]):
        """Visits all records.

        Raises:
          InputError: a file cannot be read, or ends too early.
        """
        self._parts = list(parts)
        with ThreadPoolExecutor(16) as pool:  # waits for the disk, mostly
            self._places = list(pool.map(_places, self._parts))
        self._ends = list(itertools.accumulate(part.take for part in self._parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> bytes:
        """Returns the data of one record."""
        number = bisect.bisect_right(self._ends, index)
        part = self._parts[number]
        offset, length = self._places[number][index - self._ends[number] + part.take]
        with open(part.path, "rb", buffering=0) as file:
            file.seek(offset)
            return file.read(length)


def _places(part: Part) -> np.ndarray:
    """Returns offset and length of the data of each record, int64 `[take, 2]`."""
    places = np.empty((part.take, 2), np.int64)
    offset = 0
    try:
        with open(part.path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for number in range(part.skip + part.take):
                file.seek(offset)
                header = file.read(_HEADER)
                length = struct.unpack("<Q", header[:8])[0] if len(header) > 7 else size
                if offset + _HEADER + length + _FOOTER > size:
                    raise InputError(
                        f"{part.path} ends within record {number} of "
                        f"{part.skip + part.take}; copy or prepare it anew"
                    )
                if number >= part.skip:
                    places[number - part.skip] = offset + _HEADER, length
                offset += _HEADER + length + _FOOTER
    except OSError as error:
        raise InputError(f"{part.path} cannot be read: {error.strerror}") from None
    return places
