"""Bertalmio's inpainting: carries smoothness along isophotes into the hole."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint import images, multigrid
from jaxpaint.poisson import harmonic_fill, pixels, planes
from jaxpaint.types import Method, Window, classical

# ITU-R BT.601: rows are luma and two colour differences.
_LUMA_CHROMA = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.168736, -0.331264, 0.5],
        [0.5, -0.418688, -0.081312],
    ]
)


def _around(x: jax.Array) -> dict[tuple[int, int], jax.Array]:
    """Returns the nine shifts of `[B, C, H, W]`; edge pixels repeat outside."""
    height, width = x.shape[-2:]
    padded = jnp.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge")
    return {
        (dy, dx): padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    }


def transport(x: jax.Array, *, eps: float = 1e-8) -> jax.Array:
    """Returns Bertalmio's update I_t: the Laplacian's change along isophotes.

    Bertalmio, Sapiro, Caselles, Ballester 2000, "Image inpainting", eq. 5 to 11, each
    channel on its own. `x` is `[B, C, H, W]` in [0, 1]: the update is quadratic in
    the intensity, and the published time step belongs to that range.
    """
    barrier = jnp.all(x[0, 0, 0, 0] < jnp.inf)
    smoothness = _around(multigrid.separately(multigrid.laplacian, x, barrier))
    image = _around(x)
    slope_x = (image[0, 1] - image[0, -1]) / 2
    slope_y = (image[1, 0] - image[-1, 0]) / 2
    beta = (
        slope_x * (smoothness[1, 0] - smoothness[-1, 0])
        - slope_y * (smoothness[0, 1] - smoothness[0, -1])
    ) * jax.lax.rsqrt(slope_x**2 + slope_y**2 + eps)
    ahead = (image[0, 1] - x, image[1, 0] - x)
    behind = (x - image[0, -1], x - image[-1, 0])

    def limited(rising: tuple, falling: tuple) -> jax.Array:
        square = sum(jnp.maximum(r, 0) ** 2 for r in rising)
        return jnp.sqrt(square + sum(jnp.minimum(f, 0) ** 2 for f in falling))

    return beta * jnp.where(beta > 0, limited(ahead, behind), limited(behind, ahead))


def curvature_flow(x: jax.Array, *, eps: float = 1e-8) -> jax.Array:
    """Returns the anisotropic diffusion term: curvature times gradient magnitude.

    The interleaved diffusion of the same paper (its eq. 12, after Perona and Malik's
    successors); stable for time steps up to 0.25. `x` is `[B, C, H, W]`.
    """
    image = _around(x)
    slope_x = (image[0, 1] - image[0, -1]) / 2
    slope_y = (image[1, 0] - image[-1, 0]) / 2
    bend_x = image[0, 1] - 2 * x + image[0, -1]
    bend_y = image[1, 0] - 2 * x + image[-1, 0]
    twist = (image[1, 1] + image[-1, -1] - image[1, -1] - image[-1, 1]) / 4
    bending = slope_y**2 * bend_x - 2 * slope_x * slope_y * twist + slope_x**2 * bend_y
    return bending / (slope_x**2 + slope_y**2 + eps)


@partial(
    jax.jit,
    static_argnames=(
        "steps",
        "transport_steps",
        "diffusion_steps",
        "dt",
        "dt_diffusion",
        "stop",
        "luma_chroma",
    ),
)
def bertalmio_fill(
    image: jax.Array,
    mask: jax.Array,
    *,
    steps: int = 600,
    transport_steps: int = 15,
    diffusion_steps: int = 2,
    dt: float = 0.1,
    dt_diffusion: float = 0.1,
    stop: float = 1e-4,
    luma_chroma: bool = False,
) -> jax.Array:
    """Returns the image with its hole filled by transport along isophotes.

    Bertalmio, Sapiro, Caselles, Ballester 2000: rounds of `transport_steps` of
    `transport` and `diffusion_steps` of `curvature_flow`. Deviations: starts from the
    harmonic fill (from the paper's arbitrary start the scheme moves little in
    thousands of steps); works on the RGB channels, or on luma and chroma, where the
    paper uses a brightness and two chroma angles; clips to the image's range after
    each round; derivatives are taken from the image itself, not from a smoothed copy.

    Args:
      image: `[B, H, W, C]`; what lies under the hole is not read.
      mask: `[B, H, W, 1]`, 1 = hole.
      steps: transport steps at most, rounded up to whole rounds.
      transport_steps: per round.
      diffusion_steps: per round.
      dt: time step of the transport, for intensities in [0, 1].
      dt_diffusion: time step of the diffusion, at most 0.25.
      stop: an image is done when no pixel changes by more in a round, in [0, 1].
      luma_chroma: whether colour images are filled as BT.601 luma and chroma.
    """
    hole = planes(mask)
    rotate = luma_chroma and image.shape[-1] == 3
    unit = (planes(harmonic_fill(image, mask)) + 1) / 2
    if rotate:
        unit = jnp.einsum("dc,bchw->bdhw", _LUMA_CHROMA.astype(unit.dtype), unit)
    low, high = (-0.5, 1.0) if rotate else (0.0, 1.0)

    def unfinished(carry: tuple) -> jax.Array:
        i, _, change = carry
        return (i * transport_steps < steps) & jnp.any(change > stop)

    def one_round(carry: tuple) -> tuple:
        i, before, change = carry
        active = hole * (change > stop)
        u = jax.lax.fori_loop(
            0, transport_steps, lambda _, u: u + dt * active * transport(u), before
        )
        u = jax.lax.fori_loop(
            0,
            diffusion_steps,
            lambda _, u: u + dt_diffusion * active * curvature_flow(u),
            u,
        )
        u = jnp.where(active > 0, jnp.clip(u, low, high), u)
        return i + 1, u, jnp.max(jnp.abs(u - before), axis=(1, 2, 3), keepdims=True)

    change = jnp.full((image.shape[0], 1, 1, 1), jnp.inf)
    fill = jax.lax.while_loop(unfinished, one_round, (0, unit, change))[1]
    if rotate:
        back = np.linalg.inv(_LUMA_CHROMA).astype(fill.dtype)
        fill = jnp.einsum("dc,bchw->bdhw", back, fill)
    return images.compose(image, jnp.clip(pixels(fill) * 2 - 1, -1, 1), mask)


def make(
    *,
    steps: int = 600,
    transport_steps: int = 15,
    diffusion_steps: int = 2,
    dt: float = 0.1,
    dt_diffusion: float = 0.1,
    stop: float = 1e-4,
    luma_chroma: bool = False,
) -> Method:
    """Returns the method; see `bertalmio_fill` for the options."""
    return classical(
        lambda image, mask, key: bertalmio_fill(
            image,
            mask,
            steps=steps,
            transport_steps=transport_steps,
            diffusion_steps=diffusion_steps,
            dt=dt,
            dt_diffusion=dt_diffusion,
            stop=stop,
            luma_chroma=luma_chroma,
        ),
        Window(margin=4, splits=True),
    )
