"""A user study: pairs of results side by side, a page for votes, and their count."""

import html
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxpaint.contact_sheet import GAP, enlarged, marked
from jaxpaint.distances import Interval, proportion
from jaxpaint.errors import InputError, unknown_name
from jaxpaint.evaluation.results import Evaluation
from jaxpaint.files import Picture, replacing, write_picture

KEY = "key.json"
"""The file that tells left from right; not for those who vote."""


class Pair(NamedTuple):
    """Two results for the same hole."""

    mask: str
    picture: str
    masked: np.ndarray
    """uint8 `[S, S, 3]`, as the results."""
    first: np.ndarray
    second: np.ndarray


class Share(NamedTuple):
    """How votes for one kind of masks fell."""

    mask: str
    first: int
    """Votes for the first method."""
    votes: int
    interval: Interval
    """Of the share of the first method, 95 %."""


def check(evaluation: Evaluation, methods: Sequence[str]) -> None:
    """Raises InputError for a name that is no row of an evaluation."""
    for label in methods:
        if label not in evaluation.labels():
            raise unknown_name("row in --pairs", label, evaluation.labels())


def of(evaluation: Evaluation, methods: tuple[str, str]) -> list[Pair]:
    """Returns the pairs of results that both rows of an evaluation have.

    Raises:
      InputError: no such row, or no such pair.
    """
    check(evaluation, methods)
    found = []
    for kind, holes in evaluation.holes.items():
        sides = [
            dict(zip(*evaluation.read_results(label, kind)[:2], strict=True))
            for label in methods
        ]
        for index in sorted(sides[0].keys() & sides[1].keys()):
            masked = marked(evaluation.squares.pixels[index], holes[index])
            name = evaluation.squares.names[index]
            found.append(Pair(kind, name, masked, *(side[index] for side in sides)))
    if not found:
        raise InputError(
            f"{evaluation.folder} has no results of both {' and '.join(methods)}"
        )
    return found


def write(
    folder: Path, methods: tuple[str, str], pairs: Sequence[Pair], seed: int
) -> Path:
    """Writes the pictures, the page and the key of a study; returns the page's path.

    The order of the pairs and their sides are drawn from `seed`. The page needs nothing
    but the pictures beside it, and saves the votes as a file.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pairs))
    swapped = rng.random(len(pairs)) < 0.5
    entries = {}
    (folder / "pairs").mkdir(parents=True, exist_ok=True)
    for number, index in enumerate(order, start=1):
        pair, name = pairs[index], f"{number:04}"
        sides = (pair.first, pair.second)
        sides = sides[::-1] if swapped[index] else sides
        write_picture(
            folder / "pairs" / f"{name}.png",
            Picture(_beside([pair.masked, *sides])),
        )
        left = methods[1] if swapped[index] else methods[0]
        entries[name] = {"mask": pair.mask, "picture": pair.picture, "left": left}
    key: dict[str, Any] = {"methods": methods, "pairs": entries}
    key["study"] = f"{zlib.crc32(json.dumps(key, sort_keys=True).encode()):08x}"
    page = _PAGE.replace("STUDY", html.escape(key["study"]))
    page = page.replace("NAMES", json.dumps(list(entries)))
    for name, text in {KEY: json.dumps(key, indent=1), "study.html": page}.items():
        with replacing(folder / name) as file:
            file.write(text.encode())
    return folder / "study.html"


def _beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    shown = [enlarged(picture) for picture in pictures]
    gap = np.full((len(shown[0]), GAP, 3), 255, np.uint8)
    return np.concatenate([shown[0], gap, shown[1], gap, shown[2]], axis=1)


def count(folder: Path, files: Sequence[Path]) -> tuple[tuple[str, str], list[Share]]:
    """Returns the methods of a study, and how the votes in files fell.

    One share for each kind of masks, and one for all. Each file is one voter's.

    Raises:
      InputError: no study, no votes, or votes of another study.
    """
    key = _read(folder / KEY, "the key of a study; write one with --pairs A,B")
    tally: dict[str, list[int]] = {}
    for path in dict.fromkeys(path.resolve() for path in files):
        ballot = _read(path, "a file of votes")
        if ballot.get("study") != key["study"]:
            raise InputError(
                f"{path} belongs to study {ballot.get('study')}; want {key['study']}, "
                f"that of {folder}"
            )
        votes = ballot.get("votes")
        if not isinstance(votes, dict):
            raise InputError(f"{path} has no votes; want a file that the page saved")
        for name, side in votes.items():
            entry = key["pairs"].get(name)
            if entry is None or side not in ("left", "right"):
                raise InputError(
                    f"{path} has the vote {name}: {side}; want left or right for one "
                    "of the pairs"
                )
            is_first = (entry["left"] == key["methods"][0]) == (side == "left")
            for mask in (entry["mask"], "all"):
                tally.setdefault(mask, []).append(is_first)
    if not tally:
        raise InputError("there are no votes to count")
    masks = dict.fromkeys(entry["mask"] for entry in key["pairs"].values())
    first, second = key["methods"]
    return (first, second), [
        Share(mask, sum(won), len(won), proportion(sum(won), len(won)))
        for mask in (*sorted(masks), "all")
        if (won := tally.get(mask))
    ]


def _read(path: Path, want: str) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; want {want}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); want {want}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no object; want {want}")
    return found


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Which picture looks more real?</title>
<style>
body { font: 16px sans-serif; text-align: center; margin: 2em; }
img { max-width: 95vw; image-rendering: auto; }
button { font: inherit; padding: .5em 1.5em; margin: .5em; }
</style>
<h1>Which picture looks more real?</h1>
<p>On the left the picture with its hole. Choose one of the other two: click, or press
the left or right arrow key. Backspace takes a vote back.</p>
<p id="progress"></p>
<img id="pair" alt="a masked picture and two results">
<p><button id="left">the middle one (&larr;)</button>
<button id="right">the right one (&rarr;)</button></p>
<p><button id="save">save the votes</button></p>
<script>
const names = NAMES, votes = {};
let at = 0;
const show = () => {
  const done = at >= names.length;
  document.getElementById("progress").textContent = done
    ? "All " + names.length + " done. Thank you: save the votes and send the file back."
    : (at + 1) + " of " + names.length;
  document.getElementById("pair").hidden = done;
  for (const id of ["left", "right"]) document.getElementById(id).disabled = done;
  if (!done) document.getElementById("pair").src = "pairs/" + names[at] + ".png";
};
const vote = side => { if (at < names.length) { votes[names[at++]] = side; show(); } };
const back = () => { if (at > 0) { delete votes[names[--at]]; show(); } };
for (const id of ["left", "right"]) {
  document.getElementById(id).onclick = () => vote(id);
}
document.onkeydown = event => {
  if (event.key === "ArrowLeft") vote("left");
  if (event.key === "ArrowRight") vote("right");
  if (event.key === "Backspace") back();
};
document.getElementById("save").onclick = () => {
  const text = JSON.stringify({study: "STUDY", votes: votes});
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  link.download = "votes.json";
  link.click();
};
show();
</script>
</html>
"""
