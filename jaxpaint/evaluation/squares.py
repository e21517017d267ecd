"""The pictures of an evaluation: squares of one size with a hole for each kind."""

import ast
import functools
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxpaint import files, masks
from jaxpaint.data.folder import FolderSource, find_pictures
from jaxpaint.data.pictures import scale
from jaxpaint.errors import InputError

ALIASES = {"sr2x": "super_resolve_2x", "alternating": "alternating_lines"}
"""The survey's shorter names of masks."""


_PART = 64
"""Masks that are drawn at once."""


class Squares(NamedTuple):
    """Pictures by name, in the order of the evaluation."""

    names: list[str]
    """What their files are called, without suffix."""
    pixels: np.ndarray
    """uint8 `[N, S, S, 3]`."""
    left_out: list[str]
    """What is wrong with the pictures that are not among them."""


def read(folder: Path, size: int, limit: int = 0) -> Squares:
    """Returns the middle squares of the pictures below a folder, scaled to `size`.

    Args:
      folder: searched at any depth; pictures come in the order of their paths.
      size: side of the squares. Pictures with a shorter side are left out.
      limit: at most so many pictures are taken; 0: all.

    Raises:
      InputError: no folder, or no picture that is large enough and can be read.
    """
    source, paths = FolderSource(folder), find_pictures(folder)
    names, found, left_out = _names(paths), {}, []
    for index, name in enumerate(names):
        if len(found) == (limit or len(names)):
            break
        try:
            header = files.read_header(Path(source.name(index)))
            if min(header.width, header.height) < size:
                raise InputError(
                    f"{source.name(index)} is {header.width}x{header.height}; want at "
                    f"least {size} pixels a side"
                )
            pixels = scale(source.read(index, size), size)
        except InputError as error:
            left_out.append(str(error))
            continue
        top, left = ((side - size) // 2 for side in pixels.shape[:2])
        found[name] = pixels[top : top + size, left : left + size]
    if not found:
        raise InputError(f"none of {len(paths)} pictures can be used: {left_out[0]}")
    return Squares(list(found), np.stack(list(found.values())), left_out)


def _names(paths: Sequence[str]) -> list[str]:
    """Returns one name for each path; a checksum tells apart what would be equal."""
    stems = [path.rpartition(".")[0].replace("/", "__") for path in paths]
    counts = Counter(stems)
    return [
        stem if counts[stem] == 1 else f"{stem}_{zlib.crc32(path.encode()):08x}"
        for stem, path in zip(stems, paths, strict=True)
    ]


def kind(text: str) -> str:
    """Returns the name of a kind of masks as `jaxpaint.masks` knows it, always spaced
    in the same way.

    Raises:
      InputError: no such kind, or options that do not fit.
    """
    name = ALIASES.get(text.strip(), text.strip())
    masks.parse(name)
    return ast.unparse(ast.parse(name, mode="eval"))


def folder_of(kind: str) -> str:
    """Returns the name of the folder of a kind of masks."""
    plain = re.sub(r"\W+", "_", kind).strip("_")
    return plain if plain == kind else f"{plain}_{zlib.crc32(kind.encode()):08x}"


def holes(squares: Squares, kind: str, seed: int) -> np.ndarray:
    """Returns the holes, boolean `[N, S, S]`.

    That of a picture depends on the seed, the kind, the size and its name, whatever
    other pictures there are.
    """
    import jax

    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(kind.encode()))
    sampler = functools.partial(masks.parse(kind), squares.pixels.shape[1:3])

    @jax.jit
    @jax.vmap
    def draw(number: jax.Array) -> jax.Array:
        return sampler(jax.random.fold_in(key, number))[..., 0] > 0

    numbers = np.array([zlib.crc32(name.encode()) for name in squares.names], np.uint32)
    # In parts of one size: all at once might not fit into memory.
    padded = np.pad(numbers, (0, -len(numbers) % _PART))
    parts = [np.asarray(draw(part)) for part in padded.reshape(-1, _PART)]
    return np.concatenate(parts)[: len(numbers)]
