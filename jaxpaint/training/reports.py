"""Tallies of the devices as lines in the record and on the screen."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax

from jaxpaint.training import costs
from jaxpaint.training.record import Record
from jaxpaint.training.step import FINE, Tally

if TYPE_CHECKING:
    from jaxpaint.cli.progress import Progress


class Diverged(FloatingPointError):
    """A metric or a parameter is not finite any more."""


def diverged(step: int, what: str, last_saved: int) -> Diverged:
    """Returns the error that ends a run."""
    left = f"step {last_saved} is saved" if last_saved else "nothing was saved yet"
    return Diverged(
        f"{what} is not finite at step {step}; {left}; try a lower optim.lr or "
        "optim.clip_norm=1"
    )


class _Waiting(NamedTuple):
    step: int
    steps: int
    seconds: float
    tally: Tally


class Reports:
    """Hands tallies on once they are computed, without making anybody wait."""

    def __init__(
        self,
        record: Record,
        progress: "Progress",
        *,
        step: int,
        batch_size: int,
        step_flops: float,
    ):
        self.last_saved = step
        self._record, self._progress = record, progress
        self._batch_size, self._flops = batch_size, step_flops
        self._peak = costs.peak_flops() if step_flops else 0.0
        self._waiting: deque[_Waiting] = deque()
        self._step, self._clock = step, time.perf_counter()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves the time of the block out of the time of the steps."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._clock += time.perf_counter() - start

    def hand_over(self, step: int, tally: Tally) -> None:
        """Takes the tally of the steps since the last one, up to `step`."""
        self.flush()
        now = time.perf_counter()
        self._waiting.append(
            _Waiting(step, step - self._step, now - self._clock, tally)
        )
        self._step, self._clock = step, now

    def flush(self, *, ready_only: bool = False) -> None:
        """Writes what is waiting; with `ready_only` only what needs no waiting for.

        Raises:
          Diverged: a metric was not finite.
        """
        while self._waiting:
            if ready_only and not _is_ready(self._waiting[0].tally):
                return
            self._write(self._waiting.popleft())

    def _write(self, item: _Waiting) -> None:
        tally = jax.device_get(item.tally)
        names = sorted(tally.sums)
        if tally.bad_step != FINE:
            what = f"metric '{names[int(tally.bad_metric)]}'"
            raise diverged(int(tally.bad_step), what, self.last_saved)
        values = {name: float(tally.sums[name]) / item.steps for name in names}
        seconds = item.seconds / item.steps
        values["speed/step_ms"] = round(1000 * seconds, 3)
        values["speed/images_per_s"] = round(self._batch_size / seconds, 3)
        if self._flops:
            values["speed/mfu"] = round(self._flops / seconds / self._peak, 4)
        self._record.scalars(item.step, values)
        self._progress.show(item.step, _line(item.step, values))


def _is_ready(tally: Tally) -> bool:
    ready: Callable[[], bool] = getattr(tally.steps, "is_ready", lambda: True)
    return ready()


def _line(step: int, values: dict[str, float]) -> str:
    losses = [f"{k[5:]} {v:.4g}" for k, v in values.items() if k.startswith("loss/")]
    speed = [
        f"{values['speed/images_per_s']:.4g} images/s",
        f"{values['speed/step_ms']:.4g} ms/step",
    ]
    if "speed/mfu" in values:
        speed.append(f"{values['speed/mfu']:.0%} of peak")
    return f"step {step}: " + ", ".join([*losses, *speed])
