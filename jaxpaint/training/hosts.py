"""Several processes, each with its own devices, as one program."""

import jax

from jaxpaint.errors import InputError


def connect(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the other processes of the run; to be called before jax computes anything.

    On TPU pods, Slurm and Open MPI everything is found in the environment and no
    argument is needed; on a single machine without them nothing happens. Elsewhere each
    process is given the address `host:port` of process 0, how many they are, and its
    own number.

    Raises:
      InputError: only some of the three arguments, one out of range, or no answer from
        the coordinator.
    """
    given = (coordinator, num_processes, process_id)
    if all(value is None for value in given):
        _connect_by_environment()
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise InputError(
            "--coordinator, --num-processes and --process-id come together; got "
            + ", ".join(str(value) for value in given if value is not None)
        )
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process-id is {process_id}; want 0 to {num_processes - 1}, below "
            "--num-processes"
        )
    if ":" not in coordinator:
        raise InputError(f"--coordinator is '{coordinator}'; want host:port")
    # Only read by processes that compute on CPUs; gloo is the one that works over TCP.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"no connection to {coordinator}: {line}") from error


def _connect_by_environment() -> None:
    """Connects where a cluster is recognized; a lone machine is left alone."""
    try:
        jax.distributed.initialize()
    except ValueError:  # no cluster: nothing tells who the coordinator is
        return
