"""Requests to end a run early: SIGTERM, of schedulers, and Ctrl-C."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Stop:
    """Whether somebody asked for an end, and how the program then exits."""

    name = ""
    exit_code = 0

    def request(self, number: int, frame: FrameType | None = None) -> None:
        """Notes a signal; the second Ctrl-C does not wait any more."""
        del frame
        if number == signal.SIGINT and self.name:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        self.exit_code = 130 if number == signal.SIGINT else 0

    def agreed(self, step: int) -> bool:
        """Returns whether all processes of the run end after this step.

        A scheduler may signal only one of them, and none may go on alone.
        """
        if jax.process_count() == 1:
            return bool(self.name)
        if multihost_utils.reached_preemption_sync_point(step):
            self.name = self.name or "SIGTERM"
            return True
        return False


@contextlib.contextmanager
def requests() -> Iterator[Stop]:
    """Listens for signals while the block runs, if this is the main thread."""
    stop = Stop()
    numbers = [signal.SIGINT]
    # With several processes the service of jax.distributed listens to SIGTERM.
    if jax.process_count() == 1:
        numbers.append(signal.SIGTERM)
    old = {}
    with contextlib.suppress(ValueError):  # not the main thread: no signals here
        for number in numbers:
            old[number] = signal.signal(number, stop.request)
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
