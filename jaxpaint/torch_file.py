"""Reads the files of `torch.save` without PyTorch, and without running what is in them.

Such a file is a zip archive of one pickle and one entry for each storage, or, before
PyTorch 1.6, five pickles and the storages behind them. A pickle is a program; those
here are interpreted by a machine that knows containers, numbers, strings and tensors,
and that refuses by name everything else a file may ask for. Storages are mapped into
memory, so that a file larger than memory can be opened.
"""

import io
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import ml_dtypes
import numpy as np

from jaxpaint import files
from jaxpaint.errors import InputError

_DTYPES: Mapping[str, np.dtype] = {
    f"torch.{name}": np.dtype(kind)
    for name, kind in {
        "float64": np.float64,
        "float32": np.float32,
        "float16": np.float16,
        "bfloat16": ml_dtypes.bfloat16,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
        "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
        "float8_e5m2": ml_dtypes.float8_e5m2,
        "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
        "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
        "int64": np.int64,
        "int32": np.int32,
        "int16": np.int16,
        "int8": np.int8,
        "uint64": np.uint64,
        "uint32": np.uint32,
        "uint16": np.uint16,
        "uint8": np.uint8,
        "bool": np.bool_,
        "complex128": np.complex128,
        "complex64": np.complex64,
    }.items()
}

_STORAGES: Mapping[str, np.dtype] = {
    f"torch.{name}Storage": _DTYPES[f"torch.{kind}"]
    for name, kind in {
        "Double": "float64",
        "Float": "float32",
        "Half": "float16",
        "BFloat16": "bfloat16",
        "Long": "int64",
        "Int": "int32",
        "Short": "int16",
        "Char": "int8",
        "Byte": "uint8",
        "Bool": "bool",
        "ComplexDouble": "complex128",
        "ComplexFloat": "complex64",
    }.items()
} | {
    "torch.storage.UntypedStorage": np.dtype(np.uint8),
    "torch.UntypedStorage": np.dtype(np.uint8),
}

_MAGIC = 0x1950A86A20F9469CFC6C
"""The number that a file of PyTorch before 1.6 begins with, as a pickle."""

_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How that looks."""


def load(path: Path | str) -> Any:
    """Returns what `torch.save` wrote to `path`, usually nested dicts of arrays.

    Tensors and parameters become read-only numpy arrays that share memory as they did
    when they were saved, `torch.Size` a tuple, `OrderedDict` a dict, a dtype that of
    numpy, a device its name. bfloat16 and the float8 types are those of `ml_dtypes`.

    Raises:
      InputError: no such file, another format, damage, or a file that asks for any
        other kind of object.
    """
    path = Path(path)
    with files.blaming(path, "a .pt or .pth file"), path.open("rb") as file:
        start = file.read(512)
        if start.startswith(_LEGACY):
            return _legacy(path, file)
        if not start.startswith(b"PK"):
            raise _wrong_format(path, start)
        with zipfile.ZipFile(file) as archive:
            return _Archive(path, archive).load()


def _wrong_format(path: Path, start: bytes) -> InputError:
    if not start:
        return InputError(f"{path} is empty (0 bytes); want a file of torch.save")
    if start[257:262] == b"ustar":
        return InputError(
            f"{path} has the format of PyTorch before 0.1.10; resave it there with "
            "torch.save(torch.load(FILE, map_location='cpu'), NEW_FILE)"
        )
    return InputError(f"{path} is no file of torch.save; want a .pt or .pth file")


class _Global(NamedTuple):
    """An imported name; nothing is imported for it."""

    name: str


class _Archive:
    """The entries of a zip file, and the pickle that says how they belong together."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.zip = archive
        self.entries = {}
        for entry in archive.infolist():
            # Everything lies in one folder, whose name is of no importance.
            self.entries[entry.filename.partition("/")[2]] = entry
        self.map = np.memmap(path, np.uint8, "r").view(np.ndarray)
        self.storages: dict[str, np.ndarray] = {}

    def load(self) -> Any:
        if "data.pkl" not in self.entries:
            raise InputError(
                f"{self.path} is a zip file but not of torch.save: it has no data.pkl"
            )
        if "constants.pkl" in self.entries:
            raise InputError(
                f"{self.path} is a TorchScript program, whose code is not run here; "
                "want a state dict: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
            )
        order = b"little"
        if "byteorder" in self.entries:
            order = self.zip.read(self.entries["byteorder"])
        machine = _Machine(self.path, self._bytes, order == b"little")
        return machine.run(io.BytesIO(self.zip.read(self.entries["data.pkl"])))

    def _bytes(self, key: str, dtype: np.dtype, count: int) -> np.ndarray:
        """Returns the bytes of a storage, mapped where they are not compressed."""
        if key not in self.storages:
            entry = self.entries.get(f"data/{key}")
            if entry is None:
                raise ValueError(f"storage {key} is missing")
            if entry.compress_type != zipfile.ZIP_STORED:
                self.storages[key] = np.frombuffer(self.zip.read(entry), np.uint8)
            else:
                start = _data_offset(self.map, entry.header_offset)
                if start + entry.file_size > len(self.map):
                    raise ValueError(f"storage {key} ends behind the file")
                self.storages[key] = self.map[start : start + entry.file_size]
        return self.storages[key]


def _legacy(path: Path, file: IO[bytes]) -> Any:
    """Returns the object in a file of PyTorch before 1.6.

    Behind the pickle of the object come the keys of the storages and then, in their
    order, the number of elements of each and its bytes. How many bytes an element has
    only the object tells: its pickle is run twice, first with zeros for storages.
    """
    sizes: dict[str, int] = {}

    def zeros(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        # A storage that is seen as bytes, too, was saved in its own elements.
        sizes[key] = max(dtype.itemsize, sizes.get(key, 0))
        return _frozen(np.broadcast_to(np.uint8(0), count * dtype.itemsize).copy())

    first = _Machine(path, zeros, little=True)
    file.seek(0)
    magic, _, about = (first.run(file) for _ in range(3))
    if magic != _MAGIC or not isinstance(about, dict):
        raise ValueError("the first pickles are not those of torch.save")
    begin = file.tell()
    first.run(file)
    starts: dict[str, tuple[int, int]] = {}
    keys = first.run(file)
    position = file.tell()
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)
    little = about.get("little_endian", True)
    for key in keys:
        count = int(data[position : position + 8].view("<i8" if little else ">i8")[0])
        size = count * sizes[key]
        starts[key] = position + 8, position + 8 + size
        position += 8 + size
    if position > len(data):
        raise ValueError("the storages end behind the file")

    def mapped(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        start, end = starts[key]
        return data[start:end]

    file.seek(begin)
    return _Machine(path, mapped, little).run(file)


Bytes = Callable[[str, np.dtype, int], np.ndarray]
"""Uint8 of the storage with a key, of which some elements of a type are wanted."""


class _Machine:
    """Runs the pickles of a file, as far as they only build tensors and containers."""

    def __init__(self, path: Path, bytes_of: Bytes, little: bool) -> None:
        self.path = path
        self._bytes = bytes_of
        self.swapped = little != np.little_endian

    def _storage(self, reference: Any) -> np.ndarray:
        """Returns the elements of a storage; bytes where it has no type."""
        kind, *about = reference
        if kind == "module":  # the class of an object, with its source
            raise self._refused(about[0].name)
        if kind != "storage":
            raise ValueError(f"unknown reference {kind!r}")
        # Before 1.6 also: None, or which part of a larger storage it is.
        storage_type, key, _, count, *part = about
        if storage_type.name not in _STORAGES:
            raise self._refused(storage_type.name)
        dtype = _STORAGES[storage_type.name]
        first = 0
        if part and part[0] is not None:
            _, first, count = part[0]
        data = self._bytes(key, dtype, first + count)
        begin, end = (n * dtype.itemsize for n in (first, first + count))
        if not 0 <= begin <= end <= len(data):
            raise ValueError(f"storage {key} has {len(data)} bytes; want {end}")
        return self._native(data[begin:end], dtype)

    def _native(self, data: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Returns bytes of the file as elements in the byte order of this machine."""
        data = data[: len(data) // dtype.itemsize * dtype.itemsize]
        # Both parts of a complex number are swapped on their own.
        unit = dtype.itemsize // (2 if dtype.kind == "c" else 1)
        if self.swapped and unit > 1:
            data = _frozen(data.view(f"u{unit}").byteswap())
        return data.view(dtype)

    def _tensor(
        self,
        storage: np.ndarray,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        flags: Mapping[str, bool] | None = None,
    ) -> np.ndarray:
        """Returns a view of a storage; sizes and strides count elements."""
        dtype = storage.dtype
        if 0 in size:
            return _frozen(np.empty(size, dtype))
        strides = tuple(step * dtype.itemsize for step in stride)
        # Numpy checks that all elements lie in the buffer.
        buffer = storage.view(np.uint8)
        array = np.ndarray(size, dtype, buffer, offset * dtype.itemsize, strides)
        if flags and flags.get("conj"):
            array = _frozen(array.conj())
        if flags and flags.get("neg"):
            array = _frozen(np.negative(array))
        return array

    def _call(self, function: Any, arguments: tuple) -> Any:
        """Returns what one of the few known functions makes of its arguments."""
        match function.name, arguments:
            case "collections.OrderedDict", ():
                return {}
            case "collections.OrderedDict", (items,):
                return dict(items)
            case "torch._utils._rebuild_tensor", (storage, offset, size, stride):
                return self._tensor(storage, offset, size, stride)
            case (
                "torch._utils._rebuild_tensor_v2",
                (storage, offset, size, stride, _, _, *flags),
            ):
                return self._tensor(storage, offset, size, stride, *flags)
            case (
                "torch._utils._rebuild_tensor_v3",
                (storage, offset, size, stride, _, _, dtype, *flags),
            ):
                typed = self._native(storage, dtype)
                return self._tensor(typed, offset, size, stride, *flags)
            case (
                "torch._utils._rebuild_parameter"
                | "torch._utils._rebuild_parameter_with_state",
                (np.ndarray() as array, *_),
            ):
                return array
            case (
                "torch._tensor._rebuild_from_type_v2",
                (
                    inner,
                    _Global("torch.Tensor" | "torch.nn.parameter.Parameter"),
                    inner_arguments,
                    _,
                ),
            ):
                return self._call(inner, inner_arguments)
            case "torch.Size", (size,):
                return tuple(size)
            case "torch.device", (kind, *index):
                return ":".join([kind, *map(str, index)])
            case "_codecs.encode", (str() as text, "latin1"):
                return text.encode("latin1")
            case "__builtin__.complex" | "builtins.complex", (real, imaginary):
                return complex(real, imaginary)
        raise self._refused(function.name)

    def _refused(self, name: str) -> InputError:
        return InputError(
            f"{self.path} asks for '{name}', which is no tensor and no plain "
            "container: refused, nothing was run; save the state dict alone"
        )

    def _global(self, name: str) -> Any:
        return _DTYPES[name] if name in _DTYPES else _Global(name)

    def run(self, file: IO[bytes]) -> Any:
        """Returns the object of the pickle that begins here; reads up to its end."""
        stack: list[Any] = []
        below: list[list[Any]] = []
        memo: dict[int, Any] = {}
        for opcode, operand, _ in pickletools.genops(file):
            name, argument = opcode.name, cast(Any, operand)
            match name:
                case _ if name in _LITERALS:
                    stack.append(argument)
                case _ if name in _NAMED:
                    stack.append(_NAMED[name])
                case _ if name in _EMPTY:
                    stack.append(_EMPTY[name]())
                case "PROTO" | "FRAME":
                    pass
                case "MARK":
                    below.append(stack)
                    stack = []
                case "POP":
                    stack.pop()
                case "POP_MARK":
                    stack = below.pop()
                case "DUP":
                    stack.append(stack[-1])
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case "TUPLE" | "LIST" | "DICT":
                    items, stack = stack, below.pop()
                    stack.append(_CONTAINERS[name](items))
                case "APPEND":
                    item = stack.pop()
                    _plain(stack[-1], list).append(item)
                case "APPENDS":
                    items, stack = stack, below.pop()
                    _plain(stack[-1], list).extend(items)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _plain(stack[-1], dict)[key] = value
                case "SETITEMS":
                    items, stack = stack, below.pop()
                    _plain(stack[-1], dict).update(_pairs(items))
                case "GLOBAL":
                    stack.append(self._global(argument.replace(" ", ".")))
                case "STACK_GLOBAL":
                    attribute, module = stack.pop(), stack.pop()
                    stack.append(self._global(f"{module}.{attribute}"))
                case "REDUCE":
                    arguments, function = stack.pop(), stack.pop()
                    stack.append(self._call(function, arguments))
                case "BUILD":
                    # Attributes of a state dict: its _metadata. Nothing else has any.
                    stack.pop()
                    _plain(stack[-1], dict)
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "GET" | "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "NEWOBJ" | "NEWOBJ_EX" | "OBJ" | "INST":
                    raise self._refused(_class_of(name, argument, stack))
                case "STOP":
                    return stack.pop()
                case _:
                    raise self._refused(f"opcode {name}")
        raise ValueError("the pickle has no end")


def _data_offset(data: np.ndarray, header: int) -> int:
    """Returns where the bytes of a zip entry begin, by the entry's own header."""
    if data[header : header + 4].tobytes() != b"PK\x03\x04":
        raise ValueError("a zip entry has no header")
    name, extra = data[header + 26 : header + 30].view("<u2").tolist()
    return header + 30 + name + extra


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _plain(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"the pickle fills a {type(value).__name__}")
    return value


def _pairs(items: list[Any]) -> Any:
    return zip(items[::2], items[1::2], strict=True)


def _class_of(opcode: str, argument: Any, stack: list[Any]) -> str:
    """Returns the name of the class that an opcode would make an object of."""
    if opcode == "INST":
        return argument.replace(" ", ".")
    depth = {"NEWOBJ": -2, "NEWOBJ_EX": -3, "OBJ": 0}[opcode]
    return getattr(stack[depth], "name", "an object")


_CONTAINERS: Mapping[str, Callable[[list[Any]], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "DICT": lambda items: dict(_pairs(items)),
}

_EMPTY: Mapping[str, Callable[[], Any]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}

_NAMED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_FLOATS = ("FLOAT", "BINFLOAT")
_TEXTS = (
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),  # of Python 2
)
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_LITERALS = frozenset(_NUMBERS + _FLOATS + _TEXTS + _BYTES)
"""The opcodes that push their argument."""
