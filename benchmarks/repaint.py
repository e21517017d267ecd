"""Time of RePaint beside diffusers: a network call, and the whole loop.

    pip install -e '.[bench]'
    python benchmarks/repaint.py --size 32 --batch 1
    python benchmarks/repaint.py --size 64 --batch 8 --levels 20

The same network (diffusers' `UNet2DModel`, random weights, converted from the folder
that diffusers writes) and the same schedule in one process. Outputs are compared first.
Calls of both are timed in turn, then the loops: ours is one compiled scan, that of
diffusers its `RePaintScheduler` around eager calls. The overhead of a loop is its time
over that of its network calls. On a GPU, `--celebahq` times our network of the released
CelebA-HQ model (552,814,086 parameters, random weights) with the paper's schedule.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint import convert
from jaxpaint.diffusion import denoiser, process, resampling, sampler
from jaxpaint.diffusion.repaint import repaint_pasted_after
from jaxpaint.diffusion.resampling import Resampling
from jaxpaint.diffusion.unet import UNet


def main() -> None:
    """Prints the figures as a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--multipliers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--levels", type=int, default=25)
    parser.add_argument("--jump", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--celebahq", action="store_true", help="ours alone, 256 px")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    found = celebahq(args) if args.celebahq else beside_diffusers(args)
    found |= {
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "arguments": {k: v for k, v in vars(args).items() if k != "output"},
        "jax": version("jax"),
    }
    for name, value in found.items():
        print(
            f"{name:34}{value:.5g}" if isinstance(value, float) else f"{name:34}{value}"
        )
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n")


def schedule(args: argparse.Namespace) -> list[int]:
    """Returns the levels that diffusers visits: it steps where it arrives."""
    visited = resampling.levels(args.levels, Resampling(args.jump, args.repeats))
    return [visited[0], *(level - 1 for level in visited[:-1])]


def beside_diffusers(args: argparse.Namespace) -> dict[str, object]:
    """Returns the figures of both."""
    try:
        import torch
        from diffusers import RePaintScheduler, UNet2DModel
    except ImportError:
        sys.exit(
            "repaint.py compares with diffusers; install it: pip install diffusers"
        )
    on_gpu = jax.default_backend() == "gpu"
    torch.set_default_device("cuda" if on_gpu else "cpu")
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    down = ["DownBlock2D"] * len(args.multipliers)
    up = ["UpBlock2D"] * len(args.multipliers)
    down[-2], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    peer = UNet2DModel(
        sample_size=args.size,
        block_out_channels=tuple(args.channels * m for m in args.multipliers),
        layers_per_block=2,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        norm_eps=1e-6,
    ).eval()
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        weights = convert.convert(Path(folder))
    params = jax.device_put(weights.params)
    apply = network(weights.options, args.dtype)
    half = torch.bfloat16 if args.dtype == "bfloat16" else torch.float32
    peer = peer.to(half)

    shape = (args.batch, args.size, args.size, 3)
    generator = np.random.default_rng(0)
    x = generator.standard_normal(shape, np.float32)
    truth = np.tanh(generator.standard_normal(shape, np.float32))
    mask = np.zeros((*shape[:3], 1), np.float32)
    mask[:, args.size // 4 : -args.size // 4, args.size // 4 : -args.size // 4] = 1
    ours = (jnp.asarray(x), jnp.full(args.batch, 500))
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), dtype=half)

    call = jax.jit(apply)
    spaced = process.make("linear", 1000, f"ddim{args.levels}")
    steps = repaint_pasted_after(spaced, resampling.stepwise(schedule(args)), 1.0)
    known = sampler.Known(jnp.asarray(truth), jnp.asarray(mask))

    def loop(params, key):
        denoise = denoiser.of_network(
            lambda x, t: apply(params, x, t), spaced, variance="small"
        )
        return sampler.run(steps, denoise, known, key)

    start = time.perf_counter()
    compiled = jax.jit(loop).lower(params, jax.random.key(0)).compile()
    seconds = time.perf_counter() - start

    def run_theirs(model: Callable) -> torch.Tensor:
        scheduler = RePaintScheduler(eta=1.0)
        scheduler.set_timesteps(args.levels, args.jump, args.repeats)
        image = torch.tensor(truth.transpose(0, 3, 1, 2), dtype=half)
        keep = torch.tensor(1 - mask.transpose(0, 3, 1, 2), dtype=half)
        state, last = theirs, 1000
        for t in scheduler.timesteps:
            if t < last:
                out = model(state, t).sample
                state = scheduler.step(out, t, state, image, keep).prev_sample
            else:
                state = scheduler.undo_step(state, last)
            last = t
        return state

    got = np.asarray(call(params, *ours), np.float32)
    want = peer(theirs, 500).sample.float().cpu().numpy().transpose(0, 2, 3, 1)
    models = {"PyTorch eager": peer}
    if args.compile:
        models["PyTorch compiled"] = torch.compile(peer)
    calls: dict[str, Callable] = {
        "jaxpaint": lambda: jax.block_until_ready(call(params, *ours))
    }
    for name, model in models.items():
        calls[name] = lambda model=model: (model(theirs, 500), synchronize(torch))
    each = timed(calls, args.rounds)
    loops: dict[str, Callable] = {
        "jaxpaint": lambda: jax.block_until_ready(compiled(params, jax.random.key(0)))
    }
    for name, model in models.items():
        loops[name] = lambda model=model: (run_theirs(model), synchronize(torch))
    whole = timed(loops, 3)
    count = steps.network_calls()
    found: dict[str, object] = {
        "parameters": sum(p.size for p in jax.tree.leaves(params)),
        "network calls": count,
        "difference of outputs": float(np.abs(got - want).max() / want.std()),
        "seconds to compile the loop": seconds,
        "torch": version("torch"),
        "diffusers": version("diffusers"),
    }
    for name in calls:
        found[f"ms a call, {name}"] = 1e3 * each[name]
        found[f"ms the loop, {name}"] = 1e3 * whole[name]
        found[f"loop / calls, {name}"] = whole[name] / (count * each[name])
    found["call, ours / eager"] = each["jaxpaint"] / each["PyTorch eager"]
    found["loop, ours / eager"] = whole["jaxpaint"] / whole["PyTorch eager"]
    return found | memory(compiled)


def celebahq(args: argparse.Namespace) -> dict[str, object]:
    """Returns the figures of the released network's shape, with random weights."""
    options = released()
    apply = network(options, args.dtype)
    spaced = process.make("linear", 1000, "250")
    visited = resampling.levels(250, Resampling(10, 10))
    from jaxpaint.diffusion.repaint import repaint

    steps = repaint(spaced, resampling.folded(visited))
    shape = (args.batch, 256, 256, 3)
    known = sampler.Known(jnp.zeros(shape), jnp.ones((*shape[:3], 1)))
    tree = jax.eval_shape(
        lambda: made(options, "float32").init(
            jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jnp.zeros(1, jnp.int32)
        )
    )
    params = jax.jit(
        lambda key: jax.tree.map(
            lambda leaf: 0.02 * jax.random.normal(key, leaf.shape), tree
        )
    )(jax.random.key(0))
    x, t = jnp.zeros(shape), jnp.zeros(args.batch, jnp.int32)
    call = jax.jit(apply)
    each = timed(
        {"jaxpaint": lambda: jax.block_until_ready(call(params, x, t))}, args.rounds
    )["jaxpaint"]

    def loop(params, key):
        denoise = denoiser.of_network(lambda x, t: apply(params, x, t), spaced)
        return sampler.run(steps, denoise, known, key)

    start = time.perf_counter()
    compiled = jax.jit(loop).lower(params, jax.random.key(0)).compile()
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    jax.block_until_ready(compiled(params, jax.random.key(0)))
    whole = time.perf_counter() - start
    count = steps.network_calls()
    return {
        "parameters": sum(p.size for p in jax.tree.leaves(params)),
        "network calls": count,
        "seconds to compile the loop": seconds,
        "ms a call": 1e3 * each,
        "seconds an image": whole / args.batch,
        "loop / calls": whole / (count * each),
        "TFLOP/s": 2.214 * args.batch * count / whole,
    } | memory(compiled)


def released() -> dict[str, object]:
    """Returns the options of the released CelebA-HQ network."""
    return {
        "channels": 256,
        "multipliers": (1, 1, 2, 2, 4, 4),
        "blocks": 2,
        "attention": (8, 16, 32),
        "head_channels": 64,
        "resample_blocks": True,
        "learned_variance": True,
    }


def made(options: dict, dtype: str) -> UNet:
    """Returns the network of the options that `convert` gives."""
    known = set(UNet.__dataclass_fields__)
    fields = {k: v for k, v in options.items() if k in known}
    out = 6 if options.get("learned_variance") else 3
    return UNet(**fields, out_channels=out, dtype=jnp.dtype(dtype))


def network(options: dict, dtype: str) -> Callable:
    """Returns `(params, x, t) -> output`."""
    return made(options, dtype).apply


def synchronize(torch) -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(calls: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Returns median seconds of functions that are called in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for number in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return {name: statistics.median(times) for name, times in seconds.items()}


def memory(compiled) -> dict[str, object]:
    """Returns what our loop needs beside its arguments, and the process at its peak."""
    sizes = compiled.memory_analysis()
    found: dict[str, object] = {
        "MiB, process at its peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        // 1024
    }
    if sizes is not None:
        found["MiB, our loop's temporaries"] = sizes.temp_size_in_bytes >> 20
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        found["MiB, device at its peak"] = stats["peak_bytes_in_use"] >> 20
    return found


if __name__ == "__main__":
    main()
