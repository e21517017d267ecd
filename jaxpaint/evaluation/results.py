"""The files of an evaluation: settings, results, rows, tables, the grid."""

import dataclasses
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxpaint import files
from jaxpaint.contact_sheet import contact_sheet, marked
from jaxpaint.errors import InputError
from jaxpaint.evaluation.filling import Contestant
from jaxpaint.evaluation.scores import Row
from jaxpaint.evaluation.squares import Squares, folder_of
from jaxpaint.files import Picture, replacing, write_picture


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A folder with an evaluation."""

    folder: Path
    squares: Squares
    holes: Mapping[str, np.ndarray]
    """Boolean `[N, S, S]` by kind of masks."""

    def result_folder(self, label: str, kind: str, sample: int = 0) -> Path:
        """Returns where the results of a row of the table lie, for one kind."""
        folder = self.folder / "results" / label / folder_of(kind)
        return folder / f"sample_{sample:02}" if sample else folder

    def write_inputs(self) -> None:
        """Writes squares and masks, for other programs and for whoever looks."""
        truth = self.folder / "truth"
        truth.mkdir(parents=True, exist_ok=True)
        for name, pixels in zip(self.squares.names, self.squares.pixels, strict=True):
            if not (truth / f"{name}.png").exists():
                write_picture(truth / f"{name}.png", Picture(pixels))
        for kind, holes in self.holes.items():
            folder = self.folder / "masks" / folder_of(kind)
            folder.mkdir(parents=True, exist_ok=True)
            for name, hole in zip(self.squares.names, holes, strict=True):
                if not (folder / f"{name}.png").exists():
                    white = np.where(hole, np.uint8(255), np.uint8(0))
                    write_picture(folder / f"{name}.png", Picture(white))

    def results(self, folder: Path) -> tuple[list[int], np.ndarray, list[str]]:
        """Returns the results in a folder: which pictures, their pixels, and what is
        wrong with others."""
        found, pixels, problems = [], [], []
        shape = self.squares.pixels.shape[1:]
        for index, name in enumerate(self.squares.names):
            path = folder / f"{name}.png"
            try:
                result = files.read_rgb(path)
                if result.shape != shape:
                    raise InputError(
                        f"{path} is {result.shape[1]}x{result.shape[0]}; want "
                        f"{shape[1]}x{shape[0]}"
                    )
            except InputError as error:
                problems.append(str(error))
            else:
                found.append(index)
                pixels.append(result)
        return found, np.array(pixels, np.uint8).reshape(-1, *shape), problems


def agree(folder: Path, asked: Mapping[str, Any]) -> None:
    """Writes the settings of an evaluation, or compares them with those it began with.

    `rows` may grow; all else must stay.

    Raises:
      InputError: a setting changed; the difference is told.
    """
    path = folder / "settings.json"
    # As they come out of the file again.
    asked = dict(json.loads(json.dumps(asked)))
    if path.exists():
        before = json.loads(path.read_text())
        old, new = (dict(_flat(settings)) for settings in (before, asked))
        changed = [
            f"{key}: {old[key]} -> {new[key]}"
            for key in new
            if key in old and old[key] != new[key]
        ]
        gone = [key for key in old if key not in new and not key.startswith("rows.")]
        more = [key for key in new if key not in old and not key.startswith("rows.")]
        changed += [f"{key} is gone" for key in gone] + [
            f"{key} is new" for key in more
        ]
        if changed:
            extra = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise InputError(
                f"{folder} holds an evaluation with other settings "
                f"({'; '.join(changed[:3])}{extra}); choose another --output"
            )
        asked = {**asked, "rows": before["rows"] | asked["rows"]}
    with replacing(path) as file:
        file.write((json.dumps(asked, indent=1) + "\n").encode())


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def describe(contestant: Contestant) -> dict[str, Any]:
    """Returns what makes a row of the table what it is, for `agree`."""
    weights = 0
    for leaf in jax.tree.leaves(contestant.params):
        weights = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), weights)
    return {
        "method": contestant.method,
        "options": dict(contestant.options),
        "weights": weights,
    }


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes one JSON object for each result."""
    with replacing(path) as file:
        for row in rows:
            about = {"method": row.method, "mask": row.mask, "picture": row.picture}
            file.write((json.dumps(about | row.scores) + "\n").encode())


def grid(evaluation: Evaluation, labels: Sequence[str], count: int) -> np.ndarray:
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
            for label in labels:
                path = evaluation.result_folder(label, kind) / f"{name}.png"
                blank = np.full_like(truth, 255)
                cells.append((label, files.read_rgb(path) if path.exists() else blank))
    return contact_sheet(cells, 2 + len(labels))
