"""The holes of Context Encoders (Pathak et al. 2016), section 3.3."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.masks import raster
from jaxpaint.masks.chance import chances, whole
from jaxpaint.masks.raster import Size
from jaxpaint.masks.redraw import redraw


def center(size: Size, key: jax.Array) -> jax.Array:
    """Returns a hole of half the image sides in the centre; float32 `[H, W, 1]`."""
    del key
    inside = jnp.array(True)
    for axis, length in enumerate(size):
        index = jnp.expand_dims(jnp.arange(length), 1 - axis)
        start = (length - length // 2) // 2
        inside = inside & (index >= start) & (index < start + length // 2)
    return inside[:, :, None].astype(jnp.float32)


def random_blocks(
    size: Size,
    key: jax.Array,
    *,
    count: tuple[int, int] = (4, 10),
    side: tuple[float, float] = (1 / 8, 1 / 4),
    max_area: float = 1 / 4,
) -> jax.Array:
    """Returns small squares that may overlap; float32 `[H, W, 1]`.

    The paper gives the largest hole share, a quarter of the image, but neither number
    nor size of the squares: those are this library's choice.

    Args:
      size: height and width, static.
      key: random key.
      count: fewest and most squares tried.
      side: shortest and longest side, as shares of the shorter image side.
      max_area: a square that would make the hole share greater is left out.
    """
    number, chance = chances(key, (), (count[1], 3))
    number = whole(number, *count)
    shortest, longest = (max(1, round(share * min(size))) for share in side)
    sides = whole(chance[:, :1], shortest, longest)
    place = whole(chance[:, 1:], 0, jnp.array([size]) - sides)
    limit = math.floor(max_area * size[0] * size[1])

    def add(
        packed: jax.Array, square: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        place, side, wanted = square
        top, left = place[0:1], place[1:2]
        active = jnp.array([True])
        union = packed | raster.boxes(size, top, left, side, side, active)
        return jnp.where(wanted & (raster.area(union) <= limit), union, packed), None

    wanted = jnp.arange(count[1]) < number
    packed, _ = jax.lax.scan(add, raster.empty(size), (place, sides, wanted))
    return raster.unpack(packed, size)


def random_region(size: Size, key: jax.Array) -> jax.Array:
    """Returns a random region of 20 to 30 % of the image; float32 `[H, W, 1]`.

    The hole is where smooth noise is below 0.25: noise uniform in [0, 1] on a coarse
    lattice, interpolated by cubics. Drawn again, at most 200 times, until the hole
    share lies between 0.2 and 0.3. This is the pattern of the official code, for
    128-pixel images there; here the lattice scales with the shorter side. The paper
    takes shapes of segmented objects.
    """
    # The official lattice step is 1 / 0.06 pixels for images of 128.
    step = min(size) / (0.06 * 128)
    low, high = (share * size[0] * size[1] for share in (0.2, 0.3))

    def draw(key: jax.Array) -> jax.Array:
        noise, phase = chances(
            key, (_nodes(size[0], step), _nodes(size[1], step)), (2,)
        )
        phase = whole(phase, 0, 255)
        rows = _interpolation(size[0], step, phase[0])
        columns = _interpolation(size[1], step, phase[1])
        noise = whole(noise, -32, 31)
        smooth = jnp.einsum(
            "hy,yx,wx->hw",
            rows,
            noise.astype(jnp.float32),
            columns,
            precision=jax.lax.Precision.HIGHEST,
        )
        # Noise number n stands for (n + 32.5) / 64.
        return smooth < 0.25 * 64 - 32.5

    def accept(hole: jax.Array) -> jax.Array:
        area = jnp.sum(hole)
        return (area > low) & (area < high)

    return redraw(draw, accept, key)[:, :, None].astype(jnp.float32)


def _nodes(length: int, step: float) -> int:
    """Returns how many nodes of the lattice reach over a side, whatever the phase."""
    return int((length - 1) / step) + 5


def _interpolation(length: int, step: float, phase: jax.Array) -> jax.Array:
    """Returns weights `[length, nodes]` of Catmull-Rom interpolation.

    Positions are multiples of 1/256 node, `phase` counts these, and weights multiples
    of 1/512. Sums of 6-bit noise over both axes then have 24 bits: they are exact, and
    do not depend on their order.
    """
    position = np.floor(np.arange(length) * (256 / step)).astype(np.int32)
    node = 256 * (np.arange(_nodes(length, step)) - 1)
    distance = jnp.abs(position[:, None] - node[None, :] + phase)
    return jnp.asarray(_CUBIC)[jnp.minimum(distance, 512)]


def _catmull_rom() -> np.ndarray:
    """Returns the kernel at distances 0, 1/256 .. 2 nodes, rounded to 1/512."""
    d = np.arange(513) / 256
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return (np.round(512 * np.where(d < 1, near, far)) / 512).astype(np.float32)


_CUBIC = _catmull_rom()
