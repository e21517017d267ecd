"""Measure methods on the same pictures and masks, and make a table of it.

  jaxpaint evaluate --methods harmonic,patchmatch,repaint --data photos/ --output eval/

An evaluation that was interrupted goes on with the same command; further methods and
masks join it in the same folder.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxpaint.cli import catalogue
from jaxpaint.cli.compiled import keep_compiled
from jaxpaint.cli.progress import Progress
from jaxpaint.cli.sample import bundled
from jaxpaint.errors import InputError, unknown_name
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
    rows = _rows(args)
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
    predictions = dict(_pair("--predictions", text) for text in args.predictions)
    for label, folder in predictions.items():
        if not Path(folder).is_dir():
            raise InputError(f"--predictions {label}: {folder} is no folder")
        if label in rows:
            raise InputError(f"'{label}' names a method and predictions; rename one")
    if args.dry_run:
        count = len(rows) * len(kinds) * len(squares.names) * args.num_samples
        print(
            f"{len(squares.names)} pictures of {args.size}x{args.size}, "
            f"{len(squares.left_out)} left out; masks: {', '.join(kinds)}; rows: "
            f"{', '.join([*rows, *predictions])}; {count} results"
        )
        return 0
    return _evaluate(args, rows, predictions, kinds, squares)


def _evaluate(
    args: argparse.Namespace,
    rows: dict[str, dict[str, Any]],
    predictions: dict[str, str],
    kinds: list[str],
    squares: Any,
) -> int:
    import jax

    from jaxpaint.evaluation import filling, pairs, results
    from jaxpaint.evaluation import squares as pictures

    keep_compiled()
    contestants = [_contestant(label, row) for label, row in rows.items()]
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        results.agree(
            args.output,
            {
                "size": args.size,
                "seed": args.seed,
                "pictures": dict(
                    zip(squares.names, _sums(squares.pixels), strict=True)
                ),
                "rows": {c.label: results.describe(c) for c in contestants},
            },
        )
    except OSError as error:
        raise InputError(f"cannot write to {args.output}: {error.strerror}") from None
    holes = {kind: pictures.holes(squares, kind, args.seed) for kind in kinds}
    evaluation = results.Evaluation(args.output, squares, holes)
    evaluation.write_inputs()
    problems = list(squares.left_out)
    seconds: dict[str, tuple[float, int]] = {}
    total = len(contestants) * len(kinds) * len(squares.names) * args.num_samples
    with Progress(total, args.quiet) as progress:
        progress.note(
            f"{len(squares.names)} pictures of {args.size}x{args.size}, "
            f"{len(kinds)} kinds of masks, on {jax.device_count()} x "
            f"{jax.devices()[0].device_kind}"
        )
        for problem in problems:
            progress.note(f"left out: {problem}")
        done = 0
        for contestant in contestants:
            progress.note(f"{contestant.label}: compiling...")
            filler = filling.Filler(contestant, args.batch_size, args.size)
            for kind in kinds:
                for sample in range(args.num_samples):
                    key = jax.random.fold_in(jax.random.key(args.seed), sample)

                    def tell(count: int, label=contestant.label, kind=kind) -> None:
                        nonlocal done
                        done += count
                        progress.show(done, f"{label}, {kind}")

                    spent, count = filling.fill(
                        filler,
                        squares.names,
                        squares.pixels,
                        holes[kind],
                        evaluation.result_folder(contestant.label, kind, sample),
                        key,
                        tell,
                    )
                    before = seconds.get(contestant.label, (0.0, 0))
                    seconds[contestant.label] = before[0] + spent, before[1] + count
        progress.note("scoring...")
        start = time.perf_counter()
        found, figures, more = _score(
            args, evaluation, list(rows), predictions, progress
        )
        progress.note(f"scored in {time.perf_counter() - start:.1f} s")
        problems += more
    _write(args, evaluation, found, figures, [*rows, *predictions])
    for label, (spent, count) in seconds.items():
        if count:
            print(f"{label}: {1000 * spent / count:.1f} ms a picture", file=sys.stderr)
    if args.pairs:
        _study(args, evaluation, kinds, pairs)
    if problems:
        print(
            f"error: {len(problems)} pictures or results are missing:", file=sys.stderr
        )
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
        return 3
    return 0


def _score(
    args: argparse.Namespace,
    evaluation: "Evaluation",
    labels: Sequence[str],
    predictions: dict[str, str],
    progress: Progress,
) -> tuple[list["Row"], list["Figure"], list[str]]:
    """Returns the scores of all results, their figures, and what is missing."""
    import jax
    import jax.numpy as jnp

    from jaxpaint import metrics
    from jaxpaint.evaluation import scores
    from jaxpaint.evaluation.squares import folder_of

    describe = _describer(args, progress)
    truth = evaluation.squares.pixels
    of_truth = None if describe is None else scores.features(describe, truth)
    rows, distances, problems = [], [], []
    for label in [*labels, *predictions]:
        for kind, holes in evaluation.holes.items():
            folder = evaluation.result_folder(label, kind)
            if label in predictions:
                folder = Path(predictions[label]) / folder_of(kind)
            where, pixels, wrong = evaluation.results(folder)
            problems += wrong
            if not where:
                continue
            found = list(scores.score(pixels, truth[where], holes[where]))
            if args.num_samples > 1 and label not in predictions:
                samples = [pixels] + [
                    evaluation.results(evaluation.result_folder(label, kind, n))[1]
                    for n in range(1, args.num_samples)
                ]
                spread = metrics.diversity(
                    jnp.asarray(np.stack(samples) / np.float32(127.5)),
                    jnp.asarray(holes[where][..., None], jnp.float32),
                )
                for score, value in zip(found, jax.device_get(spread), strict=True):
                    score["diversity"] = float(f"{value:.6g}")
            names = [evaluation.squares.names[index] for index in where]
            rows += [
                scores.Row(label, kind, name, score)
                for name, score in zip(names, found, strict=True)
            ]
            if describe is not None and of_truth is not None and len(where) > 1:
                distances += scores.set_distances(
                    label,
                    kind,
                    scores.features(describe, pixels),
                    of_truth[where],
                    "lite0",
                )
    return rows, [*scores.means(rows), *distances], problems


def _describer(args: argparse.Namespace, progress: Progress) -> Any:
    """Returns the jitted network of feature distances, or None without a file."""
    import functools

    import jax

    from jaxpaint.features import efficientnet_lite0

    if not args.features:
        progress.note("no --features: the distances kd_lite0 and fd_lite0 are left out")
        return None
    params = efficientnet_lite0.read_classifier(args.features)
    return functools.partial(jax.jit(efficientnet_lite0.describe), params)


def _write(
    args: argparse.Namespace,
    evaluation: "Evaluation",
    rows: list["Row"],
    figures: list["Figure"],
    labels: Sequence[str],
) -> None:
    """Writes rows, tables and the grid, and prints the tables."""
    from jaxpaint.evaluation import results, tables

    known = dict.fromkeys(figure.metric for figure in figures)
    for metric in _split(args.metrics):
        if metric not in tables.TITLES:
            raise unknown_name("metric", metric, tables.TITLES)
    chosen = [metric for metric in _split(args.metrics) if metric in known]
    results.write_rows(args.output / "rows.jsonl", rows)
    texts = {
        "table.md": tables.markdown(figures, chosen),
        "table.tex": tables.latex(figures, chosen),
        "table.csv": tables.comma_separated(figures),
    }
    for name, text in texts.items():
        with replacing(args.output / name) as file:
            file.write(text.encode())
    sheet = results.grid(evaluation, labels, 3)
    write_picture(args.output / "grid.png", Picture(sheet))
    print(texts["table.md"])
    print(f"{args.output}: table.md, table.csv, table.tex, rows.jsonl, grid.png")


def _study(
    args: argparse.Namespace, evaluation: "Evaluation", kinds: list[str], pairs: Any
) -> None:
    """Writes the user study of two rows."""
    from jaxpaint.contact_sheet import marked

    labels = _split(args.pairs)
    if len(labels) != 2:
        raise InputError(f"--pairs is '{args.pairs}'; want two rows, A,B")
    found = []
    for kind in kinds:
        sides = [evaluation.results(evaluation.result_folder(x, kind)) for x in labels]
        first, second = ({i: p for i, p in zip(s[0], s[1], strict=True)} for s in sides)
        for index in sorted(first.keys() & second.keys()):
            truth = evaluation.squares.pixels[index]
            masked = marked(truth, evaluation.holes[kind][index])
            name = evaluation.squares.names[index]
            found.append(pairs.Pair(kind, name, masked, first[index], second[index]))
    if not found:
        raise InputError(f"{args.output} has no results of both {' and '.join(labels)}")
    page = pairs.write(args.output / "study", (labels[0], labels[1]), found, args.seed)
    print(f"{len(found)} pairs: {page} (keep study/key.json from those who vote)")


def _count(args: argparse.Namespace) -> int:
    """Prints how votes fell."""
    from jaxpaint.evaluation import pairs

    (first, second), shares = pairs.count(args.output / "study", args.votes)
    print(f"| masks | votes | {first} rather than {second} | 95 % interval |")
    print("| --- | --- | --- | --- |")
    for share in shares:
        low, high = (f"{100 * x:.1f} %" for x in share.interval)
        ratio = f"{100 * share.first / share.votes:.1f} %"
        print(f"| {share.mask} | {share.votes} | {ratio} | {low} to {high} |")
    print(f"\n{len(args.votes)} voters")
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
    if not rows and not args.predictions:
        raise InputError(
            "nothing to measure; want --methods, --checkpoint or --predictions"
        )
    for label in rows:
        if not label or not all(c.isalnum() or c in "_-+." for c in label):
            raise InputError(f"'{label}' is no label; want letters, digits, _ - + .")
    return rows


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


def _sums(pixels: np.ndarray) -> Iterator[int]:
    import zlib

    return (zlib.crc32(np.ascontiguousarray(x).tobytes()) for x in pixels)
