"""Images per second that the input pipeline delivers, against what a step consumes.

    python benchmarks/input_pipeline.py --data FOLDER
    python benchmarks/input_pipeline.py --data FOLDER --consumes runs/a/metrics.jsonl

Batches are taken from the loader as fast as it gives them. "Files" decodes every
picture from its file (which the operating system may hold in memory), "array_record"
from a set that is prepared from the folder for this run, "memory" takes the decoded
pictures that the loader keeps. Pictures are scaled and cut to squares; crops, mirroring
and masks are part of the step. In brackets: milliseconds of one core that a picture
takes, which other programs on the machine hardly change.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from jaxpaint.config import Data
from jaxpaint.data.loader import batches
from jaxpaint.data.preparation import prepare
from jaxpaint.data.sources import Source, open_source
from jaxpaint.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of pictures")
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=int, nargs="+", default=[1, cores])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each figure")
    parser.add_argument(
        "--consumes",
        metavar="N|FILE",
        help="images/s of a training step, or the metrics.jsonl of a run",
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            consumes = read_consumption(args.consumes) if args.consumes else None
            files = open_source(args.data)
            prepare(Path(args.data), Path(folder) / "set", "pictures")
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        records = open_source(f"tfds:{folder}/set/train")
        print_table(args, files, records, consumes)
    return 0


def print_table(
    args: argparse.Namespace, files: Source, records: Source, consumes: float | None
) -> None:
    """Prints one row for each load size and number of threads."""
    load = os.getloadavg()[0]
    print(
        f"{len(files)} pictures, batches of {args.batch_size}, {os.cpu_count()} cores, "
        f"load {load:.1f} at the start; images/s\n"
    )
    columns = ["load size", "threads", "files", "array_record", "memory"]
    if consumes:
        columns += ["files / step", "memory / step"]
    print("| " + " | ".join(columns) + " |")
    print("|" + " ---: |" * len(columns))
    for size in args.sizes:
        for workers in sorted(set(args.workers)):
            plain = Data(
                image_size=size,
                batch_size=args.batch_size,
                workers=workers,
                cache_mb=0,
            )
            kept = Data(
                image_size=size,
                batch_size=args.batch_size,
                workers=workers,
                cache_mb=4096,
            )
            rates = [
                measure(files, plain, args.seconds),
                measure(records, plain, args.seconds),
                measure(files, kept, args.seconds, warm=True),
            ]
            cells = [str(size), str(workers)]
            cells += [f"{rate:,.0f} ({cost:.2g})" for rate, cost in rates]
            if consumes:
                cells += [f"{rates[i][0] / consumes:.1f}" for i in (0, 2)]
            print("| " + " | ".join(cells) + " |", flush=True)
    if consumes:
        print(f"\nThe step consumes {consumes:.1f} images/s.")


def measure(
    source: Source, data: Data, seconds: float, warm: bool = False
) -> tuple[float, float]:
    """Returns images/s and milliseconds of a core for each image.

    With `warm`, after an epoch that fills the memory.
    """
    with contextlib.closing(batches(source, data, seed=0)) as stream:
        for _ in range(2 * len(source) // data.batch_size + 1 if warm else 4):
            next(stream)
        count, start, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - start < seconds:
            next(stream)
            count += data.batch_size
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
        return count / elapsed, 1e3 * cpu / count


def read_consumption(text: str) -> float:
    """Returns the number, or the median speed in the metrics of a run.

    Raises:
      InputError: neither a number nor such a file.
    """
    with contextlib.suppress(ValueError):
        return float(text)
    try:
        lines = [json.loads(line) for line in Path(text).read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"--consumes {text} cannot be read ({error})") from None
    speeds = [
        line["speed/images_per_s"] for line in lines if "speed/images_per_s" in line
    ]
    if not speeds:
        raise InputError(f"--consumes {text} has no speed/images_per_s")
    return statistics.median(speeds)


if __name__ == "__main__":
    sys.exit(main())
