"""Prepared sets: built from a folder, read from each format, without TensorFlow."""

import errno
import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxpaint.cli.main import main
from jaxpaint.data import preparation
from jaxpaint.data.folder import FolderSource
from jaxpaint.data.sources import open_source
from jaxpaint.errors import InputError

COUNT = 11


def save(path, seed, size=(20, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture(scope="module", autouse=True)
def without_tensorflow():
    before = "tensorflow" in sys.modules
    yield
    assert before or "tensorflow" not in sys.modules


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several formats, with splits."""
    folder = tmp_path_factory.mktemp("pictures")
    kinds = ["png", "jpg", "bmp", "webp", "tif"]
    for number in range(COUNT):
        name = f"train/{number % 3}/{number}.{kinds[number % 5]}"
        save(folder / name, number, **{"lossless": True} if number % 5 == 3 else {})
    save(folder / "val" / "a.png", 99)
    return folder


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("sets") / "set"
    before = preparation.SHARD_BYTES
    preparation.SHARD_BYTES = 4_000  # several files, to read across
    try:
        counts, bad = preparation.prepare(folder, output, "things")
    finally:
        preparation.SHARD_BYTES = before
    assert counts == {"train": COUNT, "validation": 1}
    assert not bad
    assert len(list(output.glob("*train*-of-*"))) > 2
    return output


def assert_same(one, other, shift=0):
    for index in range(len(one)):
        np.testing.assert_array_equal(one.read(index), other.read(index + shift))


def test_a_set_reads_back_pixel_for_pixel(folder, prepared):
    source = open_source(f"tfds:{prepared}/train")
    assert len(source) == COUNT
    assert_same(source, FolderSource(folder / "train"))
    assert_same(
        open_source(f"tfds:{prepared}/validation"), FolderSource(folder / "val")
    )
    assert source.name(3) == f"tfds:{prepared}/train record 3"


def test_jpeg_and_png_files_go_in_byte_for_byte(folder, prepared):
    import tensorflow_datasets as tfds

    records = tfds.builder_from_directory(prepared).as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    kept = 0
    for record in records:
        file = folder / record["file_name"].decode()
        if file.suffix in (".png", ".jpg"):
            assert record["image"] == file.read_bytes()
            kept += 1
    assert kept == 5


def test_slices_of_a_split(prepared):
    whole = open_source(f"tfds:{prepared}/train")
    part = open_source(f"tfds:{prepared}/train[3:9]")
    assert len(part) == 6
    assert_same(part, whole, shift=3)


def test_a_set_is_found_by_its_name(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "things" / "1.0.0")
    source = open_source("tfds:things/train", str(tmp_path))
    assert_same(source, open_source(f"tfds:{prepared}/train"))
    with pytest.raises(InputError, match=r"not prepared in .*things/1\.0\.0"):
        open_source("tfds:thinks/train", str(tmp_path))
    with pytest.raises(InputError, match=r"features\.json, but .*1\.0\.0 has"):
        open_source(f"tfds:{tmp_path}/things/train")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("tfds:things", "want tfds:NAME/SPLIT"),
        ("tfds:{set}/trian", "did you mean 'train'"),
        ("tfds:{set}/train[5", "bad split"),
        ("tfds:{set}/train[5:5]", "no records"),
        ("tfds:{set}/none/train", "does not exist"),
        ("tfds:{folder}/train", "is no prepared set"),
    ],
)
def test_what_is_no_set_is_refused(text, what, prepared, folder):
    with pytest.raises(InputError, match=what):
        open_source(text.format(set=prepared, folder=folder))


def records_of(prepared):
    return [bytes(r) for r in open_source(f"tfds:{prepared}/train")._records]


def as_format(prepared, output, kind, files):
    """Copies a set without its records, as one of another format with these files."""
    output.mkdir()
    for name in ("dataset_info.json", "features.json"):
        about = (prepared / name).read_text()
        (output / name).write_text(about.replace("array_record", kind))
    info = json.loads((output / "dataset_info.json").read_text())
    lengths = [str(len(records)) for records in files]
    info["splits"] = [s for s in info["splits"] if s["name"] == "train"]
    info["splits"][0]["shardLengths"] = lengths
    (output / "dataset_info.json").write_text(json.dumps(info))
    return [
        output / f"things-train.{kind}-{number:05}-of-{len(files):05}"
        for number in range(len(files))
    ]


@pytest.fixture
def tfrecord(prepared, tmp_path):
    records = records_of(prepared)
    files = [records[:4], records[4:]]
    output = tmp_path / "tfrecord"
    for path, part in zip(
        as_format(prepared, output, "tfrecord", files), files, strict=True
    ):
        path.write_bytes(
            b"".join(struct.pack("<Q", len(r)) + b"head" + r + b"tail" for r in part)
        )
    return output


def test_tfrecord_files_are_read_at_random(prepared, tfrecord):
    whole = open_source(f"tfds:{prepared}/train")
    source = open_source(f"tfds:{tfrecord}/train")
    assert len(source) == COUNT
    assert_same(source, whole)
    assert_same(open_source(f"tfds:{tfrecord}/train[2:7]"), whole, shift=2)


def test_a_cut_off_tfrecord_file_is_named(tfrecord):
    path = sorted(tfrecord.glob("*tfrecord-*"))[1]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="00001-of-00002 ends within record 6 of 7"):
        open_source(f"tfds:{tfrecord}/train")
    path.unlink()
    with pytest.raises(InputError, match="00001-of-00002 cannot be read"):
        open_source(f"tfds:{tfrecord}/train")


def test_parquet_is_read_whole_and_slices_of_it_are_refused(prepared, tmp_path):
    records = records_of(prepared)
    (path,) = as_format(prepared, tmp_path / "set", "parquet", [records])
    pq.write_table(pa.table({"data": records}), path)
    source = open_source(f"tfds:{tmp_path}/set/train")
    assert_same(source, open_source(f"tfds:{prepared}/train"))
    with pytest.raises(InputError, match=r"parquet format, .* whole splits"):
        open_source(f"tfds:{tmp_path}/set/train[:3]")


def test_a_damaged_record_is_an_input_error_that_names_it(tfrecord):
    path = sorted(tfrecord.glob("*tfrecord-*"))[0]
    contents = bytearray(path.read_bytes())
    contents[20:2000] = bytes(1980)
    path.write_bytes(contents)
    with pytest.raises(InputError, match="tfrecord/train record 0"):
        open_source(f"tfds:{tfrecord}/train").read(0)


# The command


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_command_leaves_bad_files_out_and_says_so(tmp_path, capsys):
    for number in range(3):
        save(tmp_path / "My Photos" / f"{number}.png", number)
    (tmp_path / "My Photos" / "1.png").write_bytes(b"no picture")
    output = tmp_path / "new" / "set"
    code = main(["prepare", str(tmp_path / "My Photos"), "--output", str(output)])
    told = capsys.readouterr()
    assert code == 3
    assert "1.png is not a picture" in told.err
    assert "1 of 3 pictures were left out" in told.err
    assert f"wrote 2 pictures to {output} (2 in train)" in told.out
    assert len(open_source(f"tfds:{output}/train")) == 2
    assert leftovers(tmp_path / "new") == ["set"]
    assert all("my_photos-train" in n for n in leftovers(output) if ".json" not in n)


def test_command_scales_large_pictures(tmp_path):
    save(tmp_path / "in" / "a.jpg", 0, (300, 200))
    save(tmp_path / "in" / "b.png", 1, (40, 20))
    output = str(tmp_path / "set")
    arguments = ["prepare", str(tmp_path / "in"), "--output", output]
    assert main([*arguments, "--max-side", "100"]) == 0
    source = open_source(f"tfds:{output}/train")
    assert source.read(0).shape == (100, 67, 3)
    assert source.read(1).shape == (40, 20, 3)


def test_a_set_is_replaced_only_when_asked_and_other_folders_never(tmp_path, capsys):
    save(tmp_path / "in" / "a.png", 0)
    output = tmp_path / "set"
    arguments = ["prepare", str(tmp_path / "in"), "--output", str(output)]
    assert main(arguments) == 0
    save(tmp_path / "in" / "b.png", 1)
    assert main(arguments) == 2
    assert "use --overwrite" in capsys.readouterr().err
    assert len(open_source(f"tfds:{output}/train")) == 1
    assert main([*arguments, "--overwrite"]) == 0
    assert len(open_source(f"tfds:{output}/train")) == 2
    arguments[-1] = str(tmp_path / "in")
    assert main([*arguments, "--overwrite"]) == 2
    assert "is no prepared set" in capsys.readouterr().err
    assert leftovers(tmp_path) == ["in", "set"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, capsys, monkeypatch):
    def fail(shards):
        raise OSError(errno.ENOSPC, "No space left on device")

    save(tmp_path / "in" / "a.png", 0)
    output = tmp_path / "set"
    arguments = ["prepare", str(tmp_path / "in"), "--output", str(output)]
    assert main(arguments) == 0
    monkeypatch.setattr(preparation._Shards, "_finish", fail)
    assert main([*arguments, "--overwrite"]) == 2
    assert "set cannot be written: No space left" in capsys.readouterr().err
    assert leftovers(tmp_path) == ["in", "set"]
    monkeypatch.undo()
    assert len(open_source(f"tfds:{output}/train")) == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (["--name", "My"], "--name is 'My'; want lower-case"),
        (["--max-side", "-1"], "--max-side is -1"),
        (["--max-sid", "1"], "did you mean '--max-side'"),
    ],
)
def test_arguments_that_cannot_be_followed(change, what, tmp_path, capsys):
    save(tmp_path / "in" / "a.png", 0)
    arguments = ["prepare", str(tmp_path / "in"), "--output", str(tmp_path / "set")]
    assert main([*arguments, *change]) == 2
    assert what in capsys.readouterr().err
    assert leftovers(tmp_path) == ["in"]


def test_pictures_beside_the_folders_of_splits_are_refused(tmp_path, capsys):
    save(tmp_path / "in" / "train" / "a.png", 0)
    save(tmp_path / "in" / "b.png", 0)
    assert main(["prepare", str(tmp_path / "in"), "--output", str(tmp_path / "o")]) == 2
    assert "pictures beside them (b.png, 1 in all)" in capsys.readouterr().err


def test_a_split_without_any_readable_picture_is_refused(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    assert main(["prepare", str(tmp_path / "in"), "--output", str(tmp_path / "o")]) == 2
    assert "none of the 1 pictures of 'train'" in capsys.readouterr().err
    assert leftovers(tmp_path) == ["in"]
