"""How many threads decode pictures."""

import os


def default_threads() -> int:
    """Returns one for each core that this process may use, at most 16."""
    # Under Slurm and in containers that is a part of the machine.
    if hasattr(os, "sched_getaffinity"):
        return min(16, len(os.sched_getaffinity(0)))
    return min(16, os.cpu_count() or 1)
