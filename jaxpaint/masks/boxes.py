"""Random boxes: one or several holes with sides along the image axes."""

import jax
import jax.numpy as jnp

from jaxpaint.masks import raster
from jaxpaint.masks.chance import chances, whole
from jaxpaint.masks.raster import Size


def boxes(
    size: Size,
    key: jax.Array,
    *,
    count: tuple[int, int] = (1, 4),
    side: tuple[float, float] = (1 / 8, 1 / 2),
    margin: float = 0.0,
) -> jax.Array:
    """Returns a mask of random boxes, which may overlap; float32 `[H, W, 1]`.

    Every box draws its height, width and position on its own, each uniformly. One box
    with sides of 3/8 to 1/2 is the training hole of Iizuka et al. (2017): 96 to 128
    pixels of 256.

    Args:
      size: height and width, static.
      key: random key.
      count: fewest and most boxes.
      side: shortest and longest side, as shares of the image side along it.
      margin: share of the image side that stays known at each border.
    """
    height, width = size
    number, chance = chances(key, (), (4, count[1]))
    number = whole(number, *count)

    def along(
        length: int, chance: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        border = round(margin * length)
        longest = max(1, min(round(side[1] * length), length - 2 * border))
        shortest = min(max(1, round(side[0] * length)), longest)
        sides = whole(chance[0], shortest, longest)
        return whole(chance[1], border, length - border - sides), sides

    top, box_height = along(height, (chance[0], chance[1]))
    left, box_width = along(width, (chance[2], chance[3]))
    active = jnp.arange(count[1]) < number
    packed = raster.boxes(size, top, left, box_height, box_width, active)
    return raster.unpack(packed, size)


def deepfill_box(size: Size, key: jax.Array) -> jax.Array:
    """Returns the training hole of DeepFill v1 (Yu et al. 2018); float32 `[H, W, 1]`.

    A box of half the image sides (128 of 256 pixels), from whose four borders an equal
    random amount of up to 1/16 of the image is taken: sides of 96 to 128, mean hole
    share 0.191. As in the official code it never reaches the last row and column.
    """
    height, width = size
    (chance,) = chances(key, (4, 1))
    delta_y = whole(chance[0], 0, height // 16)
    delta_x = whole(chance[1], 0, width // 16)
    top = whole(chance[2], 0, height - height // 2 - 1)
    left = whole(chance[3], 0, width - width // 2 - 1)
    packed = raster.boxes(
        size,
        top + delta_y,
        left + delta_x,
        height // 2 - 2 * delta_y,
        width // 2 - 2 * delta_x,
        jnp.array([True]),
    )
    return raster.unpack(packed, size)
