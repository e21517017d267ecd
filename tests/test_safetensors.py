"""The safetensors format, against its own library."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxpaint import safetensors as ours
from jaxpaint.errors import InputError

KINDS = [
    *(np.float64, np.float32, np.float16, ml_dtypes.bfloat16),
    *(ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e8m0fnu),
    *(np.int64, np.int32, np.int16, np.int8, np.bool_, np.complex64),
    *(np.uint64, np.uint32, np.uint16, np.uint8),
]

METADATA = {"method": "context_encoder", "options": '{"width": 64}', "text": 'ä\n"'}


def many() -> dict[str, np.ndarray]:
    arrays = {
        f"kind.{np.dtype(kind)}": np.array([[1, 2, 4], [8, 16, 32]]).astype(kind)
        for kind in KINDS
    }
    arrays["scalar"] = np.array(3, np.int64)
    arrays["empty"] = np.empty((0, 5), np.float32)
    arrays["transposed"] = np.arange(6, dtype=np.float32).reshape(2, 3).T
    return arrays


def check_equal(got: dict, want: dict) -> None:
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


def header_of(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def store(path: Path, header: object, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(shape: list, start: object, stop: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ours.write(tmp_path / "a.safetensors", many(), METADATA)
    arrays, metadata = ours.read(tmp_path / "a.safetensors")
    check_equal(arrays, many())
    assert metadata == METADATA
    assert not any(array.flags.writeable for array in arrays.values())


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors", reason="safetensors is not installed")
    numpy = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "a.safetensors"
    # It knows these, but cannot give them as numpy arrays.
    narrow = ("float8", "complex")
    known = {k: v for k, v in many().items() if not any(n in k for n in narrow)}
    ours.write(path, known, METADATA)
    check_equal(numpy.load_file(path), known)
    with library.safe_open(path, "np") as file:
        assert file.metadata() == METADATA
    ours.write(path, many())
    with library.safe_open(path, "np") as file:
        assert sorted(file.keys()) == sorted(many())


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="no safetensors")
    path = tmp_path / "a.safetensors"
    known = {k: np.ascontiguousarray(v) for k, v in many().items() if "e8m0" not in k}
    known["scalar"] = many()["scalar"]
    library.save_file(known, path, METADATA)
    arrays, metadata = ours.read(path)
    check_equal(arrays, known)
    assert metadata == METADATA


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    ours.write(tmp_path / "a", many(), METADATA)
    ours.write(tmp_path / "b", dict(reversed(many().items())), METADATA)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    header = header_of(tmp_path / "a")
    for length in range(3):
        ours.write(tmp_path / "c", {}, {"text": "x" * length})
        assert int.from_bytes((tmp_path / "c").read_bytes()[:8], "little") % 8 == 0
    for name, array in many().items():
        assert header[name]["data_offsets"][0] % array.dtype.itemsize == 0


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    ours.write(path, {"x": np.ones(2, np.float32)})
    before = path.read_bytes()
    with pytest.raises(InputError, match="x has dtype complex128"):
        ours.write(path, {"x": np.ones(2, np.complex128)})
    with pytest.raises(InputError, match="cannot be written"):
        ours.write(tmp_path / "none" / "a", {"x": np.ones(2, np.float32)})

    def full_disk(array: np.ndarray) -> np.ndarray:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "ascontiguousarray", full_disk)
    with pytest.raises(
        InputError, match=r"cannot be written \(No space left on device"
    ):
        ours.write(path, {"x": np.zeros(2, np.float32)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (b"{", 0),
        (b"[]", 0),
        (b"\xff", 0),
        (b"[" * 100_000, 0),
        ({"x": 3}, 0),
        ({"x": {"dtype": "F32"}}, 0),
        ({"x": entry([1], 0, 4, "F3")}, 4),
        ({"x": entry([2], 0, 4)}, 4),
        ({"x": entry([-1], 0, 4)}, 4),
        ({"x": entry([1.0], 0, 4)}, 4),
        ({"x": entry([1], "0", 4)}, 4),
        ({"x": entry([1], 4, 8)}, 8),
        ({"x": entry([1], 0, 4)}, 3),
        ({"x": entry([1], 0, 4)}, 5),
        ({"x": entry([2], 0, 8), "y": entry([1], 4, 8)}, 8),
        ({"x": entry([2**40, 2**40], 0, 4)}, 4),
        ({"__metadata__": {"step": 3}}, 0),
        ({"__metadata__": []}, 0),
        (
            b'{"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},'
            b' "x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}',
            1,
        ),
        ({"x": entry([-1, -1], 0, 4)}, 4),
    ],
)
def test_damage_is_one_clear_line(header: object, size: int, tmp_path: Path) -> None:
    path = store(tmp_path / "a.safetensors", header, bytes(size))
    with pytest.raises(InputError, match=r"a\.safetensors is damaged or no") as raised:
        ours.read(path)
    assert "\n" not in str(raised.value)


def test_files_that_end_early(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    ours.write(path, many(), METADATA)
    whole = path.read_bytes()
    for length in [0, 7, 8, 100, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="damaged or no safetensors file"):
            ours.read(path)
    with pytest.raises(InputError, match="does not exist"):
        ours.read(tmp_path / "none")
    with pytest.raises(InputError, match="is a folder"):
        ours.read(tmp_path)
