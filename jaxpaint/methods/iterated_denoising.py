"""Iterated denoising: fills thin holes by thresholding the image's block transforms.

A smooth fill of the hole is regarded as the image plus noise that lives in the hole
only. Each pass tiles the image with square blocks, keeps the large DCT coefficients of
every block that touches the hole, and moves the hole towards the result; the threshold
falls from pass to pass, so that strong structure is continued first and faint texture
last. Every pass places its tiling elsewhere.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.errors import InputError
from jaxpaint.images import compose
from jaxpaint.types import Method, Window, classical

CHUNK = 16384
"""Pixels transformed at once: enough for a matrix product, few enough for the cache."""

SWEEPS = 10
"""Jacobi sweeps per pyramid level of the smooth fill."""

OUTSIDE = 1 << 20
"""A block position beyond any image, whose scatter is dropped."""


class Stage(NamedTuple):
    """Passes with one block size."""

    block: int
    """Side of the blocks in pixels."""

    thresholds: tuple[float, float]
    """Threshold of the first and the last pass, on an orthonormal DCT's coefficients.

    In units of the [-1, 1] range; geometric in between.
    """

    relaxation: float
    """Share of the way to the denoised block that a pass moves the hole."""

    passes: float
    """Passes, relative to the method's option `passes`."""


STAGES = (
    Stage(32, (200 / 127.5, 20 / 127.5), 1.0, 0.75),
    Stage(16, (30 / 127.5, 4 / 127.5), 0.7, 1.0),
    Stage(8, (12 / 127.5, 2 / 127.5), 0.5, 1.0),
)
"""Large blocks find long edges and regular texture, small ones the detail."""


def make(*, passes: int = 40) -> Method:
    """Returns iterated denoising with block DCTs: sharp fills of thin holes.

    For text, scratches and strokes up to about 15 pixels wide; in wider holes it fades
    to a smooth fill. Deterministic: the key is not used.

    Args:
      passes: passes per block size; more find more texture, time grows in proportion.

    Raises:
      InputError: `passes` is less than 1.

    Source: Guleryuz, Nonlinear approximation based image recovery using adaptive
    sparse reconstructions and iterated denoising, IEEE Trans. Image Processing 15
    (2006): denoising with a falling hard threshold, repeated with the known pixels put
    back. Deviations: in place of the mean over all shifts of the transform, each pass
    takes one shift (cycle spinning, Coifman and Donoho 1995, spread over the passes)
    and relaxes towards it; the shifts follow a low-discrepancy sequence; block sizes
    go from large to small; channels are kept or dropped together.
    """
    if passes < 1:
        raise InputError(f"passes is {passes}; want 1 or more; the default is 40")

    def inpaint(image: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
        del key
        return compose(image, _fill_batch(image, mask, passes), mask)

    return classical(inpaint, Window(margin=32, splits=True))


# Jitted so that eager calls, too, compile once and not at every call.
@partial(jax.jit, static_argnames="passes")
def _fill_batch(image: jax.Array, mask: jax.Array, passes: int) -> jax.Array:
    def fill_one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        image, hole = pair
        known = jnp.where(hole, 0.0, image)
        x = smooth_fill(known, jnp.logical_not(hole).astype(known.dtype))
        x = jnp.moveaxis(x, -1, 0)
        done = 0
        for stage in STAGES:
            count = max(1, round(passes * stage.passes))
            x = run_stage(x, hole[..., 0], stage, count, done)
            done += count
        return jnp.clip(jnp.moveaxis(x, 0, -1), -1.0, 1.0)

    # One after another: the list of blocks has a length of its own in each image.
    return jax.lax.map(fill_one, (image, mask > 0.5))


def smooth_fill(image: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns `image` `[H, W, C]` with its pixels of `weight` 0 filled smoothly.

    `weight` is `[H, W, 1]` in [0, 1], how far a pixel is known. A pyramid of averages
    fills from coarse to fine; on each level Jacobi sweeps for Laplace's equation on the
    hole smooth the steps of the coarser one (cascadic multigrid, Bornemann and
    Deuflhard 1996). With nothing known the fill is 0.
    """
    height, width, channels = image.shape
    if max(height, width) == 1:
        return image * weight
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    pooled = jnp.pad(jnp.concatenate([image * weight, weight], axis=-1), pad)
    pooled = pooled.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, -1).sum((1, 3))
    coarse_weight = pooled[..., channels:]
    coarse = pooled[..., :channels] / jnp.maximum(coarse_weight, 1e-6)
    coarse = smooth_fill(coarse, jnp.minimum(coarse_weight, 1.0))
    fine = jnp.repeat(jnp.repeat(coarse, 2, axis=0), 2, axis=1)[:height, :width]
    fine = weight * image + (1 - weight) * fine

    def sweep(_: int, u: jax.Array) -> jax.Array:
        p = jnp.pad(u, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]) / 4
        return jnp.where(weight < 1, mean, u)

    return jax.lax.fori_loop(0, SWEEPS, sweep, fine)


def run_stage(
    x: jax.Array, hole: jax.Array, stage: Stage, passes: int, done: int
) -> jax.Array:
    """Returns `x` `[C, H, W]` after the `passes` of one stage on `hole` `[H, W]`.

    `done` passes came before: the sequence of shifts goes on behind them.
    """
    _, height, width = x.shape
    block = stage.block
    rows, columns = -(-height // block) + 1, -(-width // block) + 1
    # A margin of one block, so that a tiling shifted by 0 to block - 1 covers all.
    row, column = _mirrored(height, rows, block), _mirrored(width, columns, block)
    canvas = x[:, row][:, :, column]
    movable = hole[row][:, column][None].astype(x.dtype)
    holes_above_left = jnp.pad(
        hole.astype(jnp.int32),
        ((block + 1, rows * block - height), (block + 1, columns * block - width)),
    )
    holes_above_left = holes_above_left.cumsum(0).cumsum(1)
    grid = block * jnp.stack(
        jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij"), axis=-1
    )
    grid = grid.reshape(-1, 2)
    count = rows * columns
    chunk = min(max(CHUNK // block**2, 32), count)

    def step(canvas: jax.Array, setting: tuple[jax.Array, jax.Array]):
        shift, threshold = setting
        corner = grid + shift[None]
        top, left = corner[:, 0], corner[:, 1]
        bottom, right = top + block, left + block
        touched = (
            holes_above_left[bottom, right]
            - holes_above_left[top, right]
            - holes_above_left[bottom, left]
            + holes_above_left[top, left]
        ) > 0
        active = jnp.nonzero(touched, size=count, fill_value=count)[0]
        active = jnp.pad(active, (0, chunk), constant_values=count)
        corner = jnp.concatenate([corner, jnp.full((1, 2), OUTSIDE)])

        def denoise_chunk(i: jax.Array, canvas: jax.Array) -> jax.Array:
            index = jax.lax.dynamic_slice(active, (i * chunk,), (chunk,))
            at = corner[index]
            patch = _gather(canvas, at, block)
            target = denoise(patch, threshold)
            step_size = stage.relaxation * _gather(movable, at, block)
            return _scatter(canvas, at, patch + step_size * (target - patch))

        chunks = (touched.sum() + chunk - 1) // chunk
        return jax.lax.fori_loop(0, chunks, denoise_chunk, canvas), None

    settings = (
        jnp.asarray(shifts(done, passes, block)),
        jnp.geomspace(*stage.thresholds, passes, dtype=x.dtype),
    )
    canvas = jax.lax.scan(step, canvas, settings)[0]
    filled = canvas[:, block : block + height, block : block + width]
    return jnp.where(hole[None], filled, x)


def denoise(patch: jax.Array, threshold: jax.Array) -> jax.Array:
    """Returns patches `[N, C, P, P]` without their small DCT coefficients.

    A frequency is kept in all channels or in none, by the root mean square of its
    coefficients over the channels, which no rotation of the colours changes; the mean
    is always kept.
    """
    basis = dct_basis(patch.shape[-1])
    # The swap spares a product from the left, and leaves the coefficients transposed.
    coefficient = jnp.swapaxes(patch @ basis.T, 2, 3) @ basis.T
    energy = jnp.mean(jnp.square(coefficient), axis=1, keepdims=True)
    keep = (energy > threshold**2).at[:, :, 0, 0].set(True)
    return jnp.swapaxes((coefficient * keep) @ basis, 2, 3) @ basis


def dct_basis(size: int) -> jax.Array:
    """Returns the orthonormal DCT-II of `size` points; basis functions in the rows."""
    frequency, sample = np.arange(size)[:, None], np.arange(size)[None]
    basis = np.cos(np.pi * (2 * sample + 1) * frequency / (2 * size))
    basis *= np.sqrt(2 / size)
    basis[0] /= np.sqrt(2)
    return jnp.asarray(basis, jnp.float32)


def shifts(start: int, count: int, block: int) -> np.ndarray:
    """Returns `[count, 2]` offsets in [0, block), evenly spread in every short run.

    An additive recurrence with the powers of 1/g, g^3 = g + 1 (Roberts 2018, R2).
    """
    powers = np.array([0.7548776662466927, 0.5698402909980532])
    points = (0.5 + np.arange(start, start + count)[:, None] * powers) % 1
    return (points * block).astype(np.int32)


def _mirrored(size: int, blocks: int, block: int) -> np.ndarray:
    """Source indices of a side of `blocks` + 1 blocks, the image one block in."""
    index = np.arange(-block, blocks * block) % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def _gather(canvas: jax.Array, at: jax.Array, block: int) -> jax.Array:
    """Patches `[N, C, block, block]` of `canvas` `[C, H, W]`, corners `at` `[N, 2]`."""
    dimensions = jax.lax.GatherDimensionNumbers(
        offset_dims=(1, 2, 3), collapsed_slice_dims=(), start_index_map=(1, 2)
    )
    sizes = (canvas.shape[0], block, block)
    return jax.lax.gather(canvas, at, dimensions, sizes, mode="clip")


def _scatter(canvas: jax.Array, at: jax.Array, patch: jax.Array) -> jax.Array:
    """Inverse of `_gather` for patches that do not overlap; drops those outside."""
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2, 3),
        inserted_window_dims=(),
        scatter_dims_to_operand_dims=(1, 2),
    )
    return jax.lax.scatter(canvas, at, patch, dimensions, mode="drop")
