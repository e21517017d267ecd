"""The safetensors format: arrays by name with a little text, without its library.

A file is 8 bytes with the length of a header, the header as JSON, and the arrays one
after the other: little-endian, row by row, in offsets that the header tells.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from jaxpaint import files
from jaxpaint.errors import InputError

_DTYPES: Mapping[str, np.dtype] = {
    name: np.dtype(kind)
    for name, kind in {
        "BOOL": np.bool_,
        "U8": np.uint8,
        "I8": np.int8,
        "U16": np.uint16,
        "I16": np.int16,
        "U32": np.uint32,
        "I32": np.int32,
        "U64": np.uint64,
        "I64": np.int64,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "F32": np.float32,
        "F64": np.float64,
        "C64": np.complex64,
    }.items()
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000


def write(
    path: Path | str,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes arrays and texts to `path`, whole or not at all.

    The same content gives the same bytes. An existing file is replaced.

    Raises:
      InputError: a dtype that the format does not have, or the disk refuses.
    """
    path = Path(path)
    for name, array in arrays.items():
        if array.dtype not in _NAMES:
            raise InputError(f"{path}: {name} has dtype {array.dtype}; want float32")
    # Wide elements first: every array is aligned to its own elements.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        start, end = end, end + arrays[name].nbytes
        header[name] = {
            "dtype": _NAMES[arrays[name].dtype],
            "shape": list(arrays[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    try:
        with files.replacing(path) as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                array = np.ascontiguousarray(arrays[name])
                file.write(array.reshape(-1).view(np.uint8).data)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})") from error


def read(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays of a file, read-only and mapped into memory, and its texts.

    Raises:
      InputError: no such file, or one that is damaged or of another format.
    """
    path = Path(path)
    with files.blaming(path, "a .safetensors file"), path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        size = path.stat().st_size
        if len(start) < 8 or length > min(size - 8, _LONGEST_HEADER):
            _refuse(path, f"a header of {length} bytes in a file of {size}")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_once)
        metadata = {name: _text(v) for name, v in header.pop(_METADATA, {}).items()}
        entries = {name: _entry(value) for name, value in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _refuse(path, f"a header with {type(error).__name__}: {error}")
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)[8 + length :]
    end = 0
    for name, (dtype, shape, start, stop) in sorted(
        entries.items(), key=lambda entry: entry[1][2:]
    ):
        count = 1
        for side in shape:
            count *= side
        if start != end or stop - start != count * dtype.itemsize:
            _refuse(path, f"'{name}' at bytes {start} to {stop}, after byte {end}")
        end = stop
    if end != len(data):
        _refuse(path, f"{len(data)} bytes of arrays; want {end}")
    return {
        name: data[start:stop].view(dtype).reshape(shape)
        for name, (dtype, shape, start, stop) in entries.items()
    }, metadata


def _entry(value: dict[str, Any]) -> tuple[np.dtype, tuple[int, ...], int, int]:
    shape, (start, stop) = value["shape"], value["data_offsets"]
    for number in (*shape, start, stop):
        if type(number) is not int or number < 0:
            raise ValueError(f"{number!r} is no size")
    return _DTYPES[value["dtype"]], tuple(shape), start, stop


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name that is given twice")
    return names


def _refuse(path: Path, found: str) -> NoReturn:
    why = " ".join(found.split())
    raise InputError(f"{path} is damaged or no safetensors file: it has {why}")
