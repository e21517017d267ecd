"""Turn the published weights of another project into a file for `sample --checkpoint`.

Reading needs neither PyTorch nor TensorFlow, and runs nothing of a file. Every array
of the file must have a place and every parameter must be filled.
"""

import argparse
from pathlib import Path

from jaxpaint import convert
from jaxpaint.cli import catalogue
from jaxpaint.cli.export import add_output, check_output, store
from jaxpaint.weights import Weights, fitting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `jaxpaint convert`."""
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="a .pt, .pth, .ckpt or .safetensors file, the .index file of a TensorFlow "
        "checkpoint, or a folder of diffusers",
    )
    parser.add_argument(
        "--method",
        metavar="NAME",
        help=f"whose weights they are: {', '.join(convert.names())} (default: told by "
        "the names of the arrays)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the method that the arrays do not tell, in the place of the "
        "usual value; may be repeated",
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `jaxpaint convert`; returns the exit code."""
    check_output(args.output, args.overwrite)
    converted = convert.convert(args.file, args.method)
    weights = Weights(*converted, about={"source": args.file.name})
    if args.option:
        changes = catalogue.parse_options(weights.method, args.option)
        weights = weights._replace(
            options=weights.options | changes,
            image_size=changes.get("image_size", weights.image_size),
        )
        weights = fitting(weights)
    store(weights, args.output, args.half)
    return 0
