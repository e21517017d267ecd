"""Progress on stderr: a bar on a terminal, else a line every ten seconds."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

INTERVAL = 10.0
"""Seconds between two lines where stderr is no terminal."""


class Progress:
    """Shows how much of a run is done; a context manager that clears up behind itself.

    Work is counted in `total` equal steps. Whatever else is printed meanwhile must go
    through `say`, so that it does not tear the bar apart.
    """

    def __init__(self, total: int, quiet: bool = False, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._total = total
        self._quiet = quiet
        self._bar = None
        if not quiet and self._stream.isatty():
            layout = "{percentage:3.0f}% |{bar}| {elapsed}<{remaining} {desc}"
            self._bar = tqdm(
                total=total, file=self._stream, bar_format=layout, leave=False
            )
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: float, what: str) -> None:
        """Tells that `done` of the steps are done and `what` is being worked on."""
        if self._bar is not None:
            self._bar.set_description_str(what, refresh=False)
            self._bar.n = done
            self._bar.refresh()
            return
        now = time.monotonic()
        if not self._quiet and now - self._shown >= INTERVAL:
            self._shown = now
            percent = 100 * done / self._total
            line = f"{percent:.0f}% after {now - self._start:.0f} s: {what}"
            print(line, file=self._stream, flush=True)

    def note(self, line: str) -> None:
        """Prints a line of information, unless the run is quiet."""
        if not self._quiet:
            self.say(line, self._stream)

    def say(self, line: str, stream: TextIO) -> None:
        """Prints a line to `stream`, above the bar."""
        if self._bar is None:
            print(line, file=stream, flush=True)
        else:
            tqdm.write(line, file=stream)
