"""Building a tensorflow-datasets set out of a folder of pictures, without TensorFlow.

The records are written here and described through `tfds.folder_dataset`; the builders
of tensorflow-datasets need TensorFlow, or packages that they do not declare.
"""

import io
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxpaint.data.cores import default_threads
from jaxpaint.data.folder import find_pictures
from jaxpaint.errors import InputError
from jaxpaint.files import FORMATS, read_rgb

SPLITS = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "val": "validation",
}
"""The split that a folder of this name becomes."""

SHARD_BYTES = 2**28
"""A file of records is closed once it is larger than this."""


class Prepared(NamedTuple):
    """What came of a folder."""

    counts: dict[str, int]
    """Pictures of each split."""

    bad: list[str]
    """One line about each picture that could not be read."""


def find_splits(folder: Path) -> dict[str, list[str]]:
    """Returns the pictures below a folder, as relative paths, by split.

    Folders right in it that are named after a split become that split; without one,
    all pictures are `train`.

    Raises:
      InputError: no pictures, or some lie beside the folders of the splits.
    """
    paths = find_pictures(folder)
    splits: dict[str, list[str]] = {}
    beside = []
    for path in paths:
        top, slash, _ = path.partition("/")
        split = SPLITS.get(top.lower()) if slash else None
        (splits.setdefault(split, []) if split else beside).append(path)
    if splits and beside:
        raise InputError(
            f"{folder} has folders of splits ({', '.join(splits)}) and pictures beside "
            f"them ({beside[0]}, {len(beside)} in all); move or remove these"
        )
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    return ordered or {"train": beside}


def prepare(
    folder: Path,
    output: Path,
    name: str,
    max_side: int = 0,
    overwrite: bool = False,
    tell: Callable[[int, str], None] = lambda done, path: None,
) -> Prepared:
    """Writes the pictures below `folder` as a set in array_record format.

    JPEG and PNG files go in byte for byte. What is scaled, or of another format, is
    encoded anew: JPEG as JPEG of quality 95, all else as PNG. Pictures that cannot be
    read are left out. `output` appears when all is written, or not at all.

    Args:
      folder: pictures, and perhaps folders of splits; see `find_splits`.
      output: the folder of the set; `tfds:OUTPUT/SPLIT` reads it.
      name: of the set: lower-case letters, digits, underscores.
      max_side: pictures with a longer side are scaled down to it; 0: none.
      overwrite: whether a set, and nothing else, may be replaced.
      tell: called with the number of pictures done and the last one.

    Raises:
      InputError: something is in the way, nothing can be read, or the disk is full.
    """
    _check_output(output, overwrite)
    splits = find_splits(folder)
    part = output.with_name(f".{output.name}-{secrets.token_hex(4)}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        prepared = _write(folder, part, name, splits, max_side, tell)
        if output.exists():
            old = part.with_suffix(".old")
            output.rename(old)
            part.rename(output)
            shutil.rmtree(old, ignore_errors=True)
        else:
            part.rename(output)
    except OSError as error:
        raise InputError(
            f"{output} cannot be written: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return prepared


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output.is_dir() and (output / "dataset_info.json").is_file()):
        raise InputError(
            f"{output} exists and is no prepared set; name another --output"
        )
    if not overwrite:
        raise InputError(f"{output} exists; use --overwrite or another --output")


def _write(
    folder: Path,
    part: Path,
    name: str,
    splits: dict[str, list[str]],
    max_side: int,
    tell: Callable[[int, str], None],
) -> Prepared:
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "file_name": tfds.features.Text(),
        }
    )
    counts: dict[str, int] = {}
    bad: list[str] = []
    infos = []
    done = 0
    for split, paths in splits.items():
        shards = _Shards(part, f"{name}-{split}.array_record")
        try:
            for path, result in zip(
                paths, _contents(folder, paths, max_side), strict=True
            ):
                if isinstance(result, InputError):
                    bad.append(str(result))
                else:
                    example = {"image": result, "file_name": path}
                    shards.write(features.serialize_example(example))
                done += 1
                tell(done, path)
        finally:
            shards.close()
        if not shards.lengths:
            raise InputError(
                f"none of the {len(paths)} pictures of '{split}' can be read; {bad[-1]}"
            )
        counts[split] = sum(shards.lengths)
        template = tfds.core.ShardedFileTemplate(
            data_dir=tfds.core.Path(part),
            dataset_name=name,
            split=split,
            filetype_suffix="array_record",
        )
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=shards.lengths,
                num_bytes=shards.bytes,
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=part,
        features=features,
        split_infos=infos,
        description="A folder of pictures, prepared by jaxpaint.",
        check_data=False,  # needs TensorFlow
    )
    return Prepared(counts, bad)


class _Shards:
    """Files of records of one split, a new one whenever one is large enough."""

    def __init__(self, folder: Path, stem: str):
        self.lengths: list[int] = []
        self.bytes = 0
        self._folder = folder
        self._stem = stem
        self._writer = None
        self._size = 0

    def write(self, record: bytes) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter

        if self._writer is None:
            path = self._folder / f"{len(self.lengths):05}"
            # Groups of one: records are read one by one, in any order.
            self._writer = ArrayRecordWriter(str(path), "group_size:1")
            self.lengths.append(0)
            self._size = 0
        self._writer.write(record)
        self.lengths[-1] += 1
        self._size += len(record)
        self.bytes += len(record)
        if self._size > SHARD_BYTES:
            self._finish()

    def close(self) -> None:
        """Completes the last file and gives all their names, which tell how many."""
        self._finish()
        count = len(self.lengths)
        for number in range(count):
            path = self._folder / f"{number:05}"
            path.rename(self._folder / f"{self._stem}-{number:05}-of-{count:05}")

    def _finish(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except RuntimeError as error:  # such as a full disk, which `write` conceals
            raise OSError(str(error).partition(";")[0]) from error


def _contents(
    folder: Path, paths: Iterable[str], max_side: int
) -> Iterator[bytes | InputError]:
    """Returns what to store of each picture, or why it cannot be read, in order."""
    workers = default_threads()
    waiting = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for path in paths:
            waiting.append(pool.submit(_content, folder / path, max_side))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _content(path: Path, max_side: int) -> bytes | InputError:
    try:
        pixels = read_rgb(path)
        contents = path.read_bytes()
    except InputError as error:
        return error
    except OSError as error:
        return InputError(f"{path} cannot be read: {error.strerror}")
    small = not max_side or max(pixels.shape) <= max_side
    kind = FORMATS[path.suffix.lower()]
    if small and contents.startswith((b"\xff\xd8\xff", b"\x89PNG")):
        return contents
    return _encoded(pixels, kind == "JPEG", 0 if small else max_side)


def _encoded(pixels: np.ndarray, lossy: bool, max_side: int) -> bytes:
    image = Image.fromarray(pixels)
    if max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, 2.0)
    file = io.BytesIO()
    if lossy:
        image.save(file, "JPEG", quality=95, subsampling=0)
    else:
        image.save(file, "PNG", compress_level=3)
    return file.getvalue()
