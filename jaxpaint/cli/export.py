"""Write the weights of a training run as one file for `sample --checkpoint`.

The file, of the safetensors format, also tells the method, its options, the step and
the configuration of the run.
"""

import argparse
import sys
from pathlib import Path

from jaxpaint.convert.coverage import leaves
from jaxpaint.errors import InputError
from jaxpaint.weights import Weights, halved, of_run, write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `jaxpaint export`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--step",
        type=_step,
        metavar="N|best|latest",
        help="which checkpoint (default: the best if one was evaluated, else the "
        "latest)",
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `jaxpaint export`; returns the exit code."""
    check_output(args.output, args.overwrite)
    store(of_run(args.run, args.step), args.output, args.half)
    return 0


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a command that writes weights."""
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE.safetensors",
        help="where to write the weights",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that exists"
    )
    parser.add_argument(
        "--half", action="store_true", help="float16: half the size, 3 digits"
    )


def check_output(path: Path, overwrite: bool) -> None:
    """Raises InputError if weights cannot go to `path`; makes its folder otherwise."""
    if path.suffix != ".safetensors":
        raise InputError(f"--output is {path}; want a name that ends in .safetensors")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; use --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be made ({error.strerror})") from None


def store(weights: Weights, path: Path, half: bool) -> None:
    """Writes weights, with `half` as float16, and tells what they are."""
    weights = halved(weights) if half else weights
    write(path, weights)
    arrays = [array for _, array in leaves(weights.params)]
    count, size = sum(a.size for a in arrays), sum(a.nbytes for a in arrays)
    step = f", step {weights.about['step']}" if "step" in weights.about else ""
    what = f"method {weights.method}{step}, {count:,} values, {size / 1e6:.1f} MB"
    print(what, file=sys.stderr)
    print(path)


def _step(text: str) -> int | str:
    if text in ("best", "latest"):
        return text
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"got '{text}'; want a number, best or latest")
