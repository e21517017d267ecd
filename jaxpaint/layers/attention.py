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

# Queries that a CPU takes at once: their scores stay in the cache of a core. So do all
# scores up to the second number.
_CHUNK = 256
_FEW_SCORES = 1 << 18

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
    by_head = [
        x.swapaxes(1, 2).reshape(batch * heads, x.shape[1], -1)
        for x in (query, key, value)
    ]
    result = lax.map(lambda x: _weighted(*x, size=_CHUNK), by_head)
    return result.reshape(batch, heads, tokens, -1).swapaxes(1, 2)


def _in_chunks(
    query: jax.Array, key: jax.Array, value: jax.Array, *, size: int
) -> jax.Array:
    """Returns `attend` for chunks of queries, at most `size`, one after the other."""
    by_head = [x.swapaxes(1, 2) for x in (query, key, value)]
    return _weighted(*by_head, size=size).swapaxes(1, 2)


def _weighted(
    query: jax.Array, key: jax.Array, value: jax.Array, *, size: int
) -> jax.Array:
    """Maps `[.., T, d]`, `[.., S, d]` and `[.., S, e]` to `[.., T, e]`, in chunks."""
    *lead, tokens, depth = query.shape
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scaled = query.astype(wide) / math.sqrt(depth)
    keys, values = key.astype(wide), value.astype(wide)
    count = -(-tokens // size)
    size = -(-tokens // count)
    scaled = jnp.pad(
        scaled, [(0, 0)] * len(lead) + [(0, count * size - tokens), (0, 0)]
    )

    @jax.checkpoint
    def some(chunk: jax.Array) -> jax.Array:
        scores = jnp.einsum("...td,...sd->...ts", chunk, keys)
        weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
        # Dividing the sums costs e divisions a query; the weights, as many as tokens.
        sums = jnp.einsum("...ts,...se->...te", weights, values)
        return sums / jnp.sum(weights, axis=-1, keepdims=True)

    if count == 1:
        result = some(scaled)
    else:
        chunks = scaled.reshape(*lead, count, size, depth)
        result = lax.map(some, jnp.moveaxis(chunks, -3, 0))
        result = jnp.moveaxis(result, 0, -3).reshape(*lead, count * size, -1)
    return result[..., :tokens, :].astype(value.dtype)
