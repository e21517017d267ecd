"""Batches on their way to the devices, ahead of the step that needs them."""

import queue
import threading

import jax
import numpy as np

from jaxpaint.data.loader import Batches

_POLL = 0.1
"""Seconds after which a thread that waits for room looks whether it is still needed."""


class Prefetch:
    """An iterator over batches as global arrays, some of them ready on the devices.

    A thread decodes and transfers while the devices compute, from the construction
    on. All transfers are explicit: they pass `jax.transfer_guard("disallow")`. What
    `batches` raises is raised here.

    A context manager; leaving it, or `close()`, ends the thread and closes `batches`.
    """

    def __init__(
        self, batches: Batches, sharding: jax.sharding.Sharding, count: int = 2
    ):
        """Starts the thread.

        Args:
          batches: the rows of each batch that belong to this process.
          sharding: of the global batch, over all processes.
          count: batches to keep ready, at least 1.
        """
        self._batches = batches
        self._sharding = sharding
        # One more batch waits in the hands of the thread.
        self._ready: queue.Queue[jax.Array] = queue.Queue(max(1, count - 1))
        self._stop = threading.Event()
        self._error: BaseException | None = None
        # A daemon: an iterator that nobody closed must not keep a program from ending.
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> "Prefetch":
        return self

    def __next__(self) -> jax.Array:
        while True:
            try:
                return self._ready.get(timeout=_POLL)
            except queue.Empty:
                if self._thread.is_alive() or not self._ready.empty():
                    continue
            if self._error is not None:
                raise self._error
            raise StopIteration

    def close(self) -> None:
        """Ends the thread; safe to call again."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            for rows in self._batches:
                self._put(
                    jax.make_array_from_process_local_data(
                        self._sharding, np.asarray(rows)
                    )
                )
                if self._stop.is_set():
                    break
        except BaseException as error:
            self._error = error
        finally:
            self._batches.close()

    def _put(self, batch: jax.Array) -> None:
        while not self._stop.is_set():
            try:
                return self._ready.put(batch, timeout=_POLL)
            except queue.Full:
                continue
