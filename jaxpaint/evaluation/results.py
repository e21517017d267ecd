"""The folder of an evaluation: its settings, squares, masks, results, rows and grid."""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxpaint import files
from jaxpaint.contact_sheet import contact_sheet, marked
from jaxpaint.errors import InputError
from jaxpaint.evaluation import squares as pictures
from jaxpaint.evaluation.scores import Row
from jaxpaint.evaluation.squares import Squares, folder_of
from jaxpaint.files import Picture, replacing, write_picture

SETTINGS = "settings.json"


class Contestant(NamedTuple):
    """What one row of the table stands for."""

    label: str
    method: str
    options: Mapping[str, Any]
    params: Any
    """As `Method.eval_params` returns them; `{}` of methods that learn nothing."""


class Evaluation(NamedTuple):
    """An evaluation, as its folder has it."""

    folder: Path
    seed: int
    squares: Squares
    holes: dict[str, np.ndarray]
    """Boolean `[N, S, S]` by kind of masks."""
    rows: dict[str, Any]
    """What makes each row of the table what it is, by label; see `describe`."""
    predictions: dict[str, str]
    """Folders of other programs' results, by label."""

    def labels(self) -> list[str]:
        """Returns the rows of the table."""
        return [*self.rows, *self.predictions]

    def results_of(self, label: str, kind: str, sample: int = 0) -> Path:
        """Returns the folder with the results of a row for one kind of masks."""
        root = Path(self.predictions.get(label, self.folder / "results" / label))
        folder = root / folder_of(kind)
        return folder / f"sample_{sample:02}" if sample else folder

    def further_samples(self, label: str, kind: str) -> list[int]:
        """Returns the numbers of the samples that a row has beside the first one."""
        found = self.results_of(label, kind).glob("sample_*")
        numbers = (path.name.removeprefix("sample_") for path in found)
        return sorted(int(number) for number in numbers if number.isdigit())

    def read_results(
        self, label: str, kind: str, sample: int = 0
    ) -> tuple[list[int], np.ndarray, list[str]]:
        """Returns the results of a row for one kind of masks: which pictures, their
        pixels, and what is wrong with others.

        Known pixels are those of the truth, whatever other programs made of them.
        """
        folder, holes = self.results_of(label, kind, sample), self.holes[kind]
        found, pixels, problems = [], [], []
        for index, name in enumerate(self.squares.names):
            truth = self.squares.pixels[index]
            try:
                result = _read_square(folder / f"{name}.png", truth.shape)
                pixels.append(np.where(holes[index, ..., None], result, truth))
                found.append(index)
            except InputError as error:
                problems.append(str(error))
        shape = self.squares.pixels.shape[1:]
        return found, np.array(pixels, np.uint8).reshape(-1, *shape), problems


def begin(
    folder: Path,
    squares: Squares,
    kinds: Sequence[str],
    seed: int,
    contestants: Sequence[Contestant],
    predictions: Mapping[str, str],
) -> Evaluation:
    """Returns the evaluation in a folder, begun or joined by further rows and masks.

    Squares and masks are written, for other programs and for whoever looks.

    Raises:
      InputError: the folder holds one with other pictures, sizes, seed or settings of
        a row; the difference is told, and nothing was written.
    """
    asked = {
        "size": squares.pixels.shape[1],
        "seed": seed,
        "pictures": {
            name: zlib.crc32(np.ascontiguousarray(pixels).tobytes())
            for name, pixels in zip(squares.names, squares.pixels, strict=True)
        },
        "masks": list(kinds),
        "rows": {c.label: describe(c) for c in contestants},
        "predictions": {
            label: str(Path(path).resolve()) for label, path in predictions.items()
        },
    }
    asked = _joined(folder, json.loads(json.dumps(asked)))
    drawn = {
        f"masks/{folder_of(kind)}": pictures.holes(squares, kind, seed)
        for kind in asked["masks"]
    }
    try:
        for name, arrays in {"truth": squares.pixels, **drawn}.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for stem, pixels in zip(squares.names, arrays, strict=True):
                path = folder / name / f"{stem}.png"
                if not path.exists():
                    is_mask = pixels.dtype == bool
                    shown = pixels.astype(np.uint8) * 255 if is_mask else pixels
                    write_picture(path, Picture(shown))
        with replacing(folder / SETTINGS) as file:
            file.write((json.dumps(asked, indent=1) + "\n").encode())
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from None
    return reopen(folder)


def reopen(folder: Path) -> Evaluation:
    """Returns the evaluation in a folder, all of it read from files.

    Raises:
      InputError: there is none, or files of it are gone.
    """
    settings = _settings(folder)
    if settings is None:
        raise InputError(f"{folder} holds no evaluation; begin one with --data")
    names, size = list(settings["pictures"]), settings["size"]
    truth = [_read_square(folder / f"truth/{n}.png", (size, size, 3)) for n in names]
    holes = {
        kind: np.stack(
            [
                files.read_mask(folder / f"masks/{folder_of(kind)}/{n}.png")
                for n in names
            ]
        )
        for kind in settings["masks"]
    }
    squares = Squares(names, np.stack(truth), [])
    return Evaluation(
        folder,
        settings["seed"],
        squares,
        holes,
        settings["rows"],
        settings["predictions"],
    )


def _settings(folder: Path) -> dict[str, Any] | None:
    path = folder / SETTINGS
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); remove the folder") from None


def _joined(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings with what the folder had before."""
    before = _settings(folder)
    if before is None:
        return asked
    changed = [
        f"{key}: {before[key]} -> {asked[key]}"
        for key in ("size", "seed")
        if before[key] != asked[key]
    ]
    old, new = before["pictures"], asked["pictures"]
    if old != new:
        other = sum(new.get(name) != old[name] for name in old)
        changed.append(
            f"pictures: {len(old)} -> {len(new)}, of which {other} of before are "
            "missing or different"
        )
    for section in ("rows", "predictions"):
        for label, value in asked[section].items():
            known = before[section].get(label, value)
            changed += _differences(label, known, value)
    if changed:
        raise InputError(
            f"{folder} holds an evaluation with other settings ({'; '.join(changed)}); "
            "choose another --output, or another label"
        )
    masks = dict.fromkeys([*before["masks"], *asked["masks"]])
    return {
        **asked,
        "masks": list(masks),
        "rows": before["rows"] | asked["rows"],
        "predictions": before["predictions"] | asked["predictions"],
    }


def _differences(name: str, old: Any, new: Any) -> list[str]:
    """Returns what differs in two trees of settings."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{name}: {old} -> {new}"]
    return [
        difference
        for key in dict.fromkeys([*old, *new])
        for difference in _differences(f"{name}.{key}", old.get(key), new.get(key))
    ]


def describe(contestant: Contestant) -> dict[str, Any]:
    """Returns what makes a row of the table what it is."""
    weights = 0
    for leaf in jax.tree.leaves(contestant.params):
        weights = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), weights)
    return {
        "method": contestant.method,
        "options": dict(contestant.options),
        "weights": weights,
    }


def _read_square(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    pixels = files.read_rgb(path)
    if pixels.shape != shape:
        raise InputError(
            f"{path} is {pixels.shape[1]}x{pixels.shape[0]}; want {shape[1]}x{shape[0]}"
        )
    return pixels


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes one JSON object for each result."""
    with replacing(path) as file:
        for row in rows:
            about = {"method": row.method, "mask": row.mask, "picture": row.picture}
            file.write((json.dumps(about | row.scores) + "\n").encode())


def add_seconds(path: Path, spent: Mapping[str, tuple[float, int]]) -> None:
    """Adds seconds and pictures of each row to what a file has counted so far."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for label, (seconds, count) in spent.items():
        before = known.get(label, {"seconds": 0.0, "pictures": 0})
        known[label] = {
            "seconds": before["seconds"] + seconds,
            "pictures": before["pictures"] + count,
        }
    with replacing(path) as file:
        file.write((json.dumps(known, indent=1) + "\n").encode())


def grid(evaluation: Evaluation, count: int) -> np.ndarray:
    """Returns truth, hole and results of a few pictures, one row for each and kind.

    Pictures are spread over the set.
    """
    squares = evaluation.squares
    chosen = np.linspace(0, len(squares.names) - 1, min(count, len(squares.names)))
    cells = []
    for kind, holes in evaluation.holes.items():
        for index in chosen.astype(int):
            name, truth = squares.names[index], squares.pixels[index]
            cells.append((name, truth))
            cells.append((kind, marked(truth, holes[index])))
            for label in evaluation.labels():
                path = evaluation.results_of(label, kind) / f"{name}.png"
                try:
                    shown = _read_square(path, truth.shape)
                except InputError:
                    shown = np.full_like(truth, 255)
                cells.append((label, shown))
    return contact_sheet(cells, 2 + len(evaluation.labels()))
