"""Checkpoints of a run, by orbax: saved in the background, opened on any devices."""

import contextlib
import functools
import json
import logging
import math
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxpaint import config as configs
from jaxpaint import files
from jaxpaint.config import Config
from jaxpaint.errors import InputError

FOLDER = "checkpoints"
CONFIG = "config.json"
_STATE = "state"


class Checkpoints:
    """The checkpoints in `workdir/checkpoints/<step>`; a context manager.

    The newest `keep` and the best one are kept. (Orbax's `best_fn` with `max_to_keep`
    would delete the newest where it is not among the best, and a resumed run would
    lose steps.)
    """

    def __init__(self, workdir: Path, settings: configs.Checkpoint):
        self._lowest = settings.best_is == "lowest"
        worst = math.inf if self._lowest else -math.inf
        policies: list[checkpoint_managers.PreservationPolicy] = [
            checkpoint_managers.LatestN(settings.keep)
        ]
        rank = functools.partial(_score, worst=worst) if settings.best else None
        if rank is not None:
            policies.append(
                checkpoint_managers.BestN(get_metric_fn=rank, reverse=self._lowest, n=1)
            )
        for name in ("absl", "asyncio"):  # errors are raised as well
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        with _clear_errors(workdir):
            self._manager = ocp.CheckpointManager(
                (workdir / FOLDER).absolute(),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                        policies
                    ),
                    # Does not choose what is kept, but has metrics saved at all.
                    best_fn=rank,
                    best_mode="min" if self._lowest else "max",
                    cleanup_tmp_directories=True,
                ),
            )
        self._workdir = workdir
        known = scores(workdir).values() if settings.best else ()
        self._best = (min if self._lowest else max)([worst, *known])

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        """Waits for what is being saved; an error of that does not hide another one."""
        if any(exception):
            with contextlib.suppress(Exception):
                self._manager.close()
        else:
            with _clear_errors(self._workdir):
                self._manager.close()

    def latest(self) -> int | None:
        """Returns the number of the newest complete checkpoint."""
        return self._manager.latest_step()

    def is_best(self, score: float) -> bool:
        """Returns whether no saved state has a score as good as this one."""
        return score < self._best if self._lowest else score > self._best

    def save(self, step: int, state: Any, score: float | None) -> None:
        """Starts to save a state; waits only for its copy to the host.

        A `score` of None, for a state that was not evaluated, is never the best one.

        Raises:
          InputError: the disk is full or cannot be written. Earlier checkpoints remain.
        """
        if score is not None and self.is_best(score):
            self._best = score
        with _clear_errors(self._workdir), jax.transfer_guard("allow"):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{_STATE: ocp.args.StandardSave(state)}  # type: ignore[arg-type]
                ),
                metrics={} if score is None else {"score": score},
            )

    def wait(self) -> None:
        """Returns when everything is on disk."""
        with _clear_errors(self._workdir):
            self._manager.wait_until_finished()

    def restore(self, step: int, like: Any) -> Any:
        """Returns the state of a checkpoint, laid out as `like` says.

        `like` holds `ShapeDtypeStruct`s with shardings, which need not be those that
        the state was saved with.

        Raises:
          InputError: the checkpoint is damaged or of another network.
        """
        folder = self._workdir / FOLDER / str(step)
        try:
            with jax.transfer_guard("allow"):
                return self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        **{_STATE: ocp.args.StandardRestore(like)}  # type: ignore[arg-type]
                    ),
                )[_STATE]
        except Exception as error:
            raise InputError(
                f"checkpoint {folder} cannot be read: {_first_line(error)}; if it is "
                "damaged, delete this folder to go on from an earlier one"
            ) from error


def ignore_late_callbacks() -> None:
    """Keeps tracebacks of orbax's threads off the screen.

    What goes wrong in them is raised again where its result is waited for; the
    interpreter would print it a second time, and also what their other writes report to
    an event loop that has ended.
    """
    thread_hook, late_hook = threading.excepthook, sys.unraisablehook

    def on_thread(about: threading.ExceptHookArgs) -> None:
        if not _of_orbax(about.exc_value):
            thread_hook(about)

    def on_late(about: "sys.UnraisableHookArgs") -> None:
        if not _of_orbax(about.exc_value):
            late_hook(about)

    threading.excepthook = on_thread
    sys.unraisablehook = on_late


def _of_orbax(error: BaseException | None) -> bool:
    """Returns whether an exception went through orbax or the event loop it uses."""
    packages = {
        frame.f_globals.get("__name__", "").partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__ if error else None)
    }
    return not packages.isdisjoint({"orbax", "asyncio", "tensorstore"})


def _score(metrics: Mapping[str, float] | None, worst: float) -> float:
    return float((metrics or {}).get("score", worst))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


@contextlib.contextmanager
def _clear_errors(workdir: Path) -> Iterator[None]:
    """Turns what goes wrong on the disk into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"no checkpoint could be written in {workdir / FOLDER}: "
            f"{_first_line(error)}; earlier checkpoints are unharmed; free some space "
            "or mend the folder, and run the same command again"
        ) from error


def read_config(workdir: Path) -> Config | None:
    """Returns the configuration that a run was started with; None: no run there yet."""
    path = workdir / CONFIG
    try:
        return configs.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write_config(workdir: Path, config: Config) -> None:
    """Stores the configuration in the run's folder."""
    with files.replacing(workdir / CONFIG) as file:
        file.write(configs.to_json(config).encode())


def steps(workdir: Path) -> list[int]:
    """Returns the numbers of the complete checkpoints of a run, sorted."""
    folder = workdir / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def scores(workdir: Path) -> dict[int, float]:
    """Returns the scores of the checkpoints that have one."""
    found = {}
    for step in steps(workdir):
        path = workdir / FOLDER / str(step) / "metrics" / "metrics"
        with contextlib.suppress(OSError, json.JSONDecodeError):
            score = _score(json.loads(path.read_text()), math.nan)
            if math.isfinite(score):
                found[step] = score
    return found


def best_step(workdir: Path, settings: configs.Checkpoint) -> int | None:
    """Returns the number of the checkpoint with the best score, if any has one."""
    found = scores(workdir)
    pick = min if settings.best_is == "lowest" else max
    return pick(found, key=lambda step: found[step]) if found else None


def restore_on_host(workdir: Path, step: int, like: Any) -> Any:
    """Returns the state of a checkpoint as numpy arrays, whatever devices saved it."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like
    )
    path = (workdir / FOLDER / str(step) / _STATE).absolute()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return jax.tree.map(np.asarray, checkpointer.restore(path, placed))
    except Exception as error:
        raise InputError(
            f"checkpoint {path} cannot be read: {_first_line(error)}"
        ) from error
