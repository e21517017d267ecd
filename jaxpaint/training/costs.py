"""What a step costs, and what the devices could do: FLOPs and memory."""

import time

import jax
import jax.numpy as jnp

_PEAKS = {
    "TPU v2": 45e12,
    "TPU v3": 123e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA V100": 125e12,
}
"""Dense bfloat16 (V100: float16) matrix multiplication, FLOP/s of one device, as the
makers state it."""


def peak_flops() -> float:
    """Returns the FLOP/s that all devices could do at most.

    For a device that is not in the table a matrix multiplication is timed.
    """
    kind = jax.devices()[0].device_kind
    # The longest name that fits: "TPU v5" would also fit a "TPU v5 lite".
    names = [name for name in _PEAKS if kind.startswith(name)]
    if names:
        return _PEAKS[max(names, key=len)] * jax.device_count()
    if jax.default_backend() == "cpu":
        # Simulated devices share the cores of the machine.
        return measured_flops() * jax.process_count()
    return measured_flops() * jax.device_count()


def measured_flops(side: int = 1024, repeats: int = 8) -> float:
    """Returns the FLOP/s of a float32 matrix multiplication on one device."""
    x = jax.jit(lambda: jnp.ones((side, side)))()
    multiply = jax.jit(lambda a: a @ a * (1 / side))
    multiply(x).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        multiply(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def flops(lowered: jax.stages.Lowered) -> float:
    """Returns the FLOPs of a program as the compiler counts them; 0 if it does not.

    Over all devices. The body of a loop is counted once.
    """
    costs = lowered.cost_analysis()
    return float((costs or {}).get("flops", 0.0)) if isinstance(costs, dict) else 0.0


def memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Returns bytes per device: `arguments`, `outputs`, `shared` by both, `temporary`.

    Empty where the compiler does not tell.
    """
    found = compiled.memory_analysis()
    if found is None:
        return {}
    return {
        "arguments": found.argument_size_in_bytes,
        "outputs": found.output_size_in_bytes,
        "shared": found.alias_size_in_bytes,
        "temporary": found.temp_size_in_bytes,
    }
