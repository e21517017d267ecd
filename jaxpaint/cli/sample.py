"""Inpaint pictures: a file or a folder, with a mask each or one mask for all.

White mask pixels are the hole. Without any flag the photo that is shipped with the
project is inpainted into the folder 'output'.
"""

import argparse
import json
import math
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import jaxpaint
from jaxpaint import files
from jaxpaint.cli import catalogue, filling, outputs, pairing
from jaxpaint.cli.compiled import keep_compiled
from jaxpaint.cli.max_side import fill_within
from jaxpaint.cli.outputs import Job
from jaxpaint.cli.progress import Progress
from jaxpaint.contact_sheet import contact_sheet, marked
from jaxpaint.errors import InputError, unknown_name
from jaxpaint.files import Picture

if TYPE_CHECKING:
    from jaxpaint.types import Params

ASSETS = Path(jaxpaint.__path__[0]) / "assets"
"""Holds the photo and the mask of the demonstration."""

WEIGHTS = ASSETS / "weights"
"""Small weights of some methods, `<method>.safetensors`, or with lines
`<method>_guided.safetensors`."""

LED = "deepfill_v2"
"""The method for a sketch, where none is named."""

UNLEARNED = ("harmonic", "patchmatch")
"""Methods that the demonstration sets beside the networks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `jaxpaint sample`."""
    add = parser.add_argument
    add("--image", metavar="PATH", help="a picture, or a folder of pictures")
    add(
        "--mask",
        metavar="PATH",
        help="a mask (for all pictures), a folder of masks (of the same stem, or "
        "<stem>_mask*), or 'alpha': transparent pixels are the hole",
    )
    add(
        "--sketch",
        metavar="PATH",
        help="white lines on black that lead a guided method inside the hole, of the "
        "picture's size (for all pictures), or a folder of them (of the same stem); "
        f"without --method, {LED} with weights of its own",
    )
    add("--output", metavar="PATH", help="a picture or a folder (default: output)")
    add(
        "--method",
        metavar="NAME",
        help="default: that of --checkpoint, or auto, which chooses by hole",
    )
    add(
        "--checkpoint",
        metavar="PATH",
        help="weights of a learned method: a .safetensors file of export or convert, "
        "the folder of a training run, or published ones (a .pt or .pth file, a folder "
        "of diffusers); default: small ones that come with some methods",
    )
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the method; may be repeated",
    )
    add("--list-methods", action="store_true", help="list methods and their options")
    add("--seed", type=_whole(0, 2**32 - 1), default=0, metavar="N", help="default: 0")
    add(
        "--num-samples",
        type=_whole(1, 1000),
        default=1,
        metavar="N",
        help="results for each picture, numbered from _00, and a picture of where they "
        "differ (default: 1)",
    )
    add("--invert-mask", action="store_true", help="black is the hole, white is kept")
    add("--resize-mask", action="store_true", help="fit masks of another size")
    add(
        "--max-side",
        type=_whole(16, 2**31),
        metavar="N",
        help="fill holes that are larger, with their surroundings, than N pixels at a "
        "lower resolution (default: twice the side of the pictures that a network was "
        "trained on, where it does not scale them itself)",
    )
    add(
        "--format",
        choices=("same", "png", "jpg", "webp"),
        help="of the results; default: by --output, else png",
    )
    add(
        "--quality",
        type=_whole(1, 100),
        default=95,
        metavar="N",
        help="of jpg and webp, 1 to 100 (default: 95)",
    )
    add(
        "--save",
        type=_figures,
        default=[],
        metavar="masked,compare",
        help="also write the picture with its hole marked, or that beside the result",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results")
    existing.add_argument("--skip-existing", action="store_true", help="keep results")
    add("--dry-run", action="store_true", help="print image, mask, output and stop")
    add("--print-config", action="store_true", help="print all settings as JSON")
    add("--quiet", action="store_true", help="no progress and notes on stderr")


def run(args: argparse.Namespace) -> int:
    """Runs `jaxpaint sample`; returns the exit code."""
    if args.list_methods:
        for name in catalogue.names():
            print(f"{name:20}{catalogue.summary(name)}")
            if settings := catalogue.describe_options(name):
                print(f"{'':20}{settings}")
        return 0
    is_demo = not (args.image or args.mask or args.output)
    compares = is_demo and not (args.method or args.checkpoint or args.option)
    if is_demo:
        args.image, args.mask = str(ASSETS / "demo.jpg"), str(ASSETS / "demo_mask.png")
        args.save, args.overwrite = list(outputs.FIGURES), not args.skip_existing
    args.output = args.output or "output"
    for flag, value, want in (
        ("--image", args.image, "a picture or a folder of pictures"),
        ("--mask", args.mask, "a mask, a folder of masks, or 'alpha'"),
    ):
        if not value:
            raise InputError(f"{flag} is missing; want {want}")
    if args.method:
        catalogue.check_method(args.method)
    params, options = None, {}
    if args.sketch and not (args.method or args.checkpoint):
        args.method = LED
    if args.method and not args.checkpoint:
        args.checkpoint = bundled(args.method, with_sketch=bool(args.sketch))
    if args.checkpoint:
        params, options = _load(args)
    else:
        args.method = args.method or "auto"
        options = catalogue.parse_options(args.method, args.option)
    if args.print_config:
        print(json.dumps(_config(args, options), indent=2))
        return 0
    jobs, about, total, problems = _plan(args)
    if args.dry_run:
        for job in jobs:
            for result in job.results:
                print(job.pair.image, job.pair.mask or pairing.ALPHA, result, sep="\t")
    elif jobs:
        problems += _work(jobs, about, args, options, params, alone=total == 1)
    elif not args.quiet:
        print("nothing to do: all results exist", file=sys.stderr)
    if problems:
        print(f"error: {len(problems)} of {total} were not done:", file=sys.stderr)
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
        return 3
    if is_demo and jobs and not args.dry_run:
        _describe_demo(jobs[0], args.method)
        if compares:
            compare_networks(args)
    return 0


def compare_networks(args: argparse.Namespace) -> None:
    """Fills a second shipped photo with every network that comes with jaxpaint.

    The results lie in the folder `networks` of the output, beside those of some
    methods that learned nothing; one picture shows them all.
    """
    names = (*UNLEARNED, *(name for name in catalogue.names() if bundled(name)))
    image, mask = ASSETS / "comparison.png", ASSETS / "comparison_mask.png"
    folder = Path(args.output) / "networks"
    shown = {}
    for name in names:
        flags = vars(args) | {
            "image": str(image),
            "mask": str(mask),
            "output": str(folder / f"{name}.png"),
            "method": name,
            "checkpoint": bundled(name),
            "max_side": None,
            "save": [],
        }
        one = argparse.Namespace(**flags)
        params, options = _load(one) if one.checkpoint else (None, {})
        jobs, about, _, _ = _plan(one)
        _work(jobs, about, one, options, params, alone=True)
        shown[name] = files.read_picture(folder / f"{name}.png").pixels
    picture, hole = files.read_picture(image), files.read_mask(mask)
    first = {"photo": picture.pixels, "hole": marked(picture.pixels, hole)}
    sheet = folder.parent / "networks.png"
    pictures = contact_sheet([*(first | shown).items()], columns=4)
    files.write_picture(sheet, Picture(pictures))
    print(f"The networks that come with jaxpaint, on another photo:\n  {sheet}")


def bundled(method: str, *, with_sketch: bool = False) -> Path | None:
    """Returns the small weights of a method that come with the package.

    With a sketch those that were trained with lines, where there are such.
    """
    led = [f"{method}_guided"] if with_sketch else []
    paths = [WEIGHTS / f"{name}.safetensors" for name in (*led, method)]
    return next((path for path in paths if path.is_file()), None)


def _load(args: argparse.Namespace) -> tuple["Params", dict[str, object]]:
    """Returns parameters and options out of --checkpoint; sets the method to its own,
    and the largest side where none is given.

    Raises:
      InputError: weights that cannot be read or are of another method, or an option
        that does not fit them.
    """
    from jaxpaint import methods, weights

    keep_compiled()
    loaded = weights.load(args.checkpoint)
    if args.method not in (None, loaded.method):
        raise InputError(
            f"--method is '{args.method}' but {args.checkpoint} holds weights of "
            f"'{loaded.method}'; drop --method"
        )
    args.method = loaded.method
    changes = catalogue.parse_options(args.method, args.option)
    options = loaded.options | changes
    if changes:
        try:
            weights.fitting(loaded._replace(options=options))
        except InputError as error:
            raise InputError(
                f"--option {', '.join(changes)} does not fit {args.checkpoint}: {error}"
            ) from None
    scales = methods.make(args.method, **options).window.size > 0
    # Lines are drawn for the picture as it is.
    if args.max_side is None and not scales and not args.sketch:
        args.max_side = 2 * loaded.image_size
    return loaded.params, options


def _plan(args: argparse.Namespace) -> tuple[list[Job], str, int, list[str]]:
    """Returns the jobs to do, a word on their size, their number, and what is amiss.

    Raises:
      InputError: nothing can be done, or the outputs are in the way of something.
    """
    image = Path(args.image)
    found = pairing.find_pairs(image, args.mask)
    if args.sketch:
        if args.max_side:
            raise InputError(
                "--sketch and --max-side exclude each other; shrink picture, mask and "
                "sketch instead"
            )
        found = pairing.with_sketches(found, Path(args.sketch))
    problems = [f"{path} has no mask in {args.mask}" for path in found.lone_images]
    if not found.pairs:
        raise InputError(
            f"{problems[0]}; want <stem>.png or <stem>_mask*.png for {image}"
        )
    if found.lone_masks and image.is_dir():
        first, number = found.lone_masks[0], len(found.lone_masks)
        warnings.warn(f"{number} masks belong to no picture: {first} ...", stacklevel=2)
    jobs = outputs.plan_jobs(
        found.pairs,
        args.output,
        image.is_dir(),
        args.format,
        args.num_samples,
        args.save,
    )
    outputs.check_existing(jobs, args.overwrite, args.skip_existing)
    total = len(jobs) + len(problems)
    if args.skip_existing:
        jobs = [job for job in jobs if not all(p.exists() for p in job.outputs())]
    good, about = [], ""
    for job in jobs:
        try:
            header = filling.check(job, args.resize_mask)
        except InputError as error:
            problems.append(str(error))
        else:
            good.append(job)
            about = f"{header.width}x{header.height}"
    if jobs and not good:
        rest = f" (and so on: none of {len(jobs)} can be done)" if total > 1 else ""
        raise InputError(f"{problems[-len(jobs)]}{rest}")
    return good, about if len(good) == 1 else f"{len(good)} pictures", total, problems


def _work(
    jobs: list[Job],
    about: str,
    args: argparse.Namespace,
    options: dict[str, object],
    params: "Params",
    alone: bool,
) -> list[str]:
    """Does the jobs; returns what went wrong, or raises it where one is `alone`."""
    import jax

    from jaxpaint import methods

    keep_compiled()
    method = methods.make(args.method, **options)  # refuses bad values before any work
    if method.train_step is not None and params is None:
        raise InputError(
            f"method '{args.method}' is learned and has no weights; give --checkpoint "
            "FILE, of `jaxpaint export` or `jaxpaint convert`, or the folder of a run"
        )
    if args.sketch and method.guided is None:
        raise InputError(
            f"method '{args.method}' takes no sketch here; drop --sketch, or give "
            "--checkpoint weights that were trained with lines (deepfill_v2, guided)"
        )
    outputs.make_folders(jobs)
    problems = []
    start = time.monotonic()
    with (
        Progress(len(jobs) * args.num_samples, args.quiet) as progress,
        filling.compile_seconds() as compiling,
    ):
        warnings.showwarning = lambda message, *context: progress.say(
            f"warning: {message}", sys.stderr
        )
        device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        samples = f", {args.num_samples} samples each" * (args.num_samples > 1)
        progress.note(f"{about}{samples}, method {args.method}, on {device}")
        if any(files.is_lossy(path) for job in jobs for path in job.results):
            progress.note(
                "note: jpg and webp change known pixels slightly; png does not"
            )
        progress.note("compiling...")
        for number, job in enumerate(jobs):
            step = number * args.num_samples
            name = job.pair.image.name
            try:
                sketch = filling.load_sketch(job.pair)
                fill = _filler(args, options, params, progress, step, name, sketch)
                loaded = filling.load(job.pair, args.resize_mask, args.invert_mask)
                for path in filling.fill_and_write(
                    job, *loaded, fill, args.quality, args.skip_existing
                ):
                    progress.say(path, sys.stdout)
            except Exception as error:
                if alone:
                    raise
                if args.debug:
                    traceback.print_exc()
                what = f"{job.pair.image}: {type(error).__name__}: {error}"
                problems.append(str(error) if isinstance(error, InputError) else what)
            if number == 0:
                progress.note(f"compiled in {sum(compiling):.1f} s")
        seconds = time.monotonic() - start
        done = len(jobs) - len(problems)
        progress.note(f"{done} of {len(jobs)} in {seconds:.1f} s")
    return problems


def _filler(
    args: argparse.Namespace,
    options: dict[str, object],
    params: "Params",
    progress: Progress,
    step: int,
    name: str,
    sketch: np.ndarray | None,
) -> filling.Fill:
    """Returns the function that fills one sample of one picture and shows progress."""
    import jax

    from jaxpaint.inpainting import inpaint

    def fill(pixels: np.ndarray, hole: np.ndarray, sample: int) -> np.ndarray:
        # By the sample alone: results do not depend on what else is in a folder.
        key = jax.random.fold_in(jax.random.key(args.seed), sample)

        def show(done: float, total: int) -> None:
            what = f"{name}, part {math.ceil(done)} of {total}"
            progress.show(step + sample + done / max(total, 1), what)

        def fill_part(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
            with warnings.catch_warnings():
                # Said before, with the name of the file.
                warnings.filterwarnings("ignore", "the hole .*inverted")
                try:
                    return inpaint(
                        pixels,
                        hole,
                        args.method,
                        key,
                        options=options,
                        params=params,
                        sketch=sketch,
                        progress=show,
                    )
                except InputError as error:
                    raise InputError(f"{name}: {error}") from None

        progress.show(step + sample, name)
        if args.max_side:
            return filling.interruptible(
                lambda: fill_within(pixels, hole, args.max_side, fill_part)
            )
        return filling.interruptible(lambda: fill_part(pixels, hole))

    return fill


def _config(
    args: argparse.Namespace, options: dict[str, object]
) -> Mapping[str, object]:
    """Returns all settings of a run, resolved, as what JSON can hold."""
    settings = {
        name: value
        for name, value in vars(args).items()
        if name not in ("option", "print_config", "list_methods")
    }
    return settings | {"options": catalogue.defaults(args.method) | options}


def _describe_demo(job: Job, method: str) -> None:
    print(f"Removed what the mask marks from the shipped photo (method {method}):")
    for what, path in (
        ("photo", job.pair.image),
        ("photo with its hole marked", job.figures["masked"]),
        ("result", job.results[0]),
        ("both side by side", job.figures["compare"]),
    ):
        print(f"  {what:30}{path}")
    print(
        "Your own: python sample.py --image photo.jpg --mask mask.png --output out.png"
    )


def _whole(least: int, most: int) -> Callable[[str], int]:
    """Returns the parser of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"got '{text}'; want a whole number from {least} to {most}"
            )
        return int(text)

    return parse


def _figures(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in outputs.FIGURES:
            error = unknown_name("picture to save", name, outputs.FIGURES)
            raise argparse.ArgumentTypeError(str(error))
    return names
