"""Checkpoints of TensorFlow are read as TensorFlow reads them, without it."""

import contextlib
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxpaint import tf_checkpoint
from jaxpaint.errors import InputError

DATA = Path(__file__).parent / "data"
KINDS = [
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    *("bool", "complex128", "complex64"),
]
POWERS = np.array([[1, 2, 4], [8, 16, 32]])


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def table(path: Path, blocks: list[list[tuple[bytes, bytes]]]) -> Path:
    """Writes a table of blocks in which keys are whole."""
    data, handles = b"", []

    def add(entries: list[tuple[bytes, bytes]]) -> bytes:
        nonlocal data
        block = b""
        for key, value in entries:
            lengths = b"\0" + varint(len(key)) + varint(len(value))
            block += lengths + key + value
        block += bytes(4) + (1).to_bytes(4, "little")
        handle = varint(len(data)) + varint(len(block))
        checksum = tf_checkpoint._checksum(block + b"\0")
        data += block + b"\0" + checksum.to_bytes(4, "little")
        return handle

    handles = [(block[-1][0], add(block)) for block in blocks]
    ends = add([]) + add(handles)
    magic = (0xDB4775248B80FB57).to_bytes(8, "little")
    path.write_bytes(data + ends.ljust(40, b"\0") + magic)
    return path


def entry(dtype: int, shape: list[int], offset: int, size: int, more=b"") -> bytes:
    sizes = [b"\x08" + varint(n) for n in shape]
    shape = b"".join(b"\x12" + varint(len(one)) + one for one in sizes)
    fields = [(1, dtype), (4, offset), (5, size)]
    numbers = b"".join(varint(8 * key) + varint(value) for key, value in fields)
    return numbers + b"\x12" + varint(len(shape)) + shape + more


def copied(name: str, folder: Path) -> Path:
    for path in DATA.glob(f"{name}.*"):
        shutil.copy(path, folder)
    return folder / name


def test_all_dtypes_are_read_and_strings_left_out():
    arrays = tf_checkpoint.load(DATA / "tf_dtypes")
    assert set(arrays) == {*KINDS, "scalar", "empty"}
    for kind in KINDS:
        dtype = np.dtype(getattr(ml_dtypes, kind, None) or kind)
        assert arrays[kind].dtype == dtype
        np.testing.assert_array_equal(arrays[kind], POWERS.astype(dtype))
        assert not arrays[kind].flags.writeable
    assert arrays["scalar"] == 2.5
    assert arrays["scalar"].shape == ()
    assert arrays["empty"].shape == (0, 7)


def test_names_that_share_their_beginnings_are_read():
    arrays = tf_checkpoint.load(DATA / "tf_many")
    names = [f"inpaint_net/a_layer_with_a_long_name_{i:03d}/kernel" for i in range(60)]
    assert list(arrays) == names
    for i, name in enumerate(names):
        np.testing.assert_array_equal(arrays[name], [i, -i])


def test_several_files_of_data_are_read():
    arrays = tf_checkpoint.load(DATA / "tf_shards")
    assert list(arrays) == ["first", "second", "third"]
    np.testing.assert_array_equal(arrays["first"], [1, 2])
    np.testing.assert_array_equal(arrays["second"], [[3], [4]])
    np.testing.assert_array_equal(arrays["third"], 5)


def test_checkpoints_of_training_with_adam_are_read():
    arrays = tf_checkpoint.load(DATA / "tf_saver" / "snap-0")
    slots = ["layer/kernel/Adam", "layer/kernel/Adam_1"]
    assert list(arrays) == ["beta1_power", "beta2_power", "layer/kernel", *slots]
    # The first step of Adam is as long as the learning rate.
    np.testing.assert_allclose(arrays["layer/kernel"], [[0.999, 1.999]], rtol=1e-6)


def test_an_index_of_several_blocks_is_read(tmp_path):
    entries = [(b"", b"\x08\x01")]
    for i in range(40):
        entries.append((f"name{i:02d}".encode(), entry(3, [], 4 * i, 4)))
    blocks = [entries[i : i + 10] for i in range(0, len(entries), 10)]
    table(tmp_path / "a.index", blocks)
    np.arange(40, dtype=np.int32).tofile(tmp_path / "a.data-00000-of-00001")
    arrays = tf_checkpoint.load(tmp_path / "a")
    assert [int(value) for value in arrays.values()] == list(range(40))


def test_a_checkpoint_is_found_by_its_files_and_its_folder(tmp_path):
    prefix = copied("tf_shards", tmp_path)
    for name in ("", ".index", ".meta", ".data-00001-of-00002"):
        path = tmp_path / f"tf_shards{name}"
        assert tf_checkpoint.prefix_of(path) == prefix
    assert tf_checkpoint.prefix_of(tmp_path) == prefix
    assert tf_checkpoint.prefix_of(tmp_path / "other.pth") is None
    other = copied("tf_many", tmp_path)
    with pytest.raises(InputError, match=r"several .* tf_many.index, tf_shards.index"):
        tf_checkpoint.prefix_of(tmp_path)
    # TensorFlow's text file says which, also after both have moved.
    text = tmp_path / "checkpoint"
    for name in ("tf_many", "/gone/tf_many", str(other)):
        text.write_text(f'model_checkpoint_path: "{name}"\nall: "tf_shards"\n')
        assert tf_checkpoint.prefix_of(tmp_path) == other
        assert tf_checkpoint.prefix_of(text) == other
    text.write_text("")
    with pytest.raises(InputError, match="names no checkpoint"):
        tf_checkpoint.prefix_of(tmp_path)
    saver = DATA / "tf_saver"
    assert tf_checkpoint.prefix_of(saver) == saver / "snap-0"


def test_damage_is_told_in_one_line(tmp_path):
    prefix = copied("tf_shards", tmp_path)
    index = tmp_path / "tf_shards.index"
    whole = index.read_bytes()
    footer = tf_checkpoint._Bytes(whole[-48:])
    (unread, _), (blocks, size) = footer.handle(), footer.handle()
    read = {*range(unread), *range(blocks, blocks + size + 5)}
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 4
        index.write_bytes(changed)
        with contextlib.suppress(InputError):
            tf_checkpoint.load(prefix)
            assert place not in read
    for length in range(0, len(whole), 7):
        index.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"tf_shards.index (is|has)"):
            tf_checkpoint.load(prefix)
    index.write_bytes(whole)
    data = tmp_path / "tf_shards.data-00001-of-00002"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"00001-of-00002 is damaged.*'third' ends"):
        tf_checkpoint.load(prefix)
    data.unlink()
    with pytest.raises(InputError, match="00001-of-00002 does not exist"):
        tf_checkpoint.load(prefix)
    with pytest.raises(InputError, match=r"none\.index does not exist"):
        tf_checkpoint.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (entry(1, [2], 0, 8, b"\x3a\x00"), "'x' is cut into parts"),
        (entry(29, [2], 0, 2), "'x' has dtype 29"),
        (entry(1, [3], 0, 8), "'x' has 8 bytes for \\[3\\] of float32"),
        (entry(1, [2], 4, 8), "'x' ends behind the file"),
    ],
    ids=["parts", "dtype", "size", "offset"],
)
def test_what_cannot_be_read_is_named(tmp_path, value, message):
    table(tmp_path / "a.index", [[(b"", b"\x08\x01"), (b"x", value)]])
    (tmp_path / "a.data-00000-of-00001").write_bytes(bytes(8))
    with pytest.raises(InputError, match=message):
        tf_checkpoint.load(tmp_path / "a")


def test_other_tables_and_machines_are_refused(tmp_path):
    index = table(tmp_path / "a.index", [[(b"x", b"y")]])
    with pytest.raises(InputError, match="of no checkpoint"):
        tf_checkpoint.load(tmp_path / "a")
    table(index, [[(b"", b"\x08\x01\x10\x01")]])
    with pytest.raises(InputError, match="big-endian"):
        tf_checkpoint.load(tmp_path / "a")
    whole = bytearray(table(index, [[(b"", b"\x08\x01")]]).read_bytes())
    whole[13] = 1  # behind the first block: snappy
    index.write_bytes(whole)
    with pytest.raises(InputError, match="is compressed"):
        tf_checkpoint.load(tmp_path / "a")
