"""Time of a call of the diffusion U-Net, beside PyTorch's eager call of the same.

    pip install -e '.[bench]'
    python benchmarks/unet.py --batch 1
    python benchmarks/unet.py --batch 4 --calls 5
    python benchmarks/unet.py --batch 4 --one-core
    python benchmarks/unet.py --batch 4 --one-core --gradient

The default network has guided-diffusion's flags for pictures of 64 pixels and 25
million parameters. Weights are PyTorch's, outputs are compared first, and both run in
turn in one process: only ratios hold on a shared machine. PyTorch runs in its own
layout and in `channels_last`, and the faster of the two counts. With `--calls 5` each
output is the next input, ours in one program as in a sampler: beginning a program costs
time, too, since its memory comes fresh from the system. On a machine that is
busy with other work `--one-core` gives the fairer figures: processor time on a single
core, in which waiting does not count.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.convert import repaint

try:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
except ImportError:
    sys.exit("unet.py compares with PyTorch; install it: pip install torch")

import torch_unet

LAYOUTS = {
    "PyTorch contiguous": torch.contiguous_format,
    "PyTorch channels_last": torch.channels_last,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--multipliers", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--attention", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument(
        "--resample-blocks", action=argparse.BooleanOptionalAction, default=True
    )
    parser.add_argument(
        "--gradient",
        action="store_true",
        help="of the mean square of the output, by all parameters, too",
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--calls", type=int, default=1, help="in a row, timed together")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--one-core", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    if args.gradient and args.calls > 1:
        parser.error("--calls is of calls without --gradient")

    clock = time.perf_counter
    if args.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        clock, args.device = time.process_time, "cpu"
    if args.device != "auto":
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(args.device, "cpu"))
    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("jax has a GPU and PyTorch has none; --device cpu compares on the CPU")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_default_device("cuda" if on_gpu else "cpu")
    torch.manual_seed(0)
    torch.set_grad_enabled(args.gradient)

    gflop, parameters, calls, error = both(args)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(2):
            call()
    for i in range(args.rounds):
        for name, call in calls.items():
            start = clock()
            call()
            seconds[name].append((clock() - start) / args.calls)
        print(f"round {i + 1} of {args.rounds}", file=sys.stderr, flush=True)

    peer = min(LAYOUTS, key=lambda name: statistics.median(seconds[name]))
    ratios = [
        ours / theirs
        for ours, theirs in zip(seconds["jaxpaint"], seconds[peer], strict=True)
    ]
    result = {
        "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "versions": {name: version(name) for name in ("jax", "torch")},
        "arguments": {k: v for k, v in vars(args).items() if k != "output"},
        "parameters": parameters,
        "gflop": gflop,
        "difference": error,
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "fastest_seconds": {name: min(times) for name, times in seconds.items()},
        "peer": peer,
        "ratio": statistics.median(ratios),
        "ratio_of_fastest": min(seconds["jaxpaint"]) / min(seconds[peer]),
    }
    print(table(result))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


def table(result: dict) -> str:
    given = " ".join(f"{k}={v}" for k, v in result["arguments"].items())
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    lines = [
        f"{given}; {result['parameters'] / 1e6:.1f} M parameters, "
        f"{result['gflop']:.1f} GFLOP a call; outputs differ by "
        f"{result['difference']:.0e} of their deviation; {result['device']}, "
        f"{versions}",
        "",
        "| | median ms | fastest | GFLOP/s |",
        "| --- | --- | --- | --- |",
    ]
    for name, median in result["seconds"].items():
        fastest = result["fastest_seconds"][name]
        rate = result["gflop"] / fastest
        lines.append(
            f"| {name} | {1e3 * median:.1f} | {1e3 * fastest:.1f} | {rate:.0f} |"
        )
    lines += [
        "",
        f"jaxpaint / {result['peer']}: {result['ratio']:.2f} (median of rounds), "
        f"{result['ratio_of_fastest']:.2f} (of the fastest)",
    ]
    return "\n".join(lines)


def both(
    args: argparse.Namespace,
) -> tuple[float, int, dict[str, Callable[[], object]], float]:
    """Returns GFLOP, parameters, calls by name, and how much the outputs differ."""
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[args.dtype]
    network = torch_unet.UNet(
        args.channels,
        args.blocks,
        tuple(args.multipliers),
        tuple(args.attention),
        args.heads,
        args.resample_blocks,
    ).eval()
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (args.batch, args.size, args.size, 3)).astype(np.float32)
    t = rng.integers(0, 1000, args.batch)

    arrays = {k: v.cpu().numpy() for k, v in network.state_dict().items()}
    converted = repaint.convert(arrays)
    ours = repaint.unet(
        {**converted.options, "heads": args.heads, "head_channels": 0}
    ).clone(dtype=jnp.dtype(args.dtype))
    forward = jax.jit(ours.apply)
    inputs = jax.device_put((converted.params, image, t))

    images = torch.tensor(image).permute(0, 3, 1, 2)
    times = torch.tensor(t)
    whole = forward
    if args.calls > 1:
        whole = jax.jit(
            lambda params, x, t: jax.lax.fori_loop(
                0, args.calls, lambda i, x: ours.apply(params, x, t)[..., :3], x
            )
        )
    if args.gradient:
        whole = jax.jit(jax.grad(lambda *inputs: jnp.mean(ours.apply(*inputs) ** 2)))
    calls: dict[str, Callable[[], object]] = {
        "jaxpaint": lambda: jax.block_until_ready(whole(*inputs))
    }
    for name, layout in LAYOUTS.items():
        # A copy for each layout.
        twin = torch_unet.UNet(
            args.channels,
            args.blocks,
            tuple(args.multipliers),
            tuple(args.attention),
            args.heads,
            args.resample_blocks,
        ).eval()
        twin.load_state_dict(network.state_dict())
        twin = twin.to(memory_format=layout)
        laid = images.contiguous(memory_format=layout)

        def call(twin: torch.nn.Module = twin, x: torch.Tensor = laid) -> torch.Tensor:
            y = x
            with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
                for _ in range(args.calls):
                    y = twin(y[:, :3], times)
            if args.gradient:
                twin.zero_grad()
                y.square().mean().backward()
            if x.device.type == "cuda":
                torch.cuda.synchronize()
            return y

        calls[name] = call
    with FlopCounterMode(display=False) as counter:
        output = network(images, times)
    want = output.detach().permute(0, 2, 3, 1).float().cpu().numpy()
    error = float(np.abs(np.asarray(forward(*inputs)) - want).max() / want.std())
    limit = 1e-3 if args.dtype == "float32" else 0.2
    if error > limit:
        sys.exit(f"outputs differ by {error:.1e} of their deviation; want {limit}")
    parameters = sum(x.size for x in arrays.values())
    return counter.get_total_flops() / 1e9, parameters, calls, error


if __name__ == "__main__":
    main()
