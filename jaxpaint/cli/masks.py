"""The command `jaxpaint masks`: draws masks and writes them as images."""

import argparse
import functools
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

from jaxpaint import masks
from jaxpaint.errors import InputError
from jaxpaint.files import replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command to its parser."""
    parser.add_argument(
        "--kind",
        required=True,
        metavar="KIND",
        help=f"kind of mask: {', '.join(masks.names())}",
    )
    parser.add_argument(
        "--size",
        default="256",
        metavar="SIDE|HxW",
        help="side of a square mask, or height x width, in pixels (default: 256)",
    )
    parser.add_argument(
        "--count", type=int, default=8, help="number of masks (default: 8)"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder to write to"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the same seed gives the same masks, however many (default: 0)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that exist"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the masks and a sheet of the first ones; returns the exit code, 0.

    Files are `<kind>_000.png` and on, one channel, 255 = hole, and `<kind>_sheet.png`.

    Raises:
      InputError: an argument that cannot be followed; no file has been written then.
    """
    size = parse_size(args.size)
    if args.count < 1:
        raise InputError(f"--count is {args.count}; want at least 1")
    if not 0 <= args.seed < 2**32:
        raise InputError(f"--seed is {args.seed}; want 0 to {2**32 - 1}")
    sampler = masks.make(args.kind)
    digits = max(3, len(str(args.count - 1)))
    paths = [args.output / f"{args.kind}_{i:0{digits}}.png" for i in range(args.count)]
    sheet_path = args.output / f"{args.kind}_sheet.png"
    _prepare(args.output, [*paths, sheet_path], args.overwrite)

    import jax
    import jax.numpy as jnp

    def draw(seed: jax.Array, number: jax.Array) -> jax.Array:
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))
        holes = jax.vmap(functools.partial(sampler, size))(keys(number))
        return (255 * holes[..., 0]).astype(jnp.uint8)

    draw = jax.jit(draw)
    at_once = min(args.count, 16)
    shown: list[np.ndarray] = []
    share = 0.0
    for first in range(0, args.count, at_once):
        drawn = np.asarray(draw(np.uint32(args.seed), first + np.arange(at_once)))
        for mask, path in zip(drawn, paths[first : first + at_once], strict=False):
            _write(mask, path)
            share += float(np.mean(mask == 255)) / args.count
            if len(shown) < 64:
                shown.append(mask)
    _write(_sheet(shown), sheet_path)
    print(
        f"wrote {args.count} masks of {size[0]}x{size[1]} pixels and {sheet_path.name} "
        f"to {args.output}, kind {args.kind}, mean hole share {share:.3f}"
    )
    return 0


def parse_size(text: str) -> tuple[int, int]:
    """Returns height and width of `256` or `256x384`.

    Raises:
      InputError: other text, or sides outside 8 to 8192 pixels.
    """
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower(), re.ASCII)
    if not match:
        raise InputError(
            f"--size is '{text}'; want a side like 256, or height x width like 256x384"
        )
    size = int(match[1]), int(match[2] or match[1])
    if not all(8 <= side <= 8192 for side in size):
        raise InputError(f"--size is '{text}'; want sides from 8 to 8192 pixels")
    return size


def _prepare(folder: Path, paths: list[Path], overwrite: bool) -> None:
    """Makes the folder, or says why the files cannot be written."""
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise InputError(
            f"{existing[0]} exists ({len(existing)} of {len(paths)} files do); "
            "use --overwrite or another --output"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output {folder} cannot be made: {error.strerror}; name another folder"
        ) from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"--output {folder} is not writable; name another folder")


def _write(image: np.ndarray, path: Path) -> None:
    with replacing(path) as file:
        Image.fromarray(image).save(file, format="png")


def _sheet(shown: list[np.ndarray]) -> np.ndarray:
    """Returns the masks side by side, with gray lines between them."""
    height, width = shown[0].shape
    columns = int(np.ceil(np.sqrt(len(shown) * height / width)))
    rows = -(-len(shown) // columns)
    gap = 4
    sheet = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap), 128, np.uint8
    )
    for number, mask in enumerate(shown):
        top = gap + number // columns * (height + gap)
        left = gap + number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = mask
    return sheet
