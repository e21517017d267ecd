"""Files of `torch.save` are read as PyTorch reads them, and nothing in them is run."""

import contextlib
import pickle
import runpy
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxpaint import torch_file
from jaxpaint.errors import InputError

DATA = Path(__file__).parent / "data"

POWERS = np.array([[1, 2, 4], [8, 16, 32]])
BASE = np.arange(12, dtype=np.float32).reshape(3, 4)


def dtype_of(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def expected_dtypes() -> dict[str, np.ndarray]:
    names = [
        *("float64", "float32", "float16", "bfloat16"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
        *("float8_e8m0fnu", "int64", "int32", "int16", "int8"),
        *("uint64", "uint32", "uint16", "uint8", "bool", "complex128", "complex64"),
    ]
    return {name: POWERS.astype(dtype_of(name)) for name in names}


def expected_views() -> dict[str, np.ndarray]:
    half = BASE.astype(ml_dtypes.bfloat16)
    return {
        "base": BASE,
        "transposed": BASE.T,
        "offset": BASE[1:, 2:],
        "stepped": BASE[::2, ::3],
        "expanded": np.repeat(BASE[:, :1], 5, axis=1),
        "scalar": BASE[2, 3],
        "empty": np.empty((0, 7), np.float32),
        "conjugate": np.array([1 - 2j, 3 + 4j], np.complex64),
        "negative": np.array([-2, 4], np.float32),
        "parameter": BASE,
        "marked": BASE[0],
        "bfloat16": half.T,
        "bits": half.view(np.uint16)[1],
    }


def check_equal(got: dict, want: dict) -> None:
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


def repack(source: Path, target: Path, change, **options) -> Path:
    """Copies a zip archive with the bytes of its entries changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for name in old.namelist():
            data = change(name.partition("/")[2], old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def archive(path: Path, program: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", program)
        for key, data in storages.items():
            file.writestr(f"a/data/{key}", data)
    return path


def float_tensor(offset: int, size: list, stride: list, count: int) -> bytes:
    """Returns the pickle of a float tensor on a storage '0', by its opcodes."""

    def numbers(values: list) -> bytes:
        return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpuI%d\ntQ" % count
    )
    arguments = b"(" + storage + b"I%d\n" % offset + numbers(size) + numbers(stride)
    return b"ctorch._utils\n_rebuild_tensor\n" + arguments + b"tR."


def test_all_dtypes() -> None:
    check_equal(torch_file.load(DATA / "dtypes.pth"), expected_dtypes())


@pytest.mark.parametrize("name", ["views", "views_protocol5", "legacy_views"])
def test_views_of_every_kind(name: str) -> None:
    check_equal(torch_file.load(DATA / f"{name}.pth"), expected_views())


@pytest.mark.parametrize("name", ["views", "legacy_views"])
def test_shared_storages_stay_shared_and_cannot_be_written(name: str) -> None:
    views = torch_file.load(DATA / f"{name}.pth")
    assert np.shares_memory(views["base"], views["transposed"])
    assert np.shares_memory(views["base"], views["scalar"])
    assert not np.shares_memory(views["base"], views["parameter"])
    assert not any(array.flags.writeable for array in views.values())


@pytest.mark.parametrize("name", ["containers", "legacy_containers"])
def test_plain_containers(name: str) -> None:
    loaded = torch_file.load(DATA / f"{name}.pth")
    ordered = loaded.pop("ordered")
    np.testing.assert_array_equal(ordered["a"], np.ones(1, np.float32), strict=True)
    assert ordered["b"] == [1, 2.5, "three", None]
    assert loaded.pop("same") is ordered
    assert loaded == {
        "nested": {"tuple": (True, False, (1,), (1, 2), (1, 2, 3, 4)), 7: -(2**70)},
        "size": (2, 3),
        "dtype": np.dtype(ml_dtypes.bfloat16),
        "device": "cuda:1",
        "complex": 1 + 2j,
        "bytes": b"\x00\xff",
        "empty": ((), [], {}),
    }
    assert type(loaded["size"]) is tuple


def test_storages_themselves() -> None:
    loaded = torch_file.load(DATA / "storages.pth")
    values = np.arange(4, dtype=np.int16)
    check_equal(loaded, {"typed": values, "untyped": values.view(np.uint8)})


def test_state_dict_of_layers() -> None:
    loaded = torch_file.load(DATA / "state_dict.pth")
    assert loaded["epoch"] == 3
    kernel = loaded["state_dict"]["module.2.weight"]
    np.testing.assert_array_equal(
        kernel, np.arange(36, dtype=np.float32).reshape(3, 2, 2, 3) + 7, strict=True
    )
    assert loaded["state_dict"]["module.1.num_batches_tracked"].shape == ()


def test_storages_are_mapped_and_not_read() -> None:
    base = torch_file.load(DATA / "views.pth")["base"]
    while not isinstance(base, np.memmap):
        assert isinstance(base, np.ndarray), "the bytes were copied"
        base = base.base
    assert base.mode == "r"


def test_compressed_entries(tmp_path: Path) -> None:
    path = repack(
        DATA / "views.pth",
        tmp_path / "deflated.pth",
        lambda name, data: data,
        compression=zipfile.ZIP_DEFLATED,
    )
    views = torch_file.load(path)
    check_equal(views, expected_views())
    assert np.shares_memory(views["base"], views["transposed"])


def test_files_of_big_endian_machines(tmp_path: Path) -> None:
    # Storages are numbered in the order of the entries.
    units = [8, 4, 2, 2, 1, 1, 1, 1, 1, 8, 4, 2, 1, 8, 4, 2, 1, 1, 8, 4]

    def swap(name: str, data: bytes) -> bytes:
        if name == "byteorder":
            return b"big"
        if name.startswith("data/"):
            unit = units[int(name.removeprefix("data/"))]
            return np.frombuffer(data, f"u{unit}").byteswap().tobytes()
        return data

    path = repack(DATA / "dtypes.pth", tmp_path / "big.pth", swap)
    check_equal(torch_file.load(path), expected_dtypes())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("module.pth", "'torch.nn.modules.linear.Linear'"),
        ("command.pth", "'posix.system'"),
        ("sparse.pth", "'torch.serialization._get_layout'"),
        ("script.pt", "TorchScript"),
        ("missing.pth", "does not exist"),
        ("", "is a folder"),
        ("write_torch_files.py", "no file of torch.save"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as raised:
        torch_file.load(DATA / name)
    assert str(raised.value).startswith(str(DATA / name))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("protocol", range(6))
def test_no_pickle_runs_a_command(protocol: int, tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return open, (str(witness), "w")

    program = pickle.dumps({"weight": Attack()}, protocol)
    with pytest.raises(InputError, match=r"asks for 'i?o?_?_?\w*\.open'"):
        torch_file.load(archive(tmp_path / "a.pth", program))
    assert not witness.exists()


@pytest.mark.parametrize(
    "program",
    [
        # An instance by its class and arguments: INST, OBJ, NEWOBJ.
        b"(S'echo'\nios\nsystem\n.",
        b"(cos\nsystem\nX\x04\x00\x00\x00echoo.",
        b"cos\nsystem\nX\x04\x00\x00\x00echo\x85\x81.",
        # A class by its number in the registry of extensions.
        b"\x82\x01.",
        # Attributes set on a function: BUILD.
        b"ccollections\nOrderedDict\n}b.",
        # Buffers from outside the file.
        b"\x97.",
    ],
)
def test_other_ways_to_objects_are_closed(program: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        torch_file.load(archive(tmp_path / "a.pth", program))


def test_a_tensor_reads_its_own_storage_only(tmp_path: Path) -> None:
    data = np.arange(4, dtype=np.float32).tobytes()
    good = archive(tmp_path / "good.pth", float_tensor(1, [3], [1], 4), **{"0": data})
    assert torch_file.load(good).tolist() == [1, 2, 3]
    for offset, size, stride, count in [
        (2, [3], [1], 4),
        (0, [3], [2], 4),
        (-1, [3], [1], 4),
        (2, [2], [-3], 4),
        (0, [-1], [1], 4),
        (0, [4], [1], 5),
        (0, [2], [2**62], 4),
        (0, [2, 2], [1], 4),
    ]:
        program = float_tensor(offset, size, stride, count)
        path = archive(tmp_path / "bad.pth", program, **{"0": data})
        with pytest.raises(InputError, match=r"bad\.pth is damaged"):
            torch_file.load(path)


def test_missing_entries(tmp_path: Path) -> None:
    def without(gone: str):
        return lambda name, data: None if name == gone else data

    path = repack(DATA / "views.pth", tmp_path / "a.pth", without("data/0"))
    with pytest.raises(InputError, match="storage 0 is missing"):
        torch_file.load(path)
    path = repack(DATA / "views.pth", tmp_path / "b.pth", without("data.pkl"))
    with pytest.raises(InputError, match="it has no data"):
        torch_file.load(path)


@pytest.mark.parametrize("name", ["views", "legacy_views"])
def test_truncated_and_damaged_files(name: str, tmp_path: Path) -> None:
    whole = (DATA / f"{name}.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for length in [0, 1, 4, 30, 600, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as raised:
            torch_file.load(path)
        assert "\n" not in str(raised.value)
    generator = np.random.default_rng(0)
    for _ in range(300):
        noisy = np.frombuffer(whole, np.uint8).copy()
        places = generator.integers(0, len(whole), 4)
        noisy[places] = generator.integers(0, 256, 4)
        path.write_bytes(noisy.tobytes())
        with contextlib.suppress(InputError):
            torch_file.load(path)


def test_files_of_before_pytorch_1_6_run_nothing_either(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return open, (str(witness), "w")

    whole = (DATA / "legacy_views.pth").read_bytes()
    start = whole.index(b"little_endian")
    begin = whole.index(b".", start) + 1  # behind the third pickle
    path = tmp_path / "a.pth"
    path.write_bytes(whole[:begin] + pickle.dumps(Attack(), 2) + whole[begin:])
    with pytest.raises(InputError, match=r"asks for '\w*\.open'"):
        torch_file.load(path)
    assert not witness.exists()


def test_what_pytorch_writes_today(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    runpy.run_path(str(DATA / "write_torch_files.py"))["write_all"](tmp_path)
    check_equal(torch_file.load(tmp_path / "dtypes.pth"), expected_dtypes())
    check_equal(torch_file.load(tmp_path / "views.pth"), expected_views())
    large = {"large": torch.arange(2**22), "small": torch.ones(2)}
    torch.save(large, tmp_path / "large.pth")
    loaded = torch_file.load(tmp_path / "large.pth")
    assert int(loaded["large"][-1]) == 2**22 - 1
    assert loaded["small"].tolist() == [1, 1]


@pytest.mark.parity
def test_every_recorded_network_is_read(fixtures: Path) -> None:
    paths = sorted(fixtures.glob("*/weights.pth"))
    assert paths
    for path in paths:
        arrays = torch_file.load(path)
        assert arrays
        assert all(isinstance(array, np.ndarray) for array in arrays.values())
