"""Time of a training step, beside PyTorch's eager step of the same network and losses.

    pip install -e '.[bench]'
    python benchmarks/train_step.py --method context_encoder --size 128 --batch 16
    python benchmarks/train_step.py --method partial_conv --size 256 --batch 2

Both take the same batch, which lies on the device already, and run in turn in one
process: only ratios hold on a shared machine. PyTorch runs twice, in its own layout
and in `channels_last`, and the faster of the two counts. FLOPs are those of
convolutions and matrix multiplications, counted by PyTorch. The ceilings are measured
in the same rounds. On a machine that is busy with other work `--one-core` gives the
fairer figures: processor time on a single core, in which waiting does not count.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint import methods
from jaxpaint.config import Compute, Optim

try:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
except ImportError:
    sys.exit("train_step.py compares with PyTorch; install it: pip install torch")

import torch_networks

LAYOUTS = {
    "PyTorch contiguous": torch.contiguous_format,
    "PyTorch channels_last": torch.channels_last,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--method", choices=["context_encoder", "partial_conv"], required=True
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--bottleneck", type=int, default=4000)
    parser.add_argument("--levels", type=int, default=0, help="of the U-Net; 0: all")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--one-core", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()

    clock = time.perf_counter
    if args.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        clock, args.device = time.process_time, "cpu"
    if args.device != "auto":
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(args.device, "cpu"))
    args.levels = args.levels or (args.size // 2).bit_length() - 1
    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("jax has a GPU and PyTorch has none; --device cpu compares on the CPU")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_default_device("cuda" if on_gpu else "cpu")
    torch.manual_seed(0)

    image, mask = pictures(args.batch, args.size)
    count, calls = torch_steps(args, image, mask)
    calls = {"jaxpaint": jax_step(args, image, mask), **calls}
    matmul, multiply = matmul_ceiling(args.dtype)
    convolution, convolve = convolution_ceiling(args.dtype)
    calls |= {"matmul": multiply, "convolution": convolve}

    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for name in calls:
        for _ in range(2):
            calls[name]()
    for i in range(args.rounds):
        for name, call in calls.items():
            start = clock()
            call()
            seconds[name].append(clock() - start)
        print(f"round {i + 1} of {args.rounds}", file=sys.stderr, flush=True)

    peer = min(LAYOUTS, key=lambda name: statistics.median(seconds[name]))
    ratios = [
        ours / theirs
        for ours, theirs in zip(seconds["jaxpaint"], seconds[peer], strict=True)
    ]
    work = {name: count for name in ("jaxpaint", *LAYOUTS)}
    work |= {"matmul": matmul, "convolution": convolution}
    result = {
        "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "versions": {name: version(name) for name in ("jax", "torch")},
        "arguments": {k: v for k, v in vars(args).items() if k != "output"},
        "gflop": count / 1e9,
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "fastest_seconds": {name: min(times) for name, times in seconds.items()},
        "peer": peer,
        "ratio": statistics.median(ratios),
        "ratio_of_fastest": min(seconds["jaxpaint"]) / min(seconds[peer]),
    }
    print(table(result, work, args.batch))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


def table(result: dict, work: dict[str, float], batch: int) -> str:
    given = " ".join(f"{k}={v}" for k, v in result["arguments"].items())
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    lines = [
        f"{given}; {result['gflop']:.1f} GFLOP a step; {result['device']}, {versions}",
        "",
        "| | median ms | fastest | images/s | GFLOP/s | of matmul | of convolution |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rate = {name: work[name] / result["fastest_seconds"][name] / 1e9 for name in work}
    for name, median in result["seconds"].items():
        fastest = result["fastest_seconds"][name]
        images = "" if name in ("matmul", "convolution") else f"{batch / median:.1f}"
        shares = [rate[name] / rate[top] for top in ("matmul", "convolution")]
        lines.append(
            f"| {name} | {1e3 * median:.1f} | {1e3 * fastest:.1f} | {images} "
            f"| {rate[name]:.0f} | {shares[0]:.2f} | {shares[1]:.2f} |"
        )
    lines += [
        "",
        f"jaxpaint / {result['peer']}: {result['ratio']:.2f} (median of rounds), "
        f"{result['ratio_of_fastest']:.2f} (of the fastest)",
    ]
    return "\n".join(lines)


def pictures(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns smooth noise in [-1, 1] and boxes of a quarter of the area."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(-1, 1, (batch, 8, 8, 3)).astype(np.float32)
    image = np.asarray(jax.image.resize(coarse, (batch, size, size, 3), "linear"))
    mask = np.zeros((batch, size, size, 1), np.float32)
    for row, (top, left) in zip(
        mask, rng.integers(0, size // 2, (batch, 2)), strict=True
    ):
        row[top : top + size // 2, left : left + size // 2] = 1
    return image, mask


def jax_step(
    args: argparse.Namespace, image: np.ndarray, mask: np.ndarray
) -> Callable[[], object]:
    compute = Compute(dtype=args.dtype)
    if args.method == "context_encoder":
        method = methods.make(
            "context_encoder",
            image_size=args.size,
            encoder_width=args.width,
            decoder_width=args.width,
            discriminator_width=args.width,
            bottleneck=args.bottleneck,
            optim=Optim(b1=0.5),
            compute=compute,
        )
    else:
        method = methods.make(
            "partial_conv",
            levels=args.levels,
            width=args.width,
            perceptual=0,
            style=0,
            optim=Optim(),
            compute=compute,
        )
    batch = jax.device_put({"image": image, "mask": mask})
    key = jax.random.key(0)
    holder = {"state": jax.jit(method.init)(key, batch)}
    assert method.train_step is not None
    step = jax.jit(method.train_step, donate_argnums=0)

    def call() -> None:
        holder["state"], metrics = step(holder["state"], batch, key)
        jax.block_until_ready((holder["state"], metrics))

    return call


def torch_steps(
    args: argparse.Namespace, image: np.ndarray, mask: np.ndarray
) -> tuple[int, dict[str, Callable[[], object]]]:
    """Returns the FLOPs of a step and the step in both layouts."""
    device = torch.get_default_device()
    flops, calls = 0, {}
    for name, layout in LAYOUTS.items():
        if args.method == "context_encoder":
            step = torch_networks.context_encoder(
                args.size, args.width, args.bottleneck, layout
            )
        else:
            step = torch_networks.partial_conv(args.levels, args.width, layout)
        batch = [
            torch.tensor(x, device=device)
            .permute(0, 3, 1, 2)
            .contiguous(memory_format=layout)
            for x in (image, mask)
        ]

        def call(step: torch_networks.Step = step, batch: list = batch) -> None:
            narrow = args.dtype == "bfloat16"
            with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
                step(*batch)
            if device.type == "cuda":
                torch.cuda.synchronize()

        if not flops:
            with FlopCounterMode(display=False) as counter:
                call()
            flops = counter.get_total_flops()
        calls[name] = call
    return flops, calls


def matmul_ceiling(dtype: str, side: int = 2048) -> tuple[float, Callable]:
    x = jnp.ones((side, side), dtype)
    multiply = jax.jit(jnp.matmul)
    return 2 * side**3, lambda: multiply(x, x).block_until_ready()


def convolution_ceiling(dtype: str) -> tuple[float, Callable]:
    """The compiler's own 3 x 3 convolution, 16 maps of 64 x 64, 128 features."""
    x, kernel = jnp.ones((16, 64, 64, 128), dtype), jnp.ones((3, 3, 128, 128), dtype)
    convolve = jax.jit(
        partial(
            jax.lax.conv_general_dilated,
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    )
    return 2 * x.size * kernel.size / 128, lambda: convolve(
        x, kernel
    ).block_until_ready()


if __name__ == "__main__":
    main()
