"""How well the lines of a sketch lead a guided method.

    python benchmarks/sketch.py --checkpoint RUN --data photos/test

The edges of each photo inside its hole are the sketch; the hole is filled with and
without it. For the pixels of the lines: the distance to the nearest edge of the result,
in pixels, and the share that has one within a pixel. For the edges of the result inside
the hole: the distance to the nearest line. Edges by the same detector for all; where a
picture has no edge at all, the distance counts as the longer side of the hole.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint import edges, methods, weights
from jaxpaint.evaluation import squares


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--masks", default="center")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="PNG of some of the pictures")
    args = parser.parse_args()

    loaded = weights.load(args.checkpoint)
    method = methods.make(loaded.method, **loaded.options)
    if method.guided is None:
        parser.error(f"{args.checkpoint} holds {loaded.method}, which takes no sketch")
    found = squares.read(args.data, loaded.image_size, args.limit)
    holes = squares.holes(found, squares.kind(args.masks), 0)
    image = jnp.asarray(found.pixels, jnp.float32) / 127.5 - 1
    mask = jnp.asarray(holes, jnp.float32).reshape(*image.shape[:3], 1)
    detect = jax.jit(edges.canny)
    sketch = detect(image) * mask
    fill, key = jax.jit(method.guided), jax.random.key(0)
    hidden = image * (1 - mask)
    results = {
        "with": fill(loaded.params, hidden, mask, sketch, key),
        "without": fill(loaded.params, hidden, mask, jnp.zeros_like(sketch), key),
    }
    lines, inside = np.asarray(sketch[..., 0] > 0), np.asarray(mask[..., 0] > 0)
    for name, result in results.items():
        drawn = np.asarray(detect(result)[..., 0] > 0)
        row = scores(lines, drawn, inside) | {"sketch": name, "masks": args.masks}
        print(json.dumps(row))
    if args.picture:
        show(args.picture, image, mask, sketch, results)


def scores(lines: np.ndarray, drawn: np.ndarray, inside: np.ndarray) -> dict:
    """Returns means over the pictures whose hole has lines."""
    there, back, near, pictures = [], [], [], 0
    for line, edge, hole in zip(lines, drawn, inside, strict=True):
        if not line.any():
            continue
        pictures += 1
        far = float(max(np.ptp(axis) + 1 for axis in np.nonzero(hole)))
        to_edge = distances(line, edge, far)
        there.append(to_edge.mean())
        near.append((to_edge <= np.sqrt(2)).mean())
        if (edge & hole).any():
            back.append(distances(edge & hole, line, far).mean())
    return {
        "pictures": pictures,
        "line_to_edge_px": round(float(np.mean(there)), 3),
        "lines_met": round(float(np.mean(near)), 3),
        "edge_to_line_px": round(float(np.mean(back)), 3),
    }


def distances(points: np.ndarray, others: np.ndarray, far: float) -> np.ndarray:
    """Returns for each point of one map the distance to the nearest of the other."""
    a, b = np.argwhere(points), np.argwhere(others)
    if not len(b):
        return np.full(len(a), far)
    squared = ((a[:, None] - b[None]) ** 2).sum(-1).min(1)
    return np.minimum(np.sqrt(squared), far)


def show(path: Path, image, mask, sketch, results) -> None:
    """Writes truth, hole with lines, result without and with them, for six pictures."""
    from PIL import Image

    lines = jnp.where(mask > 0, 2 * sketch - 1, image)
    columns = [image, lines, results["without"], results["with"]]
    rows = np.concatenate([np.concatenate(list(c[:6]), axis=0) for c in columns], 1)
    pixels = np.round((np.clip(rows, -1, 1) + 1) * 127.5).astype(np.uint8)
    Image.fromarray(pixels).resize((pixels.shape[1] * 3, pixels.shape[0] * 3)).save(
        path
    )


if __name__ == "__main__":
    main()
