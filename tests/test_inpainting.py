"""`jaxpaint.inpaint`: what arrays go in, what comes out, what is said."""

import jax
import numpy as np
import pytest

import jaxpaint
from jaxpaint.errors import InputError

HOLE = np.zeros((40, 56), bool)
HOLE[10:18, 20:33] = True
HOLE[30, 5:50] = True


def picture(channels=3, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :56]
    wave = 120 + 80 * np.sin(x / 9) * np.cos(y / 7)
    image = wave[..., None] + rng.normal(0, 3, (40, 56, channels))
    return image.clip(0, 255).astype(np.uint8)


def test_grey_colour_and_batches_keep_shape_and_dtype():
    for image in (picture()[..., 0], picture(1), picture(), picture()[None]):
        result = jaxpaint.inpaint(image, HOLE, "harmonic")
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        known = ~HOLE if image.ndim < 4 else ~HOLE[None]
        np.testing.assert_array_equal(result[known], image[known])


def test_floats_are_in_minus_one_to_one():
    image = picture()
    unit = image.astype(np.float64) / 127.5 - 1
    unit[HOLE] = np.nan
    result = jaxpaint.inpaint(unit, HOLE, "harmonic")
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result[~HOLE], unit[~HOLE])
    expected = jaxpaint.inpaint(image, HOLE, "harmonic") / 127.5 - 1
    np.testing.assert_allclose(result, expected, atol=1 / 127)


@pytest.mark.parametrize(
    "mask",
    [HOLE[..., None], HOLE.astype(np.uint8), 255 * HOLE.astype(np.uint8), HOLE * 1.0],
    ids=["rank 3", "uint8 0/1", "uint8 0/255", "float"],
)
def test_all_usual_masks_mean_the_same(mask):
    image = picture()
    expected = jaxpaint.inpaint(image, HOLE, "harmonic")
    np.testing.assert_array_equal(jaxpaint.inpaint(image, mask, "harmonic"), expected)


def test_one_mask_serves_a_batch_and_each_image_may_have_its_own():
    batch = np.stack([picture(seed=0), picture(seed=1)])
    masks = np.stack([HOLE, HOLE[::-1]])[..., None]
    shared = jaxpaint.inpaint(batch, HOLE, "harmonic")
    own = jaxpaint.inpaint(batch, masks, "harmonic")
    np.testing.assert_array_equal(shared[0], own[0])
    alone = jaxpaint.inpaint(batch[1], HOLE[::-1], "harmonic")
    np.testing.assert_array_equal(own[1], alone)


def test_the_input_is_not_changed():
    image = picture()
    before = image.copy()
    jaxpaint.inpaint(image, HOLE, "harmonic")
    np.testing.assert_array_equal(image, before)


def test_the_key_decides():
    image = picture()
    first, again, other = (
        jaxpaint.inpaint(image, HOLE, "patchmatch", jax.random.key(seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_an_empty_mask_copies_and_warns():
    image = picture()
    with pytest.warns(UserWarning, match="empty"):
        result = jaxpaint.inpaint(image, np.zeros_like(HOLE))
    np.testing.assert_array_equal(result, image)


def test_a_hole_over_most_of_the_image_warns():
    with pytest.warns(UserWarning, match="inverted"):
        jaxpaint.inpaint(picture(), ~HOLE, "harmonic")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "harmonica"}, "did you mean 'harmonic'"),
        ({"options": {"tolerence": 1.0}}, "did you mean 'tolerance'"),
        ({"options": {"tolerance": [1.0]}}, "is a list"),
    ],
    ids=["method", "option", "value"],
)
def test_unknown_names_and_values_say_what_to_write(arguments, message):
    with pytest.raises(InputError, match=message):
        jaxpaint.inpaint(picture(), HOLE, **{"method": "harmonic", **arguments})


def test_progress_counts_the_windows():
    seen = []
    jaxpaint.inpaint(
        picture(), HOLE, "harmonic", progress=lambda *step: seen.append(step)
    )
    assert seen
    assert seen[-1][0] == seen[-1][1] == len(seen)
