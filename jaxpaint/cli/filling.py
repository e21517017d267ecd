"""What is done with one picture: check, load, fill, write."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxpaint import files
from jaxpaint.cli import figures
from jaxpaint.cli.outputs import DEVIATION, Job
from jaxpaint.cli.pairing import Pair
from jaxpaint.errors import InputError
from jaxpaint.files import Header, Picture

Fill = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""`(pixels, hole, number of the sample) -> pixels` with the hole filled."""

MOSTLY = 0.75
"""The share of hole from which on a mask is suspected to be inverted."""


def check(job: Job, resize_mask: bool) -> Header:
    """Returns the header of the picture, if what headers tell allows the job.

    Raises:
      InputError: a file is missing or no picture, the mask has another size, or the
        output format cannot hold the result.
    """
    image, mask = job.pair.image, job.pair.mask
    header = files.read_header(image)
    if mask is None:
        if not header.alpha:
            raise InputError(f"{image} has no transparency; give a mask picture")
    elif not resize_mask:
        found = files.read_header(mask)
        _check_size(job.pair, header[:2], found[:2])
    if job.pair.sketch:
        _check_sketch(job.pair, header[:2], files.read_header(job.pair.sketch)[:2])
    # What was transparent is filled and opaque where alpha is the mask.
    keeps_alpha = header.alpha and mask is not None
    for path in job.results:
        files.check_can_hold(path, header.width, header.height, keeps_alpha)
    return header


def load(
    pair: Pair, resize_mask: bool, invert_mask: bool
) -> tuple[Picture, np.ndarray]:
    """Returns the picture and its hole, boolean `[H, W]`; warns of odd holes.

    Raises:
      InputError: a file is damaged, the sizes differ, or everything is hole.
    """
    picture = files.read_picture(pair.image)
    name = pair.mask or pair.image
    if pair.mask is None:
        if picture.alpha is None:
            raise InputError(f"{name} has no transparency; give a mask picture")
        hole = picture.alpha < 128
    else:
        hole = files.read_mask(pair.mask)
        height, width = picture.pixels.shape[:2]
        if resize_mask:
            hole = files.resize_mask(hole, height, width)
        _check_size(pair, (width, height), hole.shape[::-1])
    hole = ~hole if invert_mask else hole
    hint = "drop" if invert_mask else "try"
    if hole.all():
        raise InputError(
            f"{name} marks all of the picture as hole; white is hole, "
            f"{hint} --invert-mask if it means the opposite"
        )
    if not hole.any():
        warnings.warn(f"{name} marks no hole; the picture is copied", stacklevel=2)
    elif hole.mean() > MOSTLY:
        warnings.warn(
            f"{name} marks {hole.mean():.0%} of the picture as hole; is the mask "
            f"inverted? {hint} --invert-mask",
            stacklevel=2,
        )
    return picture, hole


def load_sketch(pair: Pair) -> np.ndarray | None:
    """Returns the lines that belong to a picture, boolean `[H, W]`; None: no sketch.

    Raises:
      InputError: the file is damaged.
    """
    return None if pair.sketch is None else files.read_mask(pair.sketch)


def fill_and_write(
    job: Job, picture: Picture, hole: np.ndarray, fill: Fill, quality: int, keep: bool
) -> Iterator[str]:
    """Fills the hole once for each sample and yields the paths as they are written.

    Args:
      job: the output files.
      picture: the input.
      hole: boolean `[H, W]`.
      fill: called for each sample, unless there is no hole.
      quality: 1 to 100, for JPEG and WebP.
      keep: whether outputs that exist are left alone.
    """
    alpha = picture.alpha
    if alpha is not None and job.pair.mask is None:
        alpha = np.where(hole, np.uint8(255), alpha)
    compared, sums = [], None
    for sample, path in enumerate(job.results):
        if keep and path.exists():
            result = files.read_picture(path) if job.figures else picture
        else:
            pixels = (
                fill(picture.pixels, hole, sample) if hole.any() else picture.pixels
            )
            result = picture._replace(pixels=pixels, alpha=alpha)
            files.write_picture(path, result, quality)
            yield str(path)
        if "compare" in job.figures:
            compared.append(result)
        if DEVIATION in job.figures:
            sums = figures.add(sums, result)
    for name, path in job.figures.items():
        if keep and path.exists():
            continue
        if name == "masked":
            figure = figures.masked(picture, hole)
        elif name == DEVIATION and sums is not None:
            figure = figures.deviation(sums)
        else:
            figure = figures.compare(picture, hole, compared)
        files.write_picture(path, Picture(figure, icc_profile=picture.icc_profile))
        yield str(path)


@contextlib.contextmanager
def compile_seconds() -> Iterator[list[float]]:
    """Yields a list of the seconds that jax spends on compiling in the block."""
    from jax import monitoring

    seconds = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.endswith(("backend_compile_duration", "to_mlir_module_duration")):
            seconds.append(duration_secs)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        monitoring.unregister_event_duration_listener(listen)


def interruptible(function: Callable[[], np.ndarray]) -> np.ndarray:
    """Returns what `function` returns; Ctrl-C is heard while jax computes in it.

    Python hears signals in its main thread and not inside of jax, so that thread waits.
    """
    executor = ThreadPoolExecutor(1)
    try:
        return executor.submit(function).result()
    finally:
        executor.shutdown(wait=False)


def _check_sketch(pair: Pair, image: tuple[int, ...], sketch: tuple[int, ...]) -> None:
    if image != sketch:
        got, want = (f"{width}x{height}" for width, height in (sketch, image))
        raise InputError(
            f"{pair.sketch} is {got} but {pair.image} is {want}; draw the sketch at "
            "the size of the picture"
        )


def _check_size(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    if image != mask:
        got, want = (f"{width}x{height}" for width, height in (mask, image))
        raise InputError(
            f"{pair.mask} is {got} but {pair.image} is {want}; use --resize-mask"
        )
