"""Figures as tables: methods in rows, masks in columns, one table for each metric."""

import csv
import io
import math
from collections.abc import Sequence

from jaxpaint.evaluation.scores import HIGHER_IS_BETTER, Figure
from jaxpaint.evaluation.titles import TITLES


def title(metric: str) -> str:
    """Returns what a table says above its columns, with the better direction."""
    better = "higher" if metric in HIGHER_IS_BETTER else "lower"
    return f"{TITLES.get(metric, metric)} ({better} is better)"


def markdown(figures: Sequence[Figure], metrics: Sequence[str]) -> str:
    """Returns one table for each metric; in brackets the 95 % interval, best bold."""
    parts = []
    for metric in metrics:
        methods, masks, cells = _grid(figures, metric)
        lines = [f"### {title(metric)}", ""]
        lines.append(" | ".join(["| method", *masks]) + " |")
        lines.append("| --- |" + " --- |" * len(masks))
        best = {mask: _best(cells, methods, mask, metric) for mask in masks}
        for method in methods:
            row = [f"`{method}`"]
            for mask in masks:
                figure = cells.get((method, mask))
                text = _value(figure)
                row.append(f"**{text}**" if method in best[mask] else text)
                if figure and not math.isnan(figure.interval.low):
                    low, high = (_number(metric, x) for x in figure.interval)
                    row[-1] += f" [{low}, {high}]"
            lines.append("| " + " | ".join(row) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def latex(figures: Sequence[Figure], metrics: Sequence[str]) -> str:
    """Returns one `tabular` for each metric: best bold, second underlined."""
    parts = []
    for metric in metrics:
        methods, masks, cells = _grid(figures, metric)
        lines = [f"% {title(metric)}"]
        lines.append(r"\begin{tabular}{l" + "r" * len(masks) + "}")
        lines.append(" & ".join(["method", *map(_escaped, masks)]) + r" \\ \hline")
        marks: dict[tuple[str, str], str] = {}
        for mask in masks:
            ranked = _ranked(cells, methods, mask, metric)
            for method, mark in zip(ranked, (r"\textbf", r"\underline"), strict=False):
                marks[method, mask] = mark
        for method in methods:
            row = [_escaped(method)]
            for mask in masks:
                text = _value(cells.get((method, mask)))
                mark = marks.get((method, mask))
                row.append(f"{mark}{{{text}}}" if mark else text)
            lines.append(" & ".join(row) + r" \\")
        lines.append(r"\end{tabular}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def comma_separated(figures: Sequence[Figure]) -> str:
    """Returns all figures, one in a line, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "mask", "metric", "value", "low", "high", "pictures"])
    for f in figures:
        writer.writerow([*f[:3], f"{f.value:.6g}", *_bounds(f), f.pictures])
    return text.getvalue()


def _bounds(figure: Figure) -> list[str]:
    return ["" if math.isnan(x) else f"{x:.6g}" for x in figure.interval]


def _grid(figures: Sequence[Figure], metric: str):
    """Returns methods and masks in the order of the figures, and the cells by both."""
    chosen = [figure for figure in figures if figure.metric == metric]
    methods = list(dict.fromkeys(figure.method for figure in chosen))
    masks = list(dict.fromkeys(figure.mask for figure in chosen))
    return methods, masks, {(f.method, f.mask): f for f in chosen}


def _ranked(cells: dict, methods: Sequence[str], mask: str, metric: str) -> list[str]:
    """Returns the methods that have a figure for the mask, best first."""
    known = [method for method in methods if (method, mask) in cells]
    values = {method: cells[method, mask].value for method in known}
    return sorted(known, key=values.__getitem__, reverse=metric in HIGHER_IS_BETTER)


def _best(cells: dict, methods: Sequence[str], mask: str, metric: str) -> set[str]:
    """Returns the methods whose figure, as it is printed, is the best one."""
    first = _ranked(cells, methods, mask, metric)[:1]
    shown = {method: _value(cells.get((method, mask))) for method in methods}
    return {method for method in methods if shown[method] == shown[first[0]]}


def _value(figure: Figure | None) -> str:
    return _number(figure.metric, figure.value) if figure else "-"


def _number(metric: str, value: float) -> str:
    if metric in ("kd_lite0", "kid"):
        return f"{1000 * value:.1f}"
    if metric in ("psnr", "hole_psnr", "fd_lite0", "fid"):
        return f"{value:.2f}"
    return f"{value:.4f}" if metric in ("l1", "hole_l1") else f"{value:.3f}"


def _escaped(text: str) -> str:
    return text.replace("_", r"\_")
