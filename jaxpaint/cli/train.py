"""Train a method on a folder of pictures or a prepared data set.

  jaxpaint train configs/partial_conv_photos64.py --workdir runs/a \\
    data.train=photos/train data.validation=photos/test optim.lr=1e-3

Run the same command again to go on after an interruption.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from jaxpaint import config as configs
from jaxpaint.cli import catalogue
from jaxpaint.config import Config
from jaxpaint.errors import InputError, unknown_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    parser.add_argument("config", type=Path, help="configuration file")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="changes of the configuration, such as optim.lr=1e-4",
    )
    parser.add_argument(
        "--workdir", type=Path, metavar="DIR", help="folder of the run; made if missing"
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the whole configuration as JSON and end",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print shapes, parameters, FLOPs, memory and shardings and end",
    )
    parser.add_argument(
        "--allow-config-change",
        action="store_true",
        help="go on although the configuration is not that of the run",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    hosts = parser.add_argument_group(
        "several processes", "found in the environment on TPU pods, Slurm and Open MPI"
    )
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    hosts.add_argument("--num-processes", type=int, metavar="N")
    hosts.add_argument("--process-id", type=int, metavar="I")


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    config = configs.override(configs.load(args.config), args.settings)
    config = dataclasses.replace(config, options=_all_options(config))
    configs.check(config)
    if args.print_config:
        print(configs.to_json(config), end="")
        return 0
    workdir: Path = Path() if args.workdir is None else args.workdir
    if args.workdir is None and not args.dry_run:
        raise InputError("no --workdir; want the folder of the run")

    from jaxpaint.training import hosts

    hosts.connect(args.coordinator, args.num_processes, args.process_id)

    from jaxpaint.cli.compiled import keep_compiled

    keep_compiled()
    if args.dry_run:
        from jaxpaint.training import dry_run

        for line in dry_run.describe(config):
            print(line)
        return 0

    import jax

    from jaxpaint.cli.progress import Progress
    from jaxpaint.training import checkpoints, loop, reports

    if not args.debug:
        checkpoints.ignore_late_callbacks()
    quiet = args.quiet or jax.process_index() > 0
    with Progress(config.steps, quiet) as progress:
        try:
            code = loop.run(
                config,
                workdir,
                progress,
                allow_config_change=args.allow_config_change,
            )
        except reports.Diverged as error:
            progress.say(f"error: {error}", sys.stderr)
            return 1
    return code


def _all_options(config: Config) -> dict[str, object]:
    """Returns the options of the method with the defaults of those not given.

    What a run is made of is then written down whole, and stays what it was when a
    default changes.
    """
    catalogue.check_method(config.method)
    known = catalogue.defaults(config.method)
    for name in config.options:
        if name not in catalogue.options(config.method):
            raise unknown_name(f"option of method '{config.method}'", name, known)
    return {**known, **config.options}
