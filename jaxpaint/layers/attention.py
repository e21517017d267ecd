"""Scaled dot-product attention whose memory does not grow with the square of tokens.

GPUs get cuDNN's kernel where there is one, for half precision. On CPUs, and elsewhere
for many tokens, queries are taken in chunks: exact, and on CPUs three times faster than
holding all scores.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

# Scores that a CPU holds at once, if 256 queries have not more already: beyond, they
# leave the cache. Up to so many, all heads of all pictures are one product.
_FEW_SCORES = 1 << 20
_CHUNK = 256

# Scores that an accelerator may hold at once; beyond, it takes chunks of 1,024 queries.
_SCORES = 1 << 28
_LARGE_CHUNK = 1024


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Returns `softmax(query key^T / sqrt(d)) value`, the softmax in float32.

    Args:
      query: `[B, T, heads, d]`.
      key: `[B, S, heads, d]`.
      value: `[B, S, heads, e]`.

    Returns:
      `[B, T, heads, e]` in the dtype of `value`. Gradients in reverse mode compute the
      scores again.
    """
    batch, tokens, heads, depth = query.shape
    default = jax.checkpoint(jax.nn.dot_product_attention)
    many = batch * heads * tokens * key.shape[1] > _SCORES
    if many or value.shape[-1] != depth:
        default = functools.partial(_in_chunks, size=_LARGE_CHUNK)
    branches = {"cpu": _on_cpu, "default": default}
    if _has_kernel(query, value):
        branches["cuda"] = functools.partial(
            jax.nn.dot_product_attention, implementation="cudnn"
        )
    return lax.platform_dependent(query, key, value, **branches)


def _has_kernel(query: jax.Array, value: jax.Array) -> bool:
    """Whether cuDNN has a kernel for arrays like these on the GPU of this process."""
    size = query.shape[-1]
    fits = size == value.shape[-1] and size % 8 == 0 and size <= 128
    if not fits or query.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    if jax.default_backend() != "gpu":
        return False
    # AMD's GPUs, which have no cuDNN, count their generations in other words.
    generation = getattr(jax.local_devices()[0], "compute_capability", "")
    return generation.split(".")[0].isdigit() and float(generation) >= 8


def _on_cpu(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Returns `attend` for one head of one picture after the other.

    What a core works on then fits its cache. Few scores do so all at once.
    """
    batch, tokens, heads, _ = query.shape
    if batch * heads * tokens * key.shape[1] <= _FEW_SCORES:
        return _in_chunks(query, key, value, size=tokens)
    size = max(_CHUNK, _FEW_SCORES // key.shape[1])
    by_head = [
        x.swapaxes(1, 2).reshape(batch * heads, x.shape[1], -1)
        for x in (query, key, value)
    ]
    result: jax.Array = lax.map(lambda x: _weighted(*x, size), by_head)
    return jnp.swapaxes(result.reshape(batch, heads, tokens, -1), 1, 2)


def _in_chunks(
    query: jax.Array, key: jax.Array, value: jax.Array, *, size: int
) -> jax.Array:
    """Returns `attend` for chunks of queries, at most `size`, one after the other."""
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    return jnp.swapaxes(_weighted(query, key, value, size), 1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _weighted(
    query: jax.Array, key: jax.Array, value: jax.Array, size: int
) -> jax.Array:
    """Maps `[.., T, d]`, `[.., S, d]` and `[.., S, e]` to `[.., T, e]`, in chunks."""
    query, keys, values = _scaled(query, key, value)

    def some(chunk: jax.Array) -> jax.Array:
        scores = jnp.einsum("...td,...sd->...ts", chunk, keys)
        weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
        # Dividing the sums costs e divisions a query; the weights, as many as tokens.
        sums = jnp.einsum("...ts,...se->...te", weights, values)
        return sums / jnp.sum(weights, axis=-1, keepdims=True)

    tokens = query.shape[-2]
    if tokens <= size:
        result = some(query)
    else:
        result = _joined(lax.map(some, _chunks(query, size)), tokens)
    return result.astype(value.dtype)


def _weighted_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, size: int
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _weighted(query, key, value, size), (query, key, value)


def _weighted_backward(
    size: int, saved: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, ...]:
    """Returns the gradients, with the scores computed again.

    They are held by key: then every sum below runs along the rows of its left and the
    columns of its right matrix, for which CPUs have the fast multiplication. That of
    the query is turned around behind the loop, or the compiler would turn the scores.
    """
    query, keys, values = _scaled(*saved)
    cotangent = cotangent.astype(query.dtype)
    keys_by_depth = keys.mT

    def some(chunk: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
        scores = jnp.einsum("...sd,...td->...st", keys, chunk)
        weights = jnp.exp(scores - jnp.max(scores, axis=-2, keepdims=True))
        weights = weights / jnp.sum(weights, axis=-2, keepdims=True)
        found = jnp.einsum("...se,...te->...st", values, cotangent)
        mean = jnp.sum(weights * found, axis=-2, keepdims=True)
        slope = weights * (found - mean)
        return (
            jnp.einsum("...ds,...st->...dt", keys_by_depth, slope),
            jnp.einsum("...st,...td->...sd", slope, chunk),
            jnp.einsum("...st,...te->...se", weights, cotangent),
        )

    tokens, depth = query.shape[-2:]
    if tokens <= size:
        by_depth, *others = some(query, cotangent)
        first = by_depth.mT
    else:

        def add(sums: tuple[jax.Array, ...], chunk: tuple[jax.Array, ...]):
            first, *others = some(*chunk)
            return tuple(a + b for a, b in zip(sums, others, strict=True)), first

        zeros = jnp.zeros_like(keys), jnp.zeros_like(values)
        both = _chunks(query, size), _chunks(cotangent, size)
        others, by_depth = lax.scan(add, zeros, both)
        first = _joined(by_depth.mT, tokens)
    grads = first / math.sqrt(depth), *others
    return tuple(x.astype(y.dtype) for x, y in zip(grads, saved, strict=True))


_weighted.defvjp(_weighted_forward, _weighted_backward)


def _scaled(query: jax.Array, key: jax.Array, value: jax.Array) -> list[jax.Array]:
    """Returns all in float32 at least, the query divided by the root of its depth."""
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scaled = query.astype(wide) / math.sqrt(query.shape[-1])
    return [scaled, key.astype(wide), value.astype(wide)]


def _chunks(x: jax.Array, size: int) -> jax.Array:
    """Returns `[.., T, d]` as `[count, .., size, d]` or less, filled up with zeros."""
    *lead, tokens, depth = x.shape
    count = -(-tokens // size)
    size = -(-tokens // count)
    pads = [(0, 0)] * len(lead) + [(0, count * size - tokens), (0, 0)]
    return jnp.moveaxis(jnp.pad(x, pads).reshape(*lead, count, size, depth), -3, 0)


def _joined(chunks: jax.Array, tokens: int) -> jax.Array:
    """Returns `[.., tokens, d]` out of what `_chunks` makes."""
    x = jnp.moveaxis(chunks, 0, -3)
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])[..., :tokens, :]
