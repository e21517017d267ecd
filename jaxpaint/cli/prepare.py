"""Builds a tensorflow-datasets set (array_record) out of a folder of pictures.

Folders right in it that are named train, test, validation or val become splits; without
them all pictures are the split `train`. TensorFlow is not needed. The set is read as
`tfds:DIR/train`.
"""

import argparse
import re
import sys
from pathlib import Path

from jaxpaint.cli.progress import Progress
from jaxpaint.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command to its parser."""
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="pictures, in folders of any depth"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of the set; appears when all is written",
    )
    parser.add_argument(
        "--name", help="name of the set (default: that of FOLDER, in lower case)"
    )
    parser.add_argument(
        "--max-side",
        type=int,
        default=0,
        metavar="N",
        help="scale larger pictures down to this many pixels (default: never)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a set that exists"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Writes the set; returns the exit code: 3 if pictures were left out, else 0.

    Raises:
      InputError: an argument that cannot be followed, or a full disk; nothing has
        been written then.
    """
    from jaxpaint.data.preparation import find_splits, prepare

    if args.max_side < 0:
        raise InputError(f"--max-side is {args.max_side}; want at least 1")
    name = args.name or _name_of(args.folder)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(
            f"--name is '{name}'; want lower-case letters, digits and underscores, a "
            "letter first"
        )
    total = sum(len(paths) for paths in find_splits(args.folder).values())
    with Progress(total, args.quiet) as progress:
        counts, bad = prepare(
            args.folder,
            args.output,
            name,
            args.max_side,
            args.overwrite,
            progress.show,
        )
    for line in bad:
        print(f"left out: {line}", file=sys.stderr)
    pictures = ", ".join(f"{count} in {split}" for split, count in counts.items())
    print(
        f"wrote {sum(counts.values())} pictures to {args.output} ({pictures}); "
        f"read them as tfds:{args.output}/{next(iter(counts))}"
    )
    if bad:
        print(f"{len(bad)} of {total} pictures were left out", file=sys.stderr)
    return 3 if bad else 0


def _name_of(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    return name if name[:1].isalpha() else f"pictures_{name}".strip("_")
