"""What a picture source is, and the one that a configuration names."""

from typing import Protocol

import numpy as np

from jaxpaint.errors import InputError


class Source(Protocol):
    """A sequence of pictures; may be read from many threads at once."""

    def __len__(self) -> int:
        """Returns the number of pictures, at least 1."""
        ...

    def read(self, index: int, short_side: int = 0) -> np.ndarray:
        """Returns a picture as uint8 `[H, W, 3]`, the same at each call.

        Args:
          index: 0 to the length of the source, excluded.
          short_side: what the picture is going to be scaled to; a source may return
            a smaller one that serves this well. 0: the picture as it is.

        Raises:
          InputError: it cannot be read; the message names it.
        """
        ...

    def name(self, index: int) -> str:
        """Returns what a person finds the picture by."""
        ...


def open_source(spec: str, tfds_dir: str = "") -> Source:
    """Returns the source that `data.train` or `data.validation` names.

    Args:
      spec: a folder, `tfds:NAME/SPLIT`, `tfds:FOLDER/SPLIT` or `synthetic:COUNT`.
      tfds_dir: where sets named by NAME lie; empty: where tensorflow-datasets looks.

    Raises:
      InputError: there is no such source, or it has no pictures.
    """
    kind, colon, rest = spec.partition(":")
    if not spec:
        raise InputError("no pictures to read; set data.train=FOLDER")
    if colon and kind == "synthetic":
        from jaxpaint.data.synthetic import SyntheticSource, parse_count

        return SyntheticSource(parse_count(rest))
    if colon and kind == "tfds":
        from jaxpaint.data.tfds import open_tfds

        return open_tfds(rest, tfds_dir)
    from jaxpaint.data.folder import FolderSource

    return FolderSource(spec)
