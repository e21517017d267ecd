"""The default: iterated denoising for thin holes, the harmonic fill for wide ones."""

import jax
import jax.numpy as jnp

from jaxpaint.errors import InputError
from jaxpaint.methods import iterated_denoising
from jaxpaint.multigrid import erode, grow_within
from jaxpaint.poisson import harmonic_fill, pixels, planes
from jaxpaint.types import Method, Window, classical


def make(*, thin: int = 24) -> Method:
    """Returns the method that picks a fill for each connected hole.

    A hole counts as wide when some pixel lies more than `thin` pixels inside it. Wide
    holes take the harmonic fill, which of all smooth fills has the least error there;
    thin ones iterated denoising, which also continues edges and texture. Measured in
    `docs/classical.md`. For wide holes in texture, ask for `patchmatch` by name: it
    looks better and scores lower.

    Args:
      thin: largest inner distance of a thin hole, in pixels, counted in steps to one of
        the four neighbours.

    Raises:
      InputError: `thin` is negative.
    """
    if thin < 0:
        raise InputError(f"thin is {thin}; want 0 or more pixels; the default is 24")
    denoising = iterated_denoising.make()

    @jax.jit
    def inpaint(image: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
        hole = planes(mask)
        wide = grow_within(hole, erode(hole, thin))
        # Where no hole is wide there is nothing to solve: the mask is empty.
        some = jnp.max(wide, axis=(1, 2, 3), keepdims=True)
        image = harmonic_fill(image, mask * some)
        return denoising.inpaint({}, image, mask * (1 - pixels(wide)), key)

    return classical(inpaint, Window(margin=48, splits=True))
