"""What every registered method promises; a new method inherits these tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpaint
from jaxpaint import methods
from jaxpaint.cli import catalogue
from jaxpaint.errors import InputError

HEIGHT, WIDTH = 24, 32

# Options that make a slow method quick; the contract holds for any options.
QUICK = {
    "bertalmio": {"steps": 30},
    "context_encoder": {
        "image_size": 16,
        "encoder_width": 4,
        "decoder_width": 4,
        "discriminator_width": 4,
        "bottleneck": 16,
        "overlap": 1,
    },
    "glcic": {
        "image_size": 16,
        "width": 4,
        "dilations": (2,),
        "discriminator_width": 4,
        "discriminator_features": 8,
    },
    "repaint": {
        "image_size": 16,
        "channels": 32,
        "multipliers": (1,),
        "blocks": 1,
        "attention": (),
        "steps": 100,
        "levels": 4,
        "jump": 1,
    },
    "deepfill_v1": {"image_size": 16, "width": 4, "critic_width": 4},
    "deepfill_v2": {"image_size": 16, "width": 4, "discriminator_width": 4},
    "partial_conv": {"levels": 3, "width": 4, "perceptual": 0.0, "style": 0.0},
}


@functools.cache
def method(name):
    return methods.make(name, **QUICK.get(name, {}))


@functools.cache
def compiled(name):
    return jax.jit(method(name).inpaint)


@functools.cache
def fresh(name):
    """Returns `key -> state` of a method, compiled."""
    side = QUICK.get(name, {}).get("image_size", 16)
    example = {
        "image": jnp.zeros((1, side, side, 3)),
        "mask": jnp.zeros((1, side, side, 1)),
    }
    return jax.jit(lambda key: method(name).init(key, example))


@functools.cache
def params(name):
    """What a method knows before any training."""
    return method(name).eval_params(fresh(name)(KEY))


def batch(size, seed=0):
    """Smooth pictures with one box, one thin line and one corner hole each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / 8.0
    phase = rng.uniform(0, 6, (size, 1, 1, 3))
    image = 0.6 * np.sin(x[None, ..., None] + phase) * np.cos(y[None, ..., None])
    image += rng.normal(0, 0.05, image.shape)
    mask = np.zeros((size, HEIGHT, WIDTH, 1), np.float32)
    for i in range(size):
        row, column = rng.integers(2, 10), rng.integers(2, 18)
        mask[i, row : row + 6, column : column + 7] = 1
        mask[i, 18, 4:28] = 1
        mask[i, -2:, -3:] = 1
    return jnp.asarray(image.clip(-1, 1), jnp.float32), jnp.asarray(mask)


KEY = jax.random.key(7)
NAMES = methods.names()
CLASSICAL = [name for name in NAMES if method(name).train_step is None]


@pytest.mark.parametrize("name", NAMES)
def test_known_pixels_come_back_bit_for_bit(name):
    image, mask = batch(2)
    result = np.asarray(compiled(name)(params(name), image, mask, KEY))
    known = np.broadcast_to(np.asarray(mask) == 0, image.shape)
    np.testing.assert_array_equal(result[known], np.asarray(image)[known])
    assert np.isfinite(result).all()
    assert np.abs(result).max() <= 1.0 + 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_hole_content_is_never_read(name):
    image, mask = batch(2)
    first = compiled(name)(params(name), image, mask, KEY)
    poisoned = jnp.where(mask > 0, jnp.nan, image)
    second = compiled(name)(params(name), poisoned, mask, KEY)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize("name", NAMES)
def test_same_key_same_image(name):
    image, mask = batch(2)
    first, second = (compiled(name)(params(name), image, mask, KEY) for _ in range(2))
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize("name", [n for n in CLASSICAL if n != "mean_color"])
def test_the_hole_is_filled_from_its_surroundings(name):
    # On smooth pictures every method beats the mean of the known pixels, unless it has
    # yet to learn how.
    image, mask = batch(2)
    result = compiled(name)(params(name), image, mask, KEY)
    known = 1 - mask
    axes = (1, 2)
    mean = jnp.sum(image * known, axes, keepdims=True) / jnp.sum(
        known, axes, keepdims=True
    )
    error, reference = (
        float(jnp.sum(jnp.abs(fill - image) * mask)) for fill in (result, mean)
    )
    assert error < 0.8 * reference


@pytest.mark.parametrize("name", NAMES)
def test_jit_equals_eager(name):
    image, mask = batch(1)
    eager = method(name).inpaint(params(name), image, mask, KEY)
    jitted = compiled(name)(params(name), image, mask, KEY)
    np.testing.assert_allclose(np.asarray(eager), np.asarray(jitted), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_its_images_one_by_one(name):
    image, mask = batch(2)
    together = compiled(name)(params(name), image, mask, KEY)
    for i in range(2):
        alone = compiled(name)(params(name), image[i : i + 1], mask[i : i + 1], KEY)
        np.testing.assert_allclose(
            np.asarray(together[i]), np.asarray(alone[0]), atol=1e-4
        )


@pytest.mark.parametrize("name", NAMES)
def test_eight_devices_equal_one(name):
    image, mask = batch(8)
    alone = compiled(name)(params(name), image, mask, KEY)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    spread = compiled(name)(
        jax.device_put(params(name), everywhere),
        jax.device_put(image, over),
        jax.device_put(mask, over),
        jax.device_put(KEY, everywhere),
    )
    np.testing.assert_allclose(np.asarray(alone), np.asarray(spread), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_mask_returns_the_image(name):
    image, _ = batch(2)
    result = compiled(name)(params(name), image, jnp.zeros((2, HEIGHT, WIDTH, 1)), KEY)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(image))


@pytest.mark.parametrize("name", NAMES)
def test_one_known_pixel_is_enough_to_stay_finite(name):
    image, _ = batch(2)
    mask = jnp.ones((2, HEIGHT, WIDTH, 1)).at[:, 3, 4].set(0).at[1].set(1)
    result = np.asarray(compiled(name)(params(name), image, mask, KEY))
    assert np.isfinite(result).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (np.zeros((8, 8, 2), np.uint8), np.eye(8)),
        (np.zeros((8, 8, 4), np.uint8), np.eye(8)),
        (np.zeros((8, 8, 3), np.uint8), np.eye(9)),
        (np.zeros((2, 8, 8, 3), np.uint8), np.zeros((3, 8, 8, 1))),
        (np.zeros(8, np.uint8), np.eye(8)),
        (np.zeros((8, 8, 3), np.int32), np.eye(8)),
        (np.zeros((8, 8, 3), np.uint16), np.eye(8)),
        (np.full((8, 8, 3), 1.5, np.float32), np.eye(8)),
        (np.full((8, 8, 3), np.nan, np.float32), np.eye(8)),
        (np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 0.5)),
        (np.zeros((8, 8, 3), np.uint8), np.ones((8, 8))),
    ],
    ids=[
        "two channels",
        "alpha",
        "mask size",
        "mask count",
        "rank",
        "int32",
        "uint16",
        "range",
        "nan",
        "soft mask",
        "no known pixel",
    ],
)
def test_input_that_does_not_fit_is_refused(name, image, mask):
    with pytest.raises(InputError):
        jaxpaint.inpaint(
            image, mask, name, options=QUICK.get(name), params=params(name)
        )


BLENDED = [name for name in NAMES if "blend" in catalogue.options(name)]


@pytest.mark.parametrize("name", BLENDED)
def test_blending_changes_a_fill_by_a_harmonic_function(name):
    image, _ = batch(1)
    hole = jnp.zeros((1, HEIGHT, WIDTH, 1)).at[:, 6:14, 8:18].set(1)
    # Half as loud, so that nothing is clipped.
    plain, blended = (
        jax.jit(methods.make(name, **QUICK.get(name, {}) | {"blend": blend}).inpaint)(
            params(name), image / 2, hole, KEY
        )
        for blend in (False, True)
    )
    change = np.asarray(blended - plain)[0, 6:14, 8:18]
    around = change[:-2, 1:-1] + change[2:, 1:-1] + change[1:-1, :-2] + change[1:-1, 2:]
    assert np.abs(change).max() > 0.01
    np.testing.assert_allclose(around, 4 * change[1:-1, 1:-1], atol=1e-3)


@pytest.mark.parametrize("name", [n for n in NAMES if method(n).stages])
def test_stages_give_what_inpaint_gives(name):
    image, mask = batch(1)
    stages = method(name).stages
    carry = jax.jit(stages.begin)(params(name), image, mask, KEY)
    advance = jax.jit(stages.advance)
    assert len(stages.parts) > 1
    for part in stages.parts:
        carry = advance(params(name), carry, part)
    whole = compiled(name)(params(name), image, mask, KEY)
    np.testing.assert_allclose(
        np.asarray(stages.finish(carry, image, mask)), np.asarray(whole), atol=1e-5
    )
    assert stages.broken(carry) == -1


@pytest.mark.parametrize("name", [n for n in NAMES if method(n).stages])
def test_the_long_stage_has_the_same_shapes_for_all_windows(name):
    begin, shapes = method(name).stages.begin, []
    for height, width in ((HEIGHT, WIDTH), (40, 50)):
        image, mask = (jnp.zeros((1, height, width, c)) for c in (3, 1))
        shapes.append(jax.eval_shape(begin, params(name), image, mask, KEY))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", [n for n in NAMES if method(n).stages])
def test_results_that_are_not_finite_name_the_step(name):
    image, mask = batch(1)
    bad = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params(name))
    with pytest.raises(InputError, match="not finite in step 0"):
        jaxpaint.inpaint(
            np.asarray(image), np.asarray(mask), name, options=QUICK[name], params=bad
        )


@pytest.mark.parametrize("name", sorted({*NAMES} - {*CLASSICAL}))
def test_params_put_into_a_fresh_state_come_out_again(name):
    initial, state = method(name), fresh(name)(jax.random.key(99))
    given = jax.tree.map(lambda x: x + 1, params(name))
    taken = initial.eval_params(initial.load_params(state, given))
    jax.tree.map(np.testing.assert_array_equal, taken, given)
