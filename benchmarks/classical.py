"""Classical methods against their peers: quality and time on one set of cases.

    pip install -e '.[bench]'
    python benchmarks/classical.py FOLDER --output docs/classical_results.md

FOLDER holds `images/NAME_SIZE.png` and `masks/KIND_SIZE.png` (white = hole); each image
is paired with each mask of its size. Every program is given the image with a black
hole. Times are medians of warm calls, taken in turn in one run, so that ratios hold on
a noisy machine; compilation is reported apart. Hole PSNR (peak 255), hole SSIM (mean
over the hole of the Gaussian-window SSIM map), hole L1 (of 1), means over the images.
"""

import argparse
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import sparse
from scipy.sparse.linalg import splu

import jaxpaint

KINDS = ["text", "scratch", "freeform25", "box25", "box50"]
OURS = [
    "auto",
    "iterated_denoising",
    "harmonic",
    "biharmonic",
    "total_variation",
    "bertalmio",
    "patchmatch",
]
# The peer that each of our methods is timed against.
RIVAL = {
    "auto": "OpenCV FSR fast",
    "iterated_denoising": "OpenCV FSR fast",
    "harmonic": "scipy sparse LU",
    "biharmonic": "scikit-image biharmonic",
    "total_variation": "scikit-image biharmonic",
    "bertalmio": "scikit-image biharmonic",
    "patchmatch": "PyPatchMatch",
}
Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]


def ours(name: str) -> Fill:
    return lambda image, hole: jaxpaint.inpaint(image, hole, name)


def sparse_lu(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Solves the same Laplace equation as `harmonic` by one sparse factorisation."""
    height, width = hole.shape
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(hole.sum())
    rows, cols = np.nonzero(hole)
    degree, right = np.zeros(len(rows)), np.zeros((len(rows), 3))
    entries = []
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        y, x = rows + dy, cols + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        degree += inside
        i = np.nonzero(inside)[0]
        j = number[y[i], x[i]]
        known = j < 0
        right[i[known]] += image[y[i[known]], x[i[known]]]
        entries.append((i[~known], j[~known]))
    i, j = (np.concatenate(part) for part in zip(*entries, strict=True))
    matrix = sparse.csc_array((-np.ones(len(i)), (i, j)), shape=(len(rows),) * 2)
    matrix += sparse.diags_array(degree, format="csc")
    out = image.copy()
    out[hole] = np.round(splu(matrix.tocsc()).solve(right))
    return out


def peers() -> dict[str, Fill]:
    import cv2  # pyright: ignore[reportMissingImports]
    from patchmatch import patch_match  # pyright: ignore[reportMissingImports]
    from skimage.restoration import inpaint_biharmonic

    def biharmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        # scikit-image 0.26 fails now and then beside numpy 2.4 with indices out of
        # bounds, on input that it takes at the next call.
        for _ in range(5):
            try:
                fill = inpaint_biharmonic(image / 255, hole, channel_axis=-1)
                return np.round(fill * 255).astype(np.uint8)
            except ValueError:
                continue
        raise RuntimeError("scikit-image failed five times on one case")

    def opencv(flag: int) -> Fill:
        return lambda image, hole: cv2.inpaint(image, hole.astype(np.uint8), 3, flag)

    def fsr(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        out = np.zeros_like(image)
        known = np.where(hole, 0, 255).astype(np.uint8)
        cv2.xphoto.inpaint(image, known, out, cv2.xphoto.INPAINT_FSR_FAST)
        return out

    # The radius of the patch: 3 is 7 x 7.
    patch_match.set_random_seed(0)
    return {
        "OpenCV Telea": opencv(cv2.INPAINT_TELEA),
        "OpenCV NS": opencv(cv2.INPAINT_NS),
        "scikit-image biharmonic": biharmonic,
        "OpenCV FSR fast": fsr,
        "PyPatchMatch": lambda image, hole: patch_match.inpaint(
            image, hole.astype(np.uint8), patch_size=3
        ),
        "scipy sparse LU": sparse_lu,
    }


def score(truth: np.ndarray, fill: np.ndarray, hole: np.ndarray) -> list[float]:
    """Returns hole PSNR, SSIM and L1 with the known pixels put back."""
    from skimage.metrics import structural_similarity

    fill = np.where(hole[..., None], fill, truth)
    difference = (fill.astype(float) - truth)[hole]
    similarity = structural_similarity(
        truth,
        fill,
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1]
    return [
        10 * np.log10(255**2 / np.mean(difference**2)),
        similarity[hole].mean(),
        np.abs(difference).mean() / 255,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Classical methods and peers")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--methods", nargs="+", default=OURS)
    parser.add_argument("--peers", nargs="*", default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    rivals = peers()
    if args.peers is not None:
        rivals = {name: rivals[name] for name in args.peers}
    fills = {name: ours(name) for name in args.methods} | rivals
    lines = [
        f"jaxpaint {jaxpaint.__version__}, jax {version('jax')}, "
        f"opencv {version('opencv-contrib-python-headless')}, "
        f"scikit-image {version('scikit-image')}, scipy {version('scipy')}, "
        f"PyPatchMatch {version('PyPatchMatch')}, Python {platform.python_version()}, "
        f"{platform.machine()}; {args.repeats} warm calls a case, one for FSR.",
        "",
    ]
    for size in args.sizes:
        images = {
            path.stem: read(path)
            for path in sorted(args.folder.glob(f"images/*_{size}.png"))
        }
        quality: dict[str, dict[str, list]] = {name: {} for name in fills}
        seconds: dict[str, dict[str, list]] = {name: {} for name in fills}
        for kind in args.kinds:
            hole = np.asarray(Image.open(args.folder / f"masks/{kind}_{size}.png")) > 0
            for stem, truth in images.items():
                given = np.where(hole[..., None], 0, truth).astype(np.uint8)
                times: dict[str, list[float]] = {name: [] for name in fills}
                for name in args.methods:
                    fills[name](given, hole)
                for repeat in range(args.repeats):
                    for name, fill in fills.items():
                        if repeat and name == "OpenCV FSR fast":
                            continue
                        start = time.perf_counter()
                        result = fill(given.copy(), hole)
                        times[name].append(time.perf_counter() - start)
                        if not repeat:
                            row = score(truth, result, hole)
                            quality[name].setdefault(kind, []).append(row)
                for name, measured in times.items():
                    median = statistics.median(measured)
                    seconds[name].setdefault(kind, []).append(median)
                print(size, kind, stem, "done", file=sys.stderr, flush=True)
        lines += tables(size, len(images), args.kinds, quality, seconds)
    text = "\n".join(lines)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def tables(size: int, count: int, kinds: list, quality: dict, seconds: dict) -> list:
    head = ["method", *kinds]
    rule = "| " + " | ".join(["---"] * len(head)) + " |"
    lines = [f"### {size} x {size}, {count} images", ""]
    lines += ["Hole PSNR (dB) / hole SSIM / hole L1:", "", row(head), rule]
    for name, by_kind in quality.items():
        means = [np.mean(by_kind[kind], axis=0) for kind in kinds]
        lines.append(
            row([name, *(f"{p:.2f} / {s:.3f} / {e:.4f}" for p, s, e in means)])
        )
    lines += ["", "Seconds, median of the images:", "", row(head), rule]
    for name, by_kind in seconds.items():
        cells = [f"{statistics.median(by_kind[kind]):.3f}" for kind in kinds]
        lines.append(row([name, *cells]))
    lines += [
        "",
        "Time over that of a peer, median of the images:",
        "",
        row(head),
        rule,
    ]
    for name, rival in RIVAL.items():
        if name in seconds and rival in seconds:
            cells = []
            for kind in kinds:
                pairs = zip(seconds[name][kind], seconds[rival][kind], strict=True)
                cells.append(f"{statistics.median(a / b for a, b in pairs):.2f}")
            lines.append(row([f"{name} / {rival}", *cells]))
    return [*lines, ""]


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="jaxpaint")
    main()
