"""A prepared set of tensorflow-datasets as a source; TensorFlow is not needed.

Only the bytes of a picture are taken out of a record, so that it is decoded by the same
code as a file, and nothing else of the record is.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxpaint.data.tfrecord import Part, TFRecords
from jaxpaint.errors import InputError, unknown_name
from jaxpaint.files import read_rgb


class Records(Protocol):
    """Serialized `tf.train.Example`s; may be read from many threads at once."""

    def __len__(self) -> int:
        """Returns the number of records."""
        ...

    def __getitem__(self, index: int, /) -> bytes:
        """Returns one record."""
        ...


class TfdsSource:
    """The pictures of one split of a prepared set."""

    def __init__(self, label: str, records: Records, feature: str):
        """Takes records, which have been opened already.

        Args:
          label: what the split is called in messages.
          records: the records.
          feature: the name of the picture in a record.
        """
        from tensorflow_datasets.proto import tf_example_pb2

        # The class is made at import, where no type checker sees it.
        self._parse = getattr(tf_example_pb2, "Example").FromString  # noqa: B009
        self._label = label
        self._records = records
        self._feature = feature

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int, short_side: int = 0) -> np.ndarray:
        """Returns a picture as uint8 `[H, W, 3]`."""
        name = self.name(index)
        try:
            example = self._parse(self._records[index])
            contents = example.features.feature[self._feature].bytes_list.value[0]
        except Exception as error:  # readers and protocol buffers have their own
            raise InputError(f"{name} cannot be read ({error})") from error
        return read_rgb(Path(name), short_side, contents)

    def name(self, index: int) -> str:
        """Returns the split and the number of a picture."""
        return f"{self._label} record {index}"


def open_tfds(text: str, tfds_dir: str = "") -> TfdsSource:
    """Returns the source of `NAME/SPLIT` or `FOLDER/SPLIT`.

    NAME may have a configuration and a version (`celeb_a_hq/256:2.0.0`), SPLIT may be
    a slice (`train[:90%]`), but not of a set in parquet format.

    Raises:
      InputError: there is no such set or split, or it holds no pictures.
    """
    name, slash, split = text.rpartition("/")
    if not (slash and name and split):
        raise InputError(
            f"'tfds:{text}': want tfds:NAME/SPLIT or tfds:FOLDER/SPLIT, such as "
            "tfds:celeb_a_hq/256/train"
        )
    builder = _builder(name, tfds_dir)
    splits = builder.info.splits
    base = split.partition("[")[0]
    if base != "all" and "+" not in split and base not in splits:
        raise unknown_name(f"split of tfds:{name}", base, splits)
    try:
        count, parts = splits[split].num_examples, splits[split].file_instructions
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"'tfds:{text}': bad split '{split}' ({reason})") from None
    if not count:
        raise InputError(f"tfds:{text} holds no records")
    feature = _picture_feature(builder.info.features, name)
    return TfdsSource(f"tfds:{text}", _records(builder, name, split, parts), feature)


def _builder(name: str, tfds_dir: str) -> Any:
    """Returns what describes a prepared set, by its folder or by its name."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import constants, read_only_builder

    folder = Path(name).expanduser()
    described = "://" in name or (folder / "features.json").is_file()
    if described or name[0] in "/.~" or folder.is_dir():
        if not described:
            raise _no_set(folder)
        where = name if "://" in name else folder
        try:
            return tfds.builder_from_directory(where)
        except Exception as error:
            raise InputError(f"{where} is no prepared set ({_first(error)})") from error
    place = tfds.core.Path(tfds_dir or constants.DATA_DIR).expanduser()
    try:
        # Not `tfds.builder`: that asks a server about sets that are not there.
        return read_only_builder.builder_from_files(name, data_dir=str(place))
    except Exception as error:
        there = sorted(
            str(path.parent.relative_to(place))
            for path in Path(place).glob("**/features.json")
        )
        raise InputError(
            f"tfds:{name} is not prepared in {place} (there: "
            f"{', '.join(there[:8]) or 'none'}); prepare it with `tfds build` and "
            "--file_format=array_record, or set data.tfds_dir"
        ) from error


def _no_set(folder: Path) -> InputError:
    if not folder.is_dir():
        return InputError(f"tfds:{folder} does not exist; want a prepared set")
    versions = sorted(path.parent for path in folder.glob("**/features.json"))
    if versions:
        return InputError(
            f"{folder} has no features.json, but {versions[-1]} has; name that folder"
        )
    return InputError(
        f"{folder} has no features.json: it is no prepared set; for a folder of "
        "pictures drop 'tfds:', or use `jaxpaint prepare`"
    )


def _picture_feature(features: Any, name: str) -> str:
    """Returns the name of the feature that holds the picture."""
    import tensorflow_datasets as tfds

    found = {
        key: feature
        for key, feature in features.items()
        if type(feature) is tfds.features.Image
    }
    chosen = "image" if "image" in found else next(iter(found), "")
    if not found or (len(found) > 1 and chosen != "image"):
        raise InputError(
            f"tfds:{name} has {len(found)} pictures in a record ({', '.join(found)}) "
            "and none is named 'image'; want one"
        )
    if found[chosen].np_dtype == np.float32:
        raise InputError(f"tfds:{name} has pictures of floating point; want uint8")
    return chosen


def _records(builder: Any, name: str, split: str, parts: Any) -> Records:
    kind = builder.info.file_format.value
    if kind == "tfrecord":
        return TFRecords(Part(str(p.filename), p.skip, p.take) for p in parts)
    if kind not in ("array_record", "parquet"):
        raise InputError(
            f"tfds:{name} is in {kind} format; prepare it anew with "
            "--file_format=array_record"
        )
    if kind == "parquet" and "[" in split:
        raise InputError(
            f"tfds:{name} is in parquet format, of which tensorflow-datasets reads "
            f"whole splits whatever '{split}' says; prepare it anew with "
            "--file_format=array_record, or name a whole split"
        )
    from tensorflow_datasets.core.decode import DeserializeMethod

    try:
        return builder.as_data_source(
            split, deserialize_method=DeserializeMethod.RAW_BYTES
        )
    except Exception as error:
        raise InputError(f"tfds:{name}/{split}: {_first(error)}") from error


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
