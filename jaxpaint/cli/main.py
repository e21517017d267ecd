"""The `jaxpaint` command: finds the subcommand, and turns errors into exit codes.

Exit codes: 0 all done; 1 unexpected; 2 usage, or bad input found before work; 3 done
with some items failed; 130 interrupted. Nothing here imports jax.
"""

import argparse
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

from jaxpaint.errors import InputError, unknown_name
from jaxpaint.version import __version__

COMMANDS = {
    "sample": "inpaint a picture or a folder of pictures",
    "export": "write the weights of a training run as one file",
    "convert": "turn published weights of another project into such a file",
    "train": "train a method; runs can be interrupted and go on",
    "evaluate": "measure methods on the same pictures and masks",
    "masks": "write random masks of the literature as pictures",
    "prepare": "build a tensorflow-datasets set from a folder of pictures",
    "info": "list methods, package versions, licences and devices",
}
"""The subcommands: `jaxpaint/cli/<name>.py` with `add_arguments(parser)` and
`run(args) -> exit code`."""

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest name for unknown flags."""

    def error(self, message: str) -> NoReturn:
        """Raises the usage error as an `InputError`."""
        raise InputError(message)

    def check_flags(self, argv: Sequence[str]) -> None:
        """Raises InputError for the first flag of `argv` that is not known."""
        known = {name for action in self._actions for name in action.option_strings}
        for word in argv:
            flag = word.partition("=")[0]
            if flag.startswith("--") and flag not in known:
                raise unknown_name("flag", flag, known)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line, by default that of the process; returns its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _print_warning
        code = _run_safely(list(sys.argv[1:] if argv is None else argv))
    if code == INTERRUPTED and argv is None:
        # Taking the interpreter down would wait for, or crash on, what jax computes.
        sys.stdout.flush()
        os._exit(code)
    return code


def _run_safely(argv: list[str]) -> int:
    try:
        return _run(argv)
    except SystemExit as exit_:  # argparse, after --help
        return int(exit_.code or 0)
    except BrokenPipeError:  # the reader of our output, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED
    except InputError as error:
        return _fail(argv, str(error), 2)
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        hint = "unexpected; --debug shows where"
        return _fail(argv, f"{type(error).__name__}: {lines[0]} ({hint})", 1)


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        print(f"jaxpaint {__version__}")
        return 0
    name = argv[0]
    if name not in COMMANDS:
        what = "flag" if name.startswith("-") else "command"
        raise unknown_name(what, name, [*COMMANDS, "--help", "--version"])
    command = importlib.import_module(f"jaxpaint.cli.{name}")
    parser = Parser(
        prog=f"jaxpaint {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )
    parser.check_flags(argv[1:])
    return command.run(parser.parse_intermixed_args(argv[1:]))


def _help() -> str:
    commands = "\n".join(f"  {name:10}{about}" for name, about in COMMANDS.items())
    return (
        "usage: jaxpaint COMMAND [--flag ...]\n\n"
        f"Image inpainting in JAX.\n\ncommands:\n{commands}\n\n"
        "`jaxpaint COMMAND --help` lists the flags of a command; `jaxpaint sample`\n"
        "without any flag inpaints the photo that is shipped with the project."
    )


def _fail(argv: list[str], message: str, code: int) -> int:
    if "--debug" in argv:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return code


def _print_warning(message: Warning | str, *context: object) -> None:
    del context  # file and line are of no use to someone at a shell
    print(f"warning: {message}", file=sys.stderr)
