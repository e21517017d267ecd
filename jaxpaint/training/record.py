"""What a run writes down: `metrics.jsonl`, TensorBoard events, sample pictures."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxpaint import files

METRICS = "metrics.jsonl"
SAMPLES = "samples"


class Record:
    """The files of a run; only process 0 writes.

    On a resumed run, lines of steps after `step` are dropped: they are done again.
    """

    def __init__(self, workdir: Path, step: int, *, writes: bool):
        self._workdir, self._writes = workdir, writes
        self._board: Any = None
        if not writes:
            return
        path = workdir / METRICS
        kept = [line for line in _lines(path) if line["step"] <= step]
        with files.replacing(path) as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = path.open("a", encoding="utf-8")
        try:
            writer = importlib.import_module("tensorboardX").SummaryWriter  # extra `tb`
        except ImportError:
            return
        self._board = writer(str(workdir / "tb"), purge_step=step + 1)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writes:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line of numbers."""
        if not self._writes:
            return
        print(json.dumps({"step": step, **values}), file=self._file, flush=True)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def picture(self, step: int, pixels: np.ndarray) -> None:
        """Writes a picture of samples, uint8 `[H, W, 3]`."""
        if not self._writes:
            return
        folder = self._workdir / SAMPLES
        folder.mkdir(exist_ok=True)
        with files.replacing(folder / f"step_{step:06}.png") as file:
            Image.fromarray(pixels).save(file, "PNG")
        if self._board is not None:
            self._board.add_image("samples", pixels, step, dataformats="HWC")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Returns the complete lines; a killed run may have left half a one."""
    found = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return found
