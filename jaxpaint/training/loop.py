"""The training loop: from a configuration and a folder to a finished run.

The host only dispatches. It reads metrics after they are computed, and lets the devices
fall at most `AHEAD` steps behind; implicit transfers are errors (transfer guard).
"""

import contextlib
import errno
import fcntl
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxpaint import config as configs
from jaxpaint.config import Config
from jaxpaint.data import loader, sources
from jaxpaint.data.prefetch import Prefetch
from jaxpaint.errors import InputError
from jaxpaint.training import checkpoints, evaluation, programs, reports, stopping
from jaxpaint.training import mesh as meshes
from jaxpaint.training.record import Record

if TYPE_CHECKING:
    from jaxpaint.cli.progress import Progress

AHEAD = 2
"""Steps that are dispatched before the host waits for the oldest one."""


def run(
    config: Config,
    workdir: Path,
    progress: "Progress",
    *,
    allow_config_change: bool = False,
    devices: Sequence[Any] | None = None,
) -> int:
    """Trains until `config.steps`, going on from the newest checkpoint in `workdir`.

    Runs on `devices`, by default all there are.

    SIGTERM and the first Ctrl-C end the run after the step under way and a checkpoint.

    Returns:
      The exit code: 0 when done or after SIGTERM, 130 after Ctrl-C.

    Raises:
      InputError: a configuration, folder, file or disk that is not as it should be.
      Diverged: a metric or a parameter is NaN or infinite; nothing of that is saved.
    """
    if not allow_config_change:
        _check_unchanged(config, workdir)
    program = programs.build(config, devices)
    source = sources.open_source(config.data.train, config.data.tfds_dir)
    pictures = _validation_pictures(config)
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(_owned(workdir))
            checkpoints.write_config(workdir, config)
        stop = stack.enter_context(stopping.requests())
        saved = stack.enter_context(checkpoints.Checkpoints(workdir, config.checkpoint))
        done = saved.latest() or 0
        for line in _headlines(program, len(source), pictures, done):
            progress.note(line)
        if done >= config.steps:
            progress.note(f"nothing to do: {done} of {config.steps} steps are done")
            return 0
        state = _state(program, saved, done)
        compiled, flops = _compile(program, progress)
        record = stack.enter_context(
            Record(workdir, done, writes=jax.process_index() == 0)
        )
        judge = None
        if pictures is not None:
            judge = evaluation.Judge(program, pictures, record, progress)
            judge.measure_baselines(done)
        batches = loader.batches(
            source,
            config.data,
            seed=config.seed,
            first_step=done,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        prefetch = stack.enter_context(
            Prefetch(batches, meshes.over_batch(program.mesh), config.data.prefetch)
        )
        told = reports.Reports(
            record,
            progress,
            step=done,
            batch_size=config.data.batch_size,
            step_flops=flops,
        )
        stack.enter_context(jax.transfer_guard("disallow"))
        return _iterate(
            program, compiled, state, done, prefetch, saved, told, judge, progress, stop
        )


def _iterate(
    program: programs.Program,
    compiled: Any,
    state: Any,
    done: int,
    prefetch: Prefetch,
    saved: checkpoints.Checkpoints,
    told: reports.Reports,
    judge: "evaluation.Judge | None",
    progress: "Progress",
    stop: stopping.Stop,
) -> int:
    config = program.config
    tally = program.new_tally()
    behind: deque[jax.Array] = deque()
    while done < config.steps:
        state, tally, marker = compiled(state, tally, next(prefetch))
        done += 1
        behind.append(marker)
        if len(behind) > AHEAD:
            behind.popleft().block_until_ready()
        told.flush(ready_only=True)
        last, stopping_now = done == config.steps, stop.agreed(done)
        judging = judge is not None and judge.due(done, last)
        saving = last or stopping_now or done % config.checkpoint.every == 0
        if done % config.log.every == 0 or judging or saving:
            told.hand_over(done, tally)
            tally = program.new_tally()
        if not (judging or saving):
            continue
        # From here on the host waits: what is measured and saved must be sound.
        told.flush()
        with told.pause():
            score = judge.look(done, state, last) if judge and judging else None
            if saving or (score is not None and saved.is_best(score)):
                if not bool(jax.device_get(program.all_finite(state))):
                    raise reports.diverged(done, "a parameter", told.last_saved)
                saved.save(done, state, score)
                told.last_saved = done
        if stopping_now and not last:
            saved.wait()
            progress.note(
                f"stopped by {stop.name} after step {done}, which is saved; the same "
                "command goes on from there"
            )
            return stop.exit_code
    saved.wait()
    return 0


def _check_unchanged(config: Config, workdir: Path) -> None:
    old = checkpoints.read_config(workdir)
    changed = configs.differences(old, config) if old else []
    if changed:
        raise InputError(
            f"{workdir} holds a run with another configuration ({'; '.join(changed)}); "
            "choose another --workdir, or add --allow-config-change"
        )


def _validation_pictures(config: Config) -> np.ndarray | None:
    data = config.data
    if not data.validation or not (config.eval.every or config.log.samples_every):
        return None
    validation = sources.open_source(data.validation, data.tfds_dir)
    return loader.validation(validation, data, config.eval.images)


@contextlib.contextmanager
def _owned(workdir: Path) -> Iterator[None]:
    """Makes the folder, and keeps a second run out of it while the block runs."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"--workdir {workdir} cannot be written: {error.strerror}"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some file systems know no locks; only a taken one is a reason to stop.
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise InputError(
                    f"another run is writing in {workdir}; stop it, or choose another "
                    "--workdir"
                ) from error
        yield


def _headlines(
    program: programs.Program, count: int, pictures: np.ndarray | None, done: int
) -> list[str]:
    config, devices = program.config, program.mesh.devices.flatten()
    sizes = programs.networks(program.state)
    shape = "x".join(str(n) for n in program.images.shape)
    size = config.data.image_size
    lines = [
        f"{len(devices)} {devices[0].device_kind} "
        f"({jax.process_count()} process{'es' * (jax.process_count() > 1)}); "
        f"{config.method}; batch {shape} uint8, seen at {size}x{size}; "
        + ", ".join(f"{name} {n:,}" for name, n in sizes.items())
        + " parameters",
        f"{count} training pictures"
        + (f", {len(pictures)} for validation" if pictures is not None else ""),
    ]
    if done:
        lines.append(f"going on after step {done} of {config.steps}")
    return lines


def _state(program: programs.Program, saved: checkpoints.Checkpoints, done: int) -> Any:
    if done:
        return saved.restore(done, program.state)
    if program.config.init_from:
        return programs.state_from(program, program.config.init_from)
    return program.initialize()


def _compile(
    program: programs.Program, progress: "Progress"
) -> tuple[jax.stages.Compiled, float]:
    """Returns the compiled step and its FLOPs."""
    progress.note("compiling...")
    start = time.perf_counter()
    lowered = programs.lower(program)
    compiled = lowered.compile()
    progress.note(f"compiled in {time.perf_counter() - start:.1f} s")
    return compiled, programs.step_flops(program, lowered)
