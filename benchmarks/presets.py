"""Quality of RePaint's presets on photographs against network calls.

    python benchmarks/presets.py --data PHOTOS/test --output eval/presets --limit 16 \
        --features efficientnet_lite0.npz --plot docs/images/presets.png

Runs `jaxpaint evaluate` with a row for each sampler and preset, on the six masks of the
survey, at the size of the network; prints a table (PSNR, SSIM in the hole, kernel
distance times 1,000) and draws the means over the masks by number of passes through the
network, forward and back.
Goes on where it was stopped, as `evaluate` does. `--plot` needs matplotlib.
"""

import argparse
import contextlib
import csv
import sys
from pathlib import Path
from typing import NamedTuple

from samplers import pairs

from jaxpaint.cli.main import main as jaxpaint
from jaxpaint.diffusion import resampling
from jaxpaint.methods.repaint import PRESETS, Preset

METRICS = {
    "psnr": "PSNR, dB",
    "hole_ssim": "SSIM in the hole",
    "kd_lite0": "kernel distance x 1,000",
}
CELL = {"psnr": "{:.1f}", "hole_ssim": "{:.2f}", "kd_lite0": "{:.0f}"}
"""What the table says of each mask."""

Scores = dict[str, dict[str, dict[str, float]]]
"""By row, metric and kind of mask."""


class Row(NamedTuple):
    """A line of the table."""

    sampling: str
    schedule: Preset

    def calls(self) -> int:
        """Returns the number of network calls."""
        if self.sampling == "lanpaint":
            return self.schedule.levels * (self.schedule.repeats + 1)
        if self.sampling == "mmps":
            return self.schedule.levels
        return resampling.network_calls(pairs(*self.schedule))

    def backward(self) -> int:
        """Returns the number of ways back through the network."""
        each = {"pigdm": 1, "mmps": self.schedule.repeats}
        return self.calls() * each.get(self.sampling, 0)

    def passes(self) -> int:
        """Returns the number of both."""
        return self.calls() + self.backward()


def rows(names: list[str]) -> dict[str, Row]:
    """Returns the rows of the presets of these names, and plain replacement."""
    found = {
        f"replacement_{levels}": Row("repaint", Preset(levels))
        for levels in (50, 100, 250)
    }
    for sampling, presets in PRESETS.items():
        for name in names:
            row = Row(sampling, presets[name])
            # Two names of PiGDM stand for the same.
            if row not in found.values():
                found[f"{sampling}_{name}"] = row
    return dict(sorted(found.items(), key=lambda item: item[1].passes()))


def measure(table: dict[str, Row], args: argparse.Namespace) -> None:
    """Runs the evaluation."""
    methods = ",".join(f"{label}=repaint" for label in table)
    command = ["evaluate", "--data", str(args.data), "--output", str(args.output)]
    command += ["--size", str(args.size), "--limit", str(args.limit)]
    command += ["--methods", methods, "--batch-size", str(args.batch_size)]
    if args.features:
        command += ["--features", str(args.features)]
    for label, row in table.items():
        settings = {"sampling": row.sampling, **row.schedule._asdict()}
        for name, value in settings.items():
            command += ["--option", f"{label}.{name}={value}"]
    with contextlib.redirect_stdout(sys.stderr):
        code = jaxpaint(command)
    if code:
        raise SystemExit(code)


def read(folder: Path) -> Scores:
    """Returns what was measured."""
    found: Scores = {}
    with (folder / "table.csv").open() as file:
        for line in csv.DictReader(file):
            metric = found.setdefault(line["method"], {}).setdefault(line["metric"], {})
            factor = 1000 if line["metric"] == "kd_lite0" else 1
            metric[line["mask"]] = factor * float(line["value"])
    return found


def mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def draw(table: dict[str, Row], scores: Scores, to: Path) -> None:
    """Writes the plot: a panel for each metric, a line for each sampler."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(METRICS), figsize=(15, 3.6))
    for panel, (metric, title) in zip(panels, METRICS.items(), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for label, row in table.items():
            if metric in scores[label]:
                point = row.passes(), mean(scores[label][metric])
                lines.setdefault(label.rpartition("_")[0], []).append(point)
        for name, points in lines.items():
            panel.plot(*zip(*points, strict=True), marker="o", label=name)
        panel.set_xscale("log")
        panel.set_xticks([], minor=True)
        ticks = [25, 50, 100, 250, 500, 1000, 2500]
        panel.set_xticks(ticks, map(str, ticks))
        panel.set_xlabel("passes through the network, forward and back")
        panel.set_title(title)
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(to, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--presets", default="draft,fast", help="names, with commas")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    table = rows(args.presets.split(","))
    measure(table, args)
    scores = read(args.output)
    kinds = list(next(iter(scores.values()))["psnr"])
    metrics = [metric for metric in CELL if metric in next(iter(scores.values()))]
    print(f"| row | levels/jump/repeats | calls | back | mean | {' | '.join(kinds)} |")
    print("| --- " * (5 + len(kinds)) + "|")
    for label, row in table.items():
        measured = [scores[label][metric] for metric in metrics]
        columns = [[mean(values) for values in measured]]
        columns += [[values[kind] for values in measured] for kind in kinds]
        cells = [
            ", ".join(CELL[m].format(x) for m, x in zip(metrics, column, strict=True))
            for column in columns
        ]
        schedule = "/".join(str(x) for x in row.schedule)
        passes = f"{row.calls()} | {row.backward()}"
        print(f"| `{label}` | {schedule} | {passes} | {' | '.join(cells)} |")
    if args.plot:
        draw(table, scores, args.plot)


if __name__ == "__main__":
    main()
