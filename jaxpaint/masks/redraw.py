"""Drawing again until a mask is accepted."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def redraw(
    draw: Callable[[jax.Array], jax.Array],
    accept: Callable[[jax.Array], jax.Array],
    key: jax.Array,
    *,
    cap: int = 200,
) -> jax.Array:
    """Returns the first accepted draw, or the draw number `cap` whatever it is.

    Under `vmap` all masks of a batch are drawn until the last one is accepted, so a
    batch costs its unluckiest member.

    Args:
      draw: key to mask.
      accept: mask to a bool scalar.
      key: draw number i has this key folded with i.
      cap: the largest number of draws, so that impossible wishes end.
    """

    def attempt(number: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        mask = draw(jax.random.fold_in(key, number))
        return number + 1, mask, accept(mask)

    def unfinished(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        number, _, accepted = state
        return ~accepted & (number < cap)

    first = jax.eval_shape(draw, key)
    nothing = jnp.zeros(first.shape, first.dtype)
    state = (jnp.int32(0), nothing, jnp.array(False))
    return jax.lax.while_loop(unfinished, lambda state: attempt(state[0]), state)[1]
