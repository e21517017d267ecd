"""What all results in the folder of an evaluation score, and the files that tell it."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxpaint.evaluation import descriptions, results, scores, tables
from jaxpaint.evaluation.results import Evaluation
from jaxpaint.evaluation.scores import Distance, Figure, Network, Row
from jaxpaint.evaluation.squares import folder_of
from jaxpaint.files import Picture, replacing, write_picture


class Scored(NamedTuple):
    """What the results of an evaluation score."""

    rows: list[Row]
    figures: list[Figure]
    problems: list[str]
    """Results that are missing or cannot be used."""


def score(
    evaluation: Evaluation,
    networks: Sequence[Network] = (),
    distance: Distance | None = None,
) -> Scored:
    """Returns the scores of all results, read from files.

    Args:
      evaluation: of every row the results that it has, the first for each hole;
        further samples count for the diversity.
      networks: for the distances of sets.
      distance: of pairs, called `lpips`; None: none.
    """
    names, truth = evaluation.squares.names, evaluation.squares.pixels
    kept = [evaluation.folder / "features" / network.name for network in networks]
    of_truth = [
        descriptions.features(network, truth, folder / "truth.npz")
        for network, folder in zip(networks, kept, strict=True)
    ]
    rows, distances, problems = [], [], []
    for label in evaluation.labels():
        for kind, holes in evaluation.holes.items():
            folder = evaluation.results_of(label, kind)
            if not folder.is_dir() and label in evaluation.rows:
                continue  # a row that was not asked for when these masks joined
            where, pixels, wrong = evaluation.read_results(label, kind)
            problems += wrong
            if not where:
                continue
            found = list(scores.score(pixels, truth[where], holes[where], distance))
            further = [
                evaluation.read_results(label, kind, number)[:2]
                for number in evaluation.further_samples(label, kind)
            ]
            # Samples that an interruption left incomplete do not count yet.
            whole = [more for which, more in further if which == where]
            if whole:
                spread = scores.diversity([pixels, *whole], holes[where])
                for row, value in zip(found, spread, strict=True):
                    row["diversity"] = value
            rows += [
                Row(label, kind, names[index], row)
                for index, row in zip(where, found, strict=True)
            ]
            if len(where) == 1:
                continue  # no set
            for network, place, known in zip(networks, kept, of_truth, strict=True):
                of_results = descriptions.features(
                    network, pixels, place / label / f"{folder_of(kind)}.npz"
                )
                distances += scores.set_distances(
                    label, kind, network, of_results, known[where]
                )
    return Scored(rows, [*scores.means(rows), *distances], problems)


def write(
    evaluation: Evaluation, scored: Scored, metrics: Sequence[str]
) -> dict[str, str]:
    """Writes rows, tables and the grid; returns the texts of the tables by file name.

    `metrics` are those of the tables; the one of comma-separated values has all.
    """
    known = {figure.metric for figure in scored.figures}
    chosen = [metric for metric in metrics if metric in known]
    texts = {
        "table.md": tables.markdown(scored.figures, chosen),
        "table.tex": tables.latex(scored.figures, chosen),
        "table.csv": tables.comma_separated(scored.figures),
    }
    results.write_rows(evaluation.folder / "rows.jsonl", scored.rows)
    for name, text in texts.items():
        with replacing(evaluation.folder / name) as file:
            file.write(text.encode())
    sheet = results.grid(evaluation, 3)
    write_picture(evaluation.folder / "grid.png", Picture(sheet))
    return texts
