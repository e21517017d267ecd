"""DeepFill v2 beside PyTorch: inference, training step, and its attention alone.

    pip install -e '.[bench]'
    python benchmarks/gan.py --what inference --size 256
    python benchmarks/gan.py --what training --size 256 --batch 2 --calls 3
    python benchmarks/gan.py --what attention --size 512

`inference` and `training` have the same weights in both, at release width, whose
outputs are compared first; PyTorch runs eagerly, in its own layout and in
`channels_last`, and the faster of the two counts. `attention` sets contextual attention
in chunks beside the form that holds all scores at once. All run in turn in one process:
only ratios hold on a shared machine. With `--calls 3` each round has three calls in a
row, as training has: the first one behind the other library's has to get its memory
back from it. On a machine that is busy `--one-core` gives the fairer figures: processor
time on a single core, in which waiting does not count.
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

from jaxpaint import methods
from jaxpaint.config import Compute, Optim
from jaxpaint.layers import contextual_attention as attention
from jaxpaint.methods._deepfill_v2_networks import Generator

Calls = dict[str, Callable[[], object]]

OURS = "jaxpaint"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--what", choices=["inference", "training", "attention"], required=True
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--calls", type=int, default=1, help="in a row, timed together")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one-core", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()

    clock = time.perf_counter
    if args.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        clock, args.device = time.process_time, "cpu"
    if args.device != "auto":
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(args.device, "cpu"))
    kinds = {"inference": inference, "training": training, "attention": chunks}
    calls, about = kinds[args.what](args)

    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for i in range(args.rounds):
        for name, call in calls.items():
            start = clock()
            for _ in range(args.calls):
                call()
            seconds[name].append((clock() - start) / args.calls)
        print(f"round {i + 1} of {args.rounds}", file=sys.stderr, flush=True)
    first, *others = calls
    peer = min(others, key=lambda name: statistics.median(seconds[name]))
    ratios = [a / b for a, b in zip(seconds[first], seconds[peer], strict=True)]
    result = {
        "device": f"{jax.devices()[0].device_kind}, {platform.machine()}",
        "versions": {"jax": version("jax")} | about.pop("versions", {}),
        "arguments": {k: v for k, v in vars(args).items() if k != "output"},
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "fastest_seconds": {name: min(times) for name, times in seconds.items()},
        "peer": peer,
        "ratio": statistics.median(ratios),
        "ratio_of_fastest": min(seconds[first]) / min(seconds[peer]),
        **about,
    }
    print(table(result))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


def table(result: dict) -> str:
    given = " ".join(f"{k}={v}" for k, v in result["arguments"].items())
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    lines = [f"{given}; {result['device']}, {versions}", ""]
    lines += ["| | median ms | fastest |", "| --- | --- | --- |"]
    for name, median in result["seconds"].items():
        fastest = result["fastest_seconds"][name]
        lines.append(f"| {name} | {1e3 * median:.1f} | {1e3 * fastest:.1f} |")
    for name in ("difference", "temporary_mib"):
        if name in result:
            lines += ["", f"{name}: {result[name]}"]
    lines += [
        "",
        f"{next(iter(result['seconds']))} / {result['peer']}: {result['ratio']:.2f} "
        f"(median of rounds), {result['ratio_of_fastest']:.2f} (of the fastest)",
    ]
    return "\n".join(lines)


def pictures(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns noise in [-1, 1] and a box of half the sides in the middle."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    mask = np.zeros((batch, size, size, 1), np.float32)
    mask[:, size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
    return image, mask


def peers(args: argparse.Namespace):
    """Returns PyTorch and the twins, set up for the device that jax uses."""
    try:
        import torch
    except ImportError:
        sys.exit("gan.py compares with PyTorch; install it: pip install torch")
    import torch_deepfill

    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("jax has a GPU and PyTorch has none; --device cpu compares on the CPU")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_default_device("cuda" if on_gpu else "cpu")
    torch.manual_seed(0)
    layouts = {
        "PyTorch contiguous": torch.contiguous_format,
        "PyTorch channels_last": torch.channels_last,
    }
    return torch, torch_deepfill, layouts


def inference(args: argparse.Namespace) -> tuple[Calls, dict]:
    torch, twins, layouts = peers(args)
    torch.set_grad_enabled(False)
    image, mask = pictures(args.batch, args.size)
    network = Generator(args.width, dtype=jnp.dtype(args.dtype))
    key = jax.random.key(0)
    variables = jax.jit(network.init)(key, image[:1, :64, :64], mask[:1, :64, :64])
    run = jax.jit(lambda *inputs: network.apply(*inputs)[1])
    inputs = jax.device_put((variables, image, mask))
    calls: Calls = {OURS: lambda: jax.block_until_ready(run(*inputs))}
    ours = np.asarray(run(*inputs))
    about = {"versions": {"torch": version("torch")}}
    for name, layout in layouts.items():
        twin = twins.Generator(args.width)
        twin.load(variables["params"])
        twin = twin.to(memory_format=layout)
        batch = laid_out(torch, (image, mask), layout)

        def call(twin=twin, batch=batch):
            narrow = args.dtype == "bfloat16"
            kind = batch[0].device.type
            with torch.autocast(kind, torch.bfloat16, enabled=narrow):
                refined = twin(*batch)[1]
            if kind == "cuda":
                torch.cuda.synchronize()
            return refined

        calls[name] = call
        theirs = call().permute(0, 2, 3, 1).float().cpu().numpy()
        error = float(np.abs(ours - theirs).max() / theirs.std())
        about["difference"] = f"{error:.1e} of the outputs' deviation"
        if error > (limit := 1e-3 if args.dtype == "float32" else 0.5):
            sys.exit(f"outputs differ by {about['difference']}; want {limit}")
    return calls, about


def training(args: argparse.Namespace) -> tuple[Calls, dict]:
    torch, twins, layouts = peers(args)
    image, mask = pictures(args.batch, args.size)
    method = methods.make(
        "deepfill_v2",
        image_size=args.size,
        width=args.width,
        optim=Optim(lr=1e-4, b1=0.5),
        compute=Compute(dtype=args.dtype),
    )
    key = jax.random.key(0)
    batch = jax.device_put({"image": image, "mask": mask})
    holder = {"state": jax.jit(method.init)(key, batch)}
    assert method.train_step is not None
    step = jax.jit(method.train_step, donate_argnums=0)

    def ours() -> None:
        holder["state"], metrics = step(holder["state"], batch, key)
        jax.block_until_ready((holder["state"], metrics))

    calls: Calls = {OURS: ours}
    for name, layout in layouts.items():
        generator = twins.Generator(args.width).to(memory_format=layout)
        discriminator = twins.Discriminator(64).to(memory_format=layout)
        theirs = twins.training_step(generator, discriminator)
        pair = laid_out(torch, (image, mask), layout)

        def call(theirs=theirs, pair=pair) -> None:
            narrow, kind = args.dtype == "bfloat16", pair[0].device.type
            with torch.autocast(kind, torch.bfloat16, enabled=narrow):
                theirs(*pair)
            if kind == "cuda":
                torch.cuda.synchronize()

        calls[name] = call
    return calls, {"versions": {"torch": version("torch")}}


def chunks(args: argparse.Namespace) -> tuple[Calls, dict]:
    """Attention at a quarter of the sides, in chunks and whole."""
    side, features = args.size // 4, 2 * args.width
    x = jax.random.normal(jax.random.key(0), (args.batch, side, side, features))
    mask = jnp.asarray(pictures(args.batch, side)[1])
    calls: Calls = {}
    memory = {}
    few = attention._FEW_SCORES
    for name, scores in {"in chunks": few, "whole": 1 << 60}.items():
        attention._FEW_SCORES = scores
        # Another function for each, or jit would find the first program.
        run = jax.jit(lambda x, m: attention.contextual_attention(x, x, m).output)
        compiled = run.lower(x, mask).compile()
        found = compiled.memory_analysis()
        memory[name] = round(found.temp_size_in_bytes / 2**20, 1) if found else None
        calls[name] = lambda run=compiled: jax.block_until_ready(run(x, mask))
    attention._FEW_SCORES = few
    return calls, {"temporary_mib": memory}


def laid_out(torch, arrays, layout) -> list:
    device = torch.get_default_device()
    return [
        torch.tensor(x, device=device)
        .permute(0, 3, 1, 2)
        .contiguous(memory_format=layout)
        for x in arrays
    ]


if __name__ == "__main__":
    main()
