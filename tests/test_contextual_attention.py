"""Contextual attention, its nearest resizing and its flow picture."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint.errors import InputError
from jaxpaint.flow_picture import color_wheel, flow_picture
from jaxpaint.layers import contextual_attention as layer
from jaxpaint.layers import nearest
from jaxpaint.layers.contextual_attention import contextual_attention


def channels_last(x):
    return np.moveaxis(x, 1, -1)


def inputs(shape=(2, 12, 20, 3), seed=0):
    keys = jax.random.split(jax.random.key(seed))
    mask = jax.random.uniform(keys[1], (*shape[:3], 1)) < 0.02
    return jax.random.normal(keys[0], shape), mask.astype(jnp.float32)


@pytest.mark.parametrize("fuse", [True, False])
def test_chunks_give_what_the_whole_gives(monkeypatch, fuse):
    x, mask = inputs()

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(x, background):
        result = contextual_attention(x, background, mask, fuse=fuse, softmax_scale=2.0)
        return jnp.sum(jnp.sin(result.output)), result

    background = x[:, ::-1]
    whole = jax.jit(loss)(x, background)
    monkeypatch.setattr(layer, "_FEW_SCORES", 0)
    monkeypatch.setattr(layer, "_LEAST_ROWS", 4)
    # Another function, or jit would find the first program.
    chunked = jax.jit(lambda x, b: loss(x, b))(x, background)
    np.testing.assert_allclose(chunked[0][1].output, whole[0][1].output, atol=1e-5)
    np.testing.assert_array_equal(chunked[0][1].offsets, whole[0][1].offsets)
    np.testing.assert_allclose(chunked[1], whole[1], atol=1e-5)


def by_definition(x, background, mask, fuse):
    """One picture, rate 2, scores times 2, with all patches and scores written out."""

    def windows(x, size, stride, before):
        x = np.pad(x, ((before, size), (before, size), (0, 0)))
        found = np.lib.stride_tricks.sliding_window_view(x, (size, size), (0, 1))
        return np.moveaxis(found[::stride, ::stride], 2, -1)

    def reduced(x):
        rows, columns = (nearest.indices(n, n // 2) for n in x.shape[:2])
        return x[rows][:, columns]

    (height, width), (rows, columns) = (
        (x.shape[0] // 2, x.shape[1] // 2) for x in (x, background)
    )
    pixels, patches = height * width, rows * columns
    queries = windows(reduced(x), 3, 1, 1)[:height, :width].reshape(pixels, -1)
    keys = windows(reduced(background), 3, 1, 1)[:rows, :columns].reshape(patches, -1)
    hole = windows(reduced(mask), 3, 1, 1)[:rows, :columns].reshape(patches, -1)
    valid = hole.max(-1) == 0
    scores = queries @ (keys / np.linalg.norm(keys, axis=-1, keepdims=True)).T

    def along_the_diagonal(scores):
        around = np.pad(scores, 1)
        return around[:-2, :-2] + scores + around[2:, 2:]

    if fuse:
        grids = np.arange(pixels).reshape(height, width).T.reshape(-1)
        grids_b = np.arange(patches).reshape(rows, columns).T.reshape(-1)
        scores = along_the_diagonal(scores)
        scores[np.ix_(grids, grids_b)] = along_the_diagonal(
            scores[np.ix_(grids, grids_b)]
        )
    logits = 2 * scores * valid
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True) * valid
    pasted = windows(background, 4, 2, 1)[:rows, :columns].reshape(patches, -1)
    mixed = (weights @ pasted).reshape(height, width, 4, 4, -1)
    output = np.zeros((2 * height + 2, 2 * width + 2, x.shape[-1]))
    for i in range(height):
        for j in range(width):
            output[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += mixed[i, j]
    return output[1:-1, 1:-1] / 4, weights.argmax(-1)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("rows", [3, 100])
@pytest.mark.parametrize(
    "sides", [(14, 6, 14, 6), (2, 10, 4, 6), (10, 2, 6, 8), (8, 6, 2, 10), (4, 4, 6, 2)]
)
def test_it_is_what_the_definition_says(monkeypatch, fuse, rows, sides):
    # Narrow grids, whose rows and columns end everywhere.
    monkeypatch.setattr(layer, "_FEW_SCORES", 0)
    monkeypatch.setattr(layer, "_LEAST_ROWS", rows)
    rng = np.random.default_rng(0)
    x, background = (
        rng.normal(size=(1, *sides[:2], 3)),
        rng.normal(size=(1, *sides[2:], 3)),
    )
    mask = np.zeros((*sides[2:], 1))
    mask[-1, -1] = 1
    run = jax.jit(functools.partial(contextual_attention, fuse=fuse, softmax_scale=2.0))
    got = run(x.astype("f"), background.astype("f"), mask[None].astype("f"))
    want, best = by_definition(x[0], background[0], mask, fuse)
    np.testing.assert_allclose(got.output[0], want, atol=1e-5)
    width, width_b = sides[1] // 2, sides[3] // 2
    place = np.arange(len(best))
    offsets = [best // width_b - place // width, best % width_b - place % width]
    np.testing.assert_array_equal(got.offsets[0].reshape(-1, 2), np.stack(offsets, 1))


def test_chunks_bound_the_memory():
    # The map of 1,024 pixels; nothing of this size is computed.
    x = jax.ShapeDtypeStruct((1, 256, 256, 8), jnp.float32)

    def temporary(few):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layer, "_FEW_SCORES", few)
            compiled = jax.jit(lambda x: contextual_attention(x, x).output).lower(x)
            return compiled.compile().memory_analysis().temp_size_in_bytes

    assert 8 * temporary(layer._FEW_SCORES) < temporary(1 << 40)


def test_masks_are_those_of_their_pictures():
    x, mask = inputs((2, 16, 16, 3))
    run = jax.jit(lambda x, mask: contextual_attention(x, x, mask).output)
    both = run(x, mask)
    for i in range(2):
        # Beside itself: the same program, in which sums have the same order.
        twice = run(x[jnp.array([i, i])], mask[jnp.array([i, i])])
        np.testing.assert_allclose(both[i], twice[i], atol=1e-6)


def test_sides_that_cannot_be_halved_are_refused():
    x = jnp.zeros((1, 9, 8, 3))
    with pytest.raises(InputError, match="9 x 8; want multiples of 2"):
        contextual_attention(x, x)
    x = jnp.zeros((1, 8, 8, 3))
    with pytest.raises(InputError, match="mask has shape"):
        contextual_attention(x, x, jnp.zeros((1, 4, 4, 1)))


def test_patches_of_zeros_have_a_gradient():
    # What a ReLU leaves of a flat region.
    x = jnp.zeros((1, 12, 12, 2)).at[:, :6].set(1.0)

    def total(x):
        return jnp.sum(jnp.sin(contextual_attention(x, x).output))

    assert np.isfinite(jax.jit(jax.grad(total))(x)).all()


def test_nearest_rounds_in_float32():
    assert nearest.indices(8, 4).tolist() == [0, 2, 5, 7]
    assert nearest.indices(34, 17)[8] == 17
    assert nearest.indices(54, 27)[13] == 26


def test_no_offset_is_white():
    assert (flow_picture(np.zeros((1, 2, 3, 2))) == 255).all()


@pytest.mark.parity
def test_contextual_attention_parity(fixtures):
    folders = sorted(fixtures.glob("deepfill_contextual_attention*"))
    assert folders
    for folder in folders:
        meta = json.loads((folder / "meta.json").read_text())
        io = np.load(folder / "io.npz")
        for name, case in meta["config"]["subcases"].items():
            assert (case["ksize"], case["fuse_k"], case["stride"]) == (3, 3, 1)
            f = channels_last(io[f"{name}__f"])
            b = channels_last(io[f"{name}__b"]) if f"{name}__b" in io else f
            mask = io.get(f"{name}__mask")
            if mask is not None:
                mask = jnp.asarray(channels_last(mask))
            run = jax.jit(
                functools.partial(
                    contextual_attention,
                    rate=case["rate"],
                    softmax_scale=case["softmax_scale"],
                    fuse=case["fuse"],
                )
            )
            result = run(f, b, mask)
            want = channels_last(io[f"{name}__y"])
            atol = meta["tolerance"]["y"]["atol"]
            np.testing.assert_allclose(result.output, want, atol=atol, err_msg=name)
            if f"{name}__offsets" in io:
                want = channels_last(io[f"{name}__offsets"])
                same = (np.asarray(result.offsets) == want).mean()
                assert same > 0.995, name
            if f"{name}__f_ds" in io:
                want = channels_last(io[f"{name}__f_ds"])
                got = nearest.resize(jnp.asarray(f), *want.shape[1:3])
                np.testing.assert_array_equal(got, want)


@pytest.mark.parity
def test_flow_picture_parity(fixtures):
    io = np.load(fixtures / "deepfill_flow_vis" / "io.npz")
    np.testing.assert_array_equal(color_wheel(), io["color_wheel"])
    got = flow_picture(channels_last(io["offsets"])).astype(int)
    assert abs(got - channels_last(io["rgb_u8"])).max() <= 1
