"""Reads the checkpoints of TensorFlow without TensorFlow: its tensor bundles.

A checkpoint `PREFIX` is `PREFIX.index`, a sorted table of names in the format of
LevelDB, and `PREFIX.data-00000-of-00001` and so on, the bytes of the arrays. Values of
the table are messages of protocol buffers: the first describes the bundle, the others
say dtype, shape and place of an array. Nothing of a file is run, and the data are
mapped into memory.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from jaxpaint import files
from jaxpaint.errors import InputError

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")

_NUMBERS = {
    **{1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 5: np.int16},
    **{6: np.int8, 8: np.complex64, 9: np.int64, 10: np.bool_},
    # 11 to 13, 15 and 16 are quantized ones, of which the bare integers are read.
    **{11: np.int8, 12: np.uint8, 13: np.int32, 15: np.int16, 16: np.uint16},
    **{14: ml_dtypes.bfloat16, 17: np.uint16, 18: np.complex128, 19: np.float16},
    **{22: np.uint32, 23: np.uint64},
    **{24: ml_dtypes.float8_e5m2, 25: ml_dtypes.float8_e4m3fn},
    **{26: ml_dtypes.float8_e4m3fnuz, 27: ml_dtypes.float8_e4m3b11fnuz},
    28: ml_dtypes.float8_e5m2fnuz,
}
_DTYPES = {number: np.dtype(kind) for number, kind in _NUMBERS.items()}
"""By TensorFlow's numbers."""

_OTHER = {7: "string", 20: "resource", 21: "variant"}
"""What is in a checkpoint without being an array of numbers: left out."""


def prefix_of(path: Path) -> Path | None:
    """Returns the prefix of the checkpoint that a path means; None: it means none.

    It may be the prefix itself, one of the checkpoint's files, the text file
    `checkpoint` that TensorFlow writes beside them, or the folder with one checkpoint
    or with that text file.

    Raises:
      InputError: a folder with several, or a text file that names none.
    """
    if path.is_dir():
        if (path / "checkpoint").is_file():
            return _named_in(path / "checkpoint")
        found = sorted(path.glob("*.index"))
        if len(found) > 1:
            names = ", ".join(one.name for one in found[:5])
            raise InputError(f"{path} has several checkpoints; want one of {names}")
        return found[0].with_suffix("") if found else None
    if path.name == "checkpoint" and path.is_file():
        return _named_in(path)
    if path.suffix in (".index", ".meta"):
        return path.with_suffix("")
    if _DATA.search(path.name):
        return path.with_name(_DATA.sub("", path.name))
    whole = not path.exists() and _index(path).is_file()
    return path if whole else None


def load(prefix: Path | str) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint by the names of their variables, read-only.

    Strings and other variables that hold no numbers are left out.

    Raises:
      InputError: a file that is missing, damaged or of another format.
    """
    prefix = Path(prefix)
    index = _index(prefix)
    with files.blaming(index, "the index of a TensorFlow checkpoint"):
        table = _table(index, index.read_bytes())
        key, header = next(table, (b"", b""))
        if key:
            raise InputError(f"{index} is a table of LevelDB but of no checkpoint")
        shards, big_endian = 1, False
        for field, value in _fields(header):
            shards = value if field == 1 else shards
            big_endian = value == 1 if field == 2 else big_endian
        if big_endian:
            raise InputError(f"{index} was written on a big-endian machine")
        entries = {key.decode(): _entry(value) for key, value in table}
    data = _Shards(prefix, int(shards))
    arrays = {}
    for name, entry in entries.items():
        if entry.parts:
            raise InputError(
                f"{index}: variable '{name}' is cut into parts, which are not read; "
                "save it as one"
            )
        if entry.dtype in _OTHER:
            continue
        if entry.dtype not in _DTYPES:
            raise InputError(
                f"{index}: variable '{name}' has dtype {entry.dtype} of TensorFlow, "
                "which is not read; save it as float32"
            )
        arrays[name] = data.array(name, entry)
    return arrays


class _Entry(NamedTuple):
    """What the table says of one variable."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    parts: bool


class _Shards:
    """The files with the data."""

    def __init__(self, prefix: Path, count: int) -> None:
        self.prefix, self.count = prefix, count
        self.maps: dict[int, np.ndarray] = {}

    def array(self, name: str, entry: _Entry) -> np.ndarray:
        path = self.prefix.with_name(
            f"{self.prefix.name}.data-{entry.shard:05d}-of-{self.count:05d}"
        )
        dtype = _DTYPES[entry.dtype]
        if entry.size != int(np.prod(entry.shape, dtype=object)) * dtype.itemsize:
            raise InputError(
                f"{_index(self.prefix)} is damaged or truncated ('{name}' has "
                f"{entry.size} bytes for {list(entry.shape)} of {dtype})"
            )
        with files.blaming(path, "the data of a TensorFlow checkpoint"):
            if entry.shard not in self.maps:
                empty = np.empty(0, np.uint8)
                full = path.stat().st_size > 0
                mapped = np.memmap(path, np.uint8, "r") if full else empty
                self.maps[entry.shard] = mapped.view(np.ndarray)
            data = self.maps[entry.shard]
            if entry.offset + entry.size > len(data):
                raise ValueError(f"'{name}' ends behind the file")
            if not entry.size:
                return np.empty(entry.shape, dtype)
            return np.ndarray(entry.shape, dtype, data, entry.offset)


def _index(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def _named_in(path: Path) -> Path:
    """Returns the prefix that the text file `checkpoint` names."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.search(r'^model_checkpoint_path:\s*"(.+)"', text, re.MULTILINE)
    if not found:
        raise InputError(
            f'{path} names no checkpoint; want a line model_checkpoint_path: "NAME"'
        )
    named = path.parent / found[1]
    # Files that moved to another machine lie beside it.
    return named if _index(named).is_file() else path.parent / Path(found[1]).name


def _table(path: Path, data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields keys and values of a table."""
    if not data:
        raise InputError(f"{path} is empty (0 bytes); want a TensorFlow checkpoint")
    if data[-8:] != _MAGIC or len(data) < _FOOTER:
        raise InputError(f"{path} is no index of a TensorFlow checkpoint, or damaged")
    # The place of an index of no interest comes first.
    handles = _Bytes(data[-_FOOTER:])
    handles.handle()
    for _, value in _block(path, data, *handles.handle()):
        yield from _block(path, data, *_Bytes(value).handle())


def _block(
    path: Path, data: bytes, offset: int, size: int
) -> Iterator[tuple[bytes, bytes]]:
    """Yields keys and values of a block; each key is stored as its difference from the
    one before."""
    whole = data[offset : offset + size + 5]
    if len(whole) != size + 5:
        raise ValueError("a block ends behind the file")
    if whole[size]:
        raise InputError(f"{path} is compressed, which is not read")
    if _checksum(whole[: size + 1]) != int.from_bytes(whole[size + 1 :], "little"):
        raise ValueError("a checksum differs")
    count = int.from_bytes(whole[size - 4 : size], "little")
    rest = _Bytes(whole[: size - 4 * (count + 1)])
    key = b""
    while rest:
        shared, own, length = rest.varint(), rest.varint(), rest.varint()
        key = key[:shared] + rest.take(own)
        yield key, rest.take(length)


class _Bytes:
    """Bytes that are read from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def __bool__(self) -> bool:
        return self.place < len(self.data)

    def take(self, count: int) -> bytes:
        start, self.place = self.place, self.place + count
        if self.place > len(self.data):
            raise ValueError("an entry ends behind its block")
        return self.data[start : self.place]

    def varint(self) -> int:
        """Returns a number stored in groups of 7 bits, the lowest first."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def handle(self) -> tuple[int, int]:
        """Returns offset and size of a block."""
        return self.varint(), self.varint()


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields number and value of the fields of a protocol buffer."""
    rest = _Bytes(message)
    while rest:
        number, kind = divmod(rest.varint(), 8)
        if kind == 0:
            yield number, rest.varint()
        elif kind == 2:
            yield number, rest.take(rest.varint())
        else:
            yield number, rest.take({1: 8, 5: 4}[kind])


def _entry(message: bytes) -> _Entry:
    found: dict[int, int] = {}
    shape: list[int] = []
    parts = False
    for number, value in _fields(message):
        if isinstance(value, int):
            found[number] = value
        elif number == 2:
            for inner, dimension in _fields(value):
                if inner == 2 and isinstance(dimension, bytes):
                    sizes = [v for n, v in _fields(dimension) if n == 1]
                    shape.append(int(sizes[0]) if sizes else 0)
        elif number == 7:
            parts = True
    return _Entry(
        found.get(1, 0),
        tuple(shape),
        found.get(3, 0),
        found.get(4, 0),
        found.get(5, 0),
        parts,
    )


def _checksums() -> list[int]:
    """Returns the table of CRC-32C, Castagnoli's polynomial."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _checksums()


def _checksum(data: bytes) -> int:
    """Returns the CRC-32C of bytes, disguised as LevelDB does."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
