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

import numpy as np

from jaxpaint.cli import catalogue
from jaxpaint.cli.compiled import keep_compiled
from jaxpaint.cli.progress import Progress
from jaxpaint.cli.sample import bundled
from jaxpaint.errors import InputError, unknown_name
from jaxpaint.evaluation.titles import TITLES
from jaxpaint.files import Picture, replacing, write_picture

if TYPE_CHECKING:
    from jaxpaint.evaluation.filling import Contestant
    from jaxpaint.evaluation.results import Evaluation
    from jaxpaint.evaluation.scores import Figure, Row

MASKS = "wide,narrow,sr2x,alternating,half,expand"
"""Those of the survey and of RePaint."""

METRICS = ("hole_l1", "psnr", "hole_ssim", "kd_lite0")
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
        help="EfficientNet-Lite0 (.npz), for the distances kd_lite0 and fd_lite0",
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
    if args.pairs and len(pair) != 2:
        raise InputError(f"--pairs is '{args.pairs}'; want two rows, A,B")
    if args.features and not Path(args.features).is_file():
        raise InputError(f"--features {args.features} is no file")
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
    if args.dry_run:
        count = len(rows) * len(kinds) * len(squares.names) * args.num_samples
        print(
            f"{len(squares.names)} pictures of {args.size}x{args.size}, "
            f"{len(squares.left_out)} left out; masks: {', '.join(kinds)}; rows: "
            f"{', '.join([*rows, *predictions])}; {count} results"
        )
        return 0
    keep_compiled()

    from jaxpaint.evaluation import results

    evaluation = results.begin(
        args.output, squares, kinds, args.seed, contestants, predictions
    )
    with Progress(
        _count_results(args, contestants, evaluation), args.quiet
    ) as progress:
        for problem in squares.left_out:
            progress.note(f"left out: {problem}")
        _fill(args, evaluation, contestants, progress)
        progress.note("scoring...")
        start = time.perf_counter()
        found, figures, problems = _score(args, evaluation, progress)
        progress.note(f"scored in {time.perf_counter() - start:.1f} s")
    _write(evaluation, found, figures, chosen)
    if pair:
        _study(evaluation, pair, args.seed)
    problems = [*squares.left_out, *problems]
    if problems:
        print(
            f"error: {len(problems)} pictures or results are missing:", file=sys.stderr
        )
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
        return 3
    return 0


def _count_results(
    args: argparse.Namespace,
    contestants: Sequence["Contestant"],
    evaluation: "Evaluation",
) -> int:
    pictures = len(evaluation.squares.names)
    return len(contestants) * len(evaluation.holes) * pictures * args.num_samples


def _fill(
    args: argparse.Namespace,
    evaluation: "Evaluation",
    contestants: Sequence["Contestant"],
    progress: Progress,
) -> None:
    """Writes the results that are not there yet."""
    import jax

    from jaxpaint.evaluation import filling, results

    squares = evaluation.squares
    progress.note(
        f"{len(squares.names)} pictures of {args.size}x{args.size}, "
        f"{len(evaluation.holes)} kinds of masks, on {jax.device_count()} x "
        f"{jax.devices()[0].device_kind}"
    )
    done = 0
    for contestant in contestants:
        label = contestant.label
        filler = filling.Filler(contestant, args.batch_size)
        for kind, holes in evaluation.holes.items():
            for sample in range(args.num_samples):

                def tell(count: int, what: str = f"{label}, {kind}") -> None:
                    nonlocal done
                    done += count
                    progress.show(done, what)

                spent = filling.fill(
                    filler,
                    squares.names,
                    squares.pixels,
                    holes,
                    evaluation.results_of(label, kind, sample),
                    jax.random.fold_in(jax.random.key(args.seed), sample),
                    tell,
                )
                results.add_seconds(args.output / "seconds.json", {label: spent})


def _score(
    args: argparse.Namespace, evaluation: "Evaluation", progress: Progress
) -> tuple[list["Row"], list["Figure"], list[str]]:
    """Returns the scores of all results, their figures, and what is missing."""
    import jax
    import jax.numpy as jnp

    from jaxpaint import metrics
    from jaxpaint.evaluation import scores

    describe = _describer(args, progress)
    truth = evaluation.squares.pixels
    of_truth = None if describe is None else scores.features(describe, truth)
    rows, distances, problems = [], [], []
    for label in evaluation.labels():
        for kind, holes in evaluation.holes.items():
            folder = evaluation.results_of(label, kind)
            if not folder.is_dir() and label in evaluation.rows:
                continue  # a row that was not asked for when these masks joined
            where, pixels, wrong = evaluation.read_results(folder)
            problems += wrong
            if not where:
                continue
            found = list(scores.score(pixels, truth[where], holes[where]))
            more = range(1, args.num_samples)
            folders = [evaluation.results_of(label, kind, n) for n in more]
            samples = [pixels, *(evaluation.read_results(f)[1] for f in folders)]
            # Rows of before may have one sample only.
            if len(samples) > 1 and len({len(s) for s in samples}) == 1:
                spread = metrics.diversity(
                    jnp.asarray(np.stack(samples) / np.float32(127.5)),
                    jnp.asarray(holes[where][..., None], jnp.float32),
                )
                for score, value in zip(found, jax.device_get(spread), strict=True):
                    score["diversity"] = float(f"{value:.6g}")
            rows += [
                scores.Row(label, kind, evaluation.squares.names[index], score)
                for index, score in zip(where, found, strict=True)
            ]
            if describe is not None and of_truth is not None and len(where) > 1:
                of_results = scores.features(describe, pixels)
                distances += scores.set_distances(
                    label, kind, of_results, of_truth[where], "lite0"
                )
    return rows, [*scores.means(rows), *distances], problems


def _describer(args: argparse.Namespace, progress: Progress) -> Any:
    """Returns the jitted network of feature distances, or None without a file."""
    import functools

    import jax

    from jaxpaint.features import efficientnet_lite0

    if not args.features:
        progress.note("no --features: kd_lite0 and fd_lite0 are left out")
        return None
    params = efficientnet_lite0.read_classifier(args.features)
    return functools.partial(jax.jit(efficientnet_lite0.describe), params)


def _write(
    evaluation: "Evaluation",
    rows: list["Row"],
    figures: list["Figure"],
    metrics: Sequence[str],
) -> None:
    """Writes rows, tables and the grid, and prints the tables."""
    from jaxpaint.evaluation import results, tables

    known = {figure.metric for figure in figures}
    chosen = [metric for metric in metrics if metric in known]
    texts = {
        "table.md": tables.markdown(figures, chosen),
        "table.tex": tables.latex(figures, chosen),
        "table.csv": tables.comma_separated(figures),
    }
    results.write_rows(evaluation.folder / "rows.jsonl", rows)
    for name, text in texts.items():
        with replacing(evaluation.folder / name) as file:
            file.write(text.encode())
    write_picture(evaluation.folder / "grid.png", Picture(results.grid(evaluation, 3)))
    print(texts["table.md"])
    print(
        f"{evaluation.folder}: {', '.join(texts)}, rows.jsonl, seconds.json, grid.png"
    )


def _study(evaluation: "Evaluation", labels: list[str], seed: int) -> int:
    """Writes the user study of two rows; returns the exit code."""
    from jaxpaint.contact_sheet import marked
    from jaxpaint.evaluation import pairs

    for label in labels:
        if label not in evaluation.labels():
            raise unknown_name("row in --pairs", label, evaluation.labels())
    first, second = labels
    found = []
    for kind, holes in evaluation.holes.items():
        sides = []
        for label in labels:
            where, pixels, _ = evaluation.read_results(
                evaluation.results_of(label, kind)
            )
            sides.append(dict(zip(where, pixels, strict=True)))
        for index in sorted(sides[0].keys() & sides[1].keys()):
            masked = marked(evaluation.squares.pixels[index], holes[index])
            name = evaluation.squares.names[index]
            shown = (side[index] for side in sides)
            found.append(pairs.Pair(kind, name, masked, *shown))
    if not found:
        raise InputError(
            f"{evaluation.folder} has no results of both {first}, {second}"
        )
    page = pairs.write(evaluation.folder / "study", (first, second), found, seed)
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
    for text in args.checkpoint:
        label, path = _pair("--checkpoint", text)
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
    found = dict(_pair("--predictions", text) for text in args.predictions)
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


def _contestant(label: str, row: dict[str, Any]) -> "Contestant":
    """Returns what fills holes for a row; reads its weights.

    Raises:
      InputError: no weights, or of another method, or an option that does not fit.
    """
    from jaxpaint import methods, weights
    from jaxpaint.evaluation.filling import Contestant

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


def _pair(flag: str, text: str) -> tuple[str, str]:
    label, equals, value = text.partition("=")
    if not equals or not value:
        raise InputError(f"{flag} is '{text}'; want LABEL=PATH")
    return label, value
