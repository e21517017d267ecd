"""Which files a run writes, and whether it may: known before any work is done."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxpaint.cli.pairing import Pair
from jaxpaint.errors import InputError
from jaxpaint.files import FORMATS, replacing

FIGURES = ("masked", "compare")
"""What `--save` may name, written as PNG beside the result."""

DEVIATION = "deviation"
"""Where several results of a picture differ, written as PNG beside them."""


class Job(NamedTuple):
    """One picture with one mask, and the files that come of it."""

    pair: Pair
    results: list[Path]
    """One for each sample."""

    figures: dict[str, Path]

    def outputs(self) -> list[Path]:
        """Returns all files that the job writes."""
        return [*self.results, *self.figures.values()]


def plan_jobs(
    pairs: Sequence[Pair],
    output: str,
    is_folder: bool,
    kind: str | None,
    samples: int,
    save: Iterable[str],
) -> list[Job]:
    """Returns one job for each pair, with its output files named.

    Args:
      pairs: pictures with their masks.
      output: a file, for a single result, or a folder.
      is_folder: whether the input is a folder, so that `output` must be one too.
      kind: "png", "jpg", "webp", "same" as the input, or None: by `output`, else png.
      samples: results for each pair; more than one are numbered, and their deviation
        is drawn.
      save: names of `FIGURES`.

    Raises:
      InputError: `output` does not suit the input or `kind`, or two jobs would write
        the same file.
    """
    folder, stem, suffix = _split(output, is_folder or len(pairs) > 1, kind)
    jobs = []
    for pair in pairs:
        name = stem or pair.stem
        ending = pair.image.suffix.lower() if suffix == ".same" else suffix
        numbers = (
            [f"_{number:02d}" for number in range(samples)] if samples > 1 else [""]
        )
        results = [folder / f"{name}{number}{ending}" for number in numbers]
        drawn = [*save, DEVIATION] if samples > 1 else save
        figures = {figure: folder / f"{name}_{figure}.png" for figure in drawn}
        jobs.append(Job(pair, results, figures))
    _refuse_clashes(jobs)
    return jobs


def check_existing(jobs: Sequence[Job], overwrite: bool, skip: bool) -> None:
    """Raises InputError if a file is in the way of a job that may not replace it."""
    existing = [path for job in jobs for path in job.outputs() if path.exists()]
    for path in existing:
        if path.is_dir():
            raise InputError(f"{path} is a folder where a result should be written")
    if existing and not overwrite and not skip:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise InputError(
            f"{existing[0]} exists{more}; use --overwrite or --skip-existing"
        )


def make_folders(jobs: Sequence[Job]) -> None:
    """Makes the folders of all outputs and tries whether files can be written there.

    Raises:
      InputError: they cannot.
    """
    for folder in {path.parent for job in jobs for path in job.outputs()}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            trial = folder / f".jaxpaint-{os.getpid()}"
            with replacing(trial) as file:
                file.write(b"\0")
            trial.unlink()
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}") from None


def _split(output: str, many: bool, kind: str | None) -> tuple[Path, str, str]:
    """Returns the folder, the stem (empty: by the input) and the suffix of results."""
    path = Path(output)
    if many or not path.suffix or path.is_dir() or output.endswith(("/", os.sep)):
        if path.suffix.lower() in FORMATS and not path.is_dir():
            raise InputError(f"{path} is one file but there are many; name a folder")
        return path, "", f".{kind or 'png'}"
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: cannot write {suffix}; want {' '.join(FORMATS)}")
    if kind not in (None, "same") and FORMATS[suffix] != FORMATS[f".{kind}"]:
        raise InputError(f"{path} is no {kind}; drop --format or change the suffix")
    return path.parent, path.stem, path.suffix


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    writer: dict[Path, Path] = {}
    for job in jobs:
        for path in job.outputs():
            if path in writer:
                raise InputError(
                    f"{writer[path]} and {job.pair.image} would both write {path}; "
                    "rename one"
                )
            writer[path] = job.pair.image
    sources = [
        path
        for job in jobs
        for path in (job.pair.image, job.pair.mask, job.pair.sketch)
        if path
    ]
    inputs = {path.resolve() for path in sources}
    for path in writer:
        if path.resolve() in inputs:
            raise InputError(f"{path} is an input; write somewhere else")
