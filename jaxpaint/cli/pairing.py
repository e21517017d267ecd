"""Which mask belongs to which picture: the rules for files and folders."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxpaint.errors import InputError
from jaxpaint.files import FORMATS

ALPHA = "alpha"
"""Given as the mask: the transparent pixels of each picture are its hole."""


class Pair(NamedTuple):
    """A picture, its mask and the stem that its results are named by."""

    image: Path
    mask: Path | None
    """None: the transparent pixels of `image`."""

    stem: str

    sketch: Path | None = None
    """Lines that lead the method."""


class Pairing(NamedTuple):
    """The pairs in the order of their names, and the files that found no partner."""

    pairs: list[Pair]
    lone_images: Sequence[Path] = ()
    lone_masks: Sequence[Path] = ()


def pictures_in(folder: Path) -> list[Path]:
    """Returns the picture files right in `folder`, sorted by name; hidden ones not.

    Raises:
      InputError: there are none.
    """
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in FORMATS and path.name[0] != "." and path.is_file()
    ]
    if not found:
        raise InputError(f"{folder} holds no picture; want {' '.join(FORMATS)} files")
    return found


def find_pairs(image: Path, mask: str) -> Pairing:
    """Pairs a picture, or a folder of them, with what `--mask` names.

    Args:
      image: a file or a folder.
      mask: "alpha", a file (for all pictures) or a folder (paired by name).

    Raises:
      InputError: something does not exist, or the names are ambiguous.
    """
    for path in [image] + [Path(mask)] * (mask != ALPHA):
        if not path.exists():
            raise InputError(f"{path} does not exist")
    images = pictures_in(image) if image.is_dir() else [image]
    if mask != ALPHA and Path(mask).is_dir():
        return pair_by_name(images, pictures_in(Path(mask)))
    one = None if mask == ALPHA else Path(mask)
    if one and image.is_dir():
        images = [path for path in images if path.resolve() != one.resolve()]
    _refuse_twins(images)
    return Pairing([Pair(path, one, path.stem) for path in images])


def pair_by_name(images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    """Pairs masks with the pictures that they are named after.

    The mask of `a.jpg` has the same stem (`a.png`), or continues it with `_mask`
    (`a_mask.png`, `a_mask001.png`). With one mask the results are named after the
    picture, with several after each mask. Pictures and masks may share a folder, if
    the masks are named `_mask`.

    Raises:
      InputError: two pictures, or two masks, of one stem.
    """
    stems = {path.stem for path in images}
    if {path.resolve() for path in images} & {path.resolve() for path in masks}:
        masks = [path for path in masks if _prefix(path.stem, stems)]
        images = [path for path in images if not _prefix(path.stem, stems)]
        stems = {path.stem for path in images}
    _refuse_twins(images)
    _refuse_twins(masks)
    found = defaultdict(list)
    for path in masks:
        found[path.stem if path.stem in stems else _prefix(path.stem, stems)] += [path]
    lone_masks = found.pop(None, [])
    pairs = [
        Pair(path, mask, path.stem if len(found[path.stem]) == 1 else mask.stem)
        for path in images
        for mask in found[path.stem]
    ]
    lone_images = [path for path in images if not found[path.stem]]
    return Pairing(pairs, lone_images, lone_masks)


def with_sketches(pairing: Pairing, sketch: Path) -> Pairing:
    """Returns the pairs with what `--sketch` names.

    Args:
      pairing: pictures with their masks.
      sketch: a file, for all pictures, or a folder with one of each picture's stem.

    Raises:
      InputError: it does not exist, or a picture has none.
    """
    if not sketch.exists():
        raise InputError(f"{sketch} does not exist")
    if not sketch.is_dir():
        pairs = [pair._replace(sketch=sketch) for pair in pairing.pairs]
        return pairing._replace(pairs=pairs)
    found = pictures_in(sketch)
    _refuse_twins(found)
    by_stem = {path.stem: path for path in found}
    for image in [pair.image for pair in pairing.pairs]:
        if image.stem not in by_stem:
            raise InputError(
                f"{image} has no sketch in {sketch}; want {image.stem}.png, black if "
                "no lines shall lead"
            )
    pairs = [pair._replace(sketch=by_stem[pair.image.stem]) for pair in pairing.pairs]
    return pairing._replace(pairs=pairs)


def _prefix(stem: str, stems: set[str]) -> str | None:
    """Returns the longest of `stems` that `stem` continues with `_mask`."""
    fitting = (known for known in stems if stem.startswith(f"{known}_mask"))
    return max(fitting, key=len, default=None)


def _refuse_twins(paths: Sequence[Path]) -> None:
    seen = {}
    for path in paths:
        if path.stem in seen:
            raise InputError(
                f"{seen[path.stem]} and {path} have the same stem, so it is ambiguous "
                "which is meant; rename or move one"
            )
        seen[path.stem] = path
