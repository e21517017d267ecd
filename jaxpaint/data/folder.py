"""A nested folder of picture files as a source."""

import os
from pathlib import Path

import numpy as np

from jaxpaint.errors import InputError
from jaxpaint.files import FORMATS, read_rgb


class FolderSource:
    """The pictures below a folder, sorted by relative path, listed once."""

    def __init__(self, folder: str | Path):
        self._folder = Path(folder).expanduser()
        self._paths = find_pictures(self._folder)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int, short_side: int = 0) -> np.ndarray:
        """Returns a picture as uint8 `[H, W, 3]`."""
        return read_rgb(self._folder / self._paths[index], short_side)

    def name(self, index: int) -> str:
        """Returns the path of a picture."""
        return str(self._folder / self._paths[index])


def find_pictures(folder: Path) -> list[str]:
    """Returns the pictures below `folder` as relative paths with slashes, sorted.

    Links to folders are followed; names that begin with a dot are left out.

    Raises:
      InputError: no such folder, or no picture in it.
    """
    if not folder.exists():
        raise InputError(f"{folder} does not exist; want a folder of pictures")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; want a folder of pictures")
    found = []
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(parent)
        place = (status.st_dev, status.st_ino)
        if place in seen:  # a link that leads back up, or to what was listed already
            folders.clear()
            continue
        seen.add(place)
        # Sorted, so that of two links to one folder the same is taken everywhere.
        folders[:] = sorted(name for name in folders if name[0] != ".")
        prefix = Path(parent).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        found += [
            prefix + name
            for name in files
            if name[0] != "." and os.path.splitext(name)[1].lower() in FORMATS
        ]
    if not found:
        raise InputError(
            f"{folder} holds no picture, nor do folders in it; "
            f"want {' '.join(FORMATS)} files"
        )
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be listed: {error.strerror}")
