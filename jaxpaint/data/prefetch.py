"""Batches on their way to the devices, ahead of the step that needs them."""

import queue
import threading
from collections.abc import Generator

import jax
import numpy as np

from jaxpaint.data.loader import Batches

_POLL = 0.1
"""Seconds after which a thread that waits for room looks whether it is still needed."""


def prefetch(
    batches: Batches, sharding: jax.sharding.Sharding, count: int
) -> Generator[jax.Array, None, None]:
    """Returns the batches as global arrays, of which `count` are kept ready.

    A thread decodes and transfers while the devices compute. All transfers are
    explicit: they pass `jax.transfer_guard("disallow")`.

    `close()` the iterator to end the thread and close `batches`.

    Args:
      batches: the rows of each batch that belong to this process.
      sharding: of the global batch, over all processes.
      count: at least 1.

    Raises:
      Exception: while iterating, whatever `batches` raised.
    """
    # One batch waits in the hands of the thread.
    ready: queue.Queue[jax.Array | Exception | None] = queue.Queue(max(1, count - 1))
    stop = threading.Event()

    def put(item: jax.Array | Exception | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=_POLL)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for rows in batches:
                put(jax.make_array_from_process_local_data(sharding, np.asarray(rows)))
                if stop.is_set():
                    break
            put(None)
        except Exception as error:
            put(error)
        finally:
            batches.close()

    def generate() -> Generator[jax.Array, None, None]:
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    # A daemon: an iterator that nobody closed must not keep the program from ending.
    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    return generate()
