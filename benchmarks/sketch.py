"""How well the lines of a sketch lead a guided method.

    python benchmarks/sketch.py --checkpoint RUN --data photos/test

The edges of each photo inside its hole are the sketch; the hole is filled with and
without it. For the pixels of the lines: the distance to the nearest edge of the result,
in pixels, and the share that has one within a pixel, diagonals included. For the edges
of the result inside the hole: the distance to the nearest line. Edges by the same
detector for all; where a picture has no edge at all, the distance counts as the longer
side of the hole.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage

from jaxpaint import edges, images, methods, weights
from jaxpaint.contact_sheet import contact_sheet
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
    image = jnp.asarray(images.to_float(found.pixels))
    mask = jnp.asarray(holes[..., None], jnp.float32)
    detect = jax.jit(edges.canny)
    sketch = detect(image) * mask
    fill, key = jax.jit(method.guided), jax.random.key(0)
    hidden = image * (1 - mask)
    results = {
        "with": fill(loaded.params, hidden, mask, sketch, key),
        "without": fill(loaded.params, hidden, mask, jnp.zeros_like(sketch), key),
    }
    lines = np.asarray(sketch[..., 0] > 0)
    for name, result in results.items():
        drawn = np.asarray(detect(result)[..., 0] > 0)
        row = scores(lines, drawn, holes) | {"sketch": name, "masks": args.masks}
        print(json.dumps(row))
    if args.picture:
        drawn_on = jnp.where(mask > 0, 2 * sketch - 1, image)
        show(args.picture, {"photo": image, "lines": drawn_on} | results)


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
    if not others.any():
        return np.full(points.sum(), far)
    distance = np.asarray(ndimage.distance_transform_edt(~others))
    return np.minimum(distance[points], far)


def show(path: Path, columns: dict[str, jax.Array]) -> None:
    """Writes six pictures of each column, row by row."""
    pictures = [
        (title, images.to_uint8(np.asarray(column)[row]))
        for row in range(min(6, len(columns["photo"])))
        for title, column in columns.items()
    ]
    Image.fromarray(contact_sheet(pictures, len(columns))).save(path)


if __name__ == "__main__":
    main()
