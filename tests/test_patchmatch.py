import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint.errors import InputError
from jaxpaint.hole_pyramid import hole_depth, hole_pyramid
from jaxpaint.methods import patchmatch
from jaxpaint.methods.patchmatch import Options, make
from jaxpaint.patch_search import list_positions, patches, search

KEY = jax.random.key(0)
# Large enough for two levels, which the holes in the middle need.
SHAPE = (72, 64)
FILL = jax.jit(lambda image, mask, key: make().inpaint({}, image, mask, key))


def noise(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # Without zeros, so that a read from the hole shows.
    return rng.uniform(0.1, 1, (1, *SHAPE, 3)).astype(np.float32)


def box(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((1, *SHAPE, 1), np.float32)
    mask[:, rows, columns] = 1
    return mask


ALL = slice(None)
CENTER = box(slice(24, 44), slice(22, 40))
FRAME = 1 - box(slice(3, -3), slice(3, -3))
ALL_BUT_ONE = 1 - box(slice(20, 21), slice(9, 10))
HOLES = {
    "one pixel": box(slice(20, 21), slice(9, 10)),
    "center": CENTER,
    "corner": box(slice(0, 11), slice(50, 64)),
    "whole rows": box(slice(20, 25), ALL),
    "all borders": FRAME,
    "one patch known": 1 - box(slice(40, 47), slice(30, 37)),
    "no whole patch known": 1 - box(slice(20, 26), slice(10, 16)),
    "all but one pixel": ALL_BUT_ONE,
}


@pytest.mark.parametrize("name", HOLES)
def test_only_the_hole_is_filled_and_only_from_known_pixels(name):
    image, mask = noise(), HOLES[name]
    hidden = np.where(mask > 0, np.float32(np.nan), image)
    fill = np.asarray(FILL(hidden, mask, KEY))
    assert np.all(np.isfinite(fill))
    known = np.broadcast_to(mask == 0, fill.shape)
    assert np.array_equal(fill[known], image[known])
    # Votes are means, so the fill cannot leave the range of what is known.
    assert fill.min() >= image[known].min() - 1e-5
    assert fill.max() <= image[known].max() + 1e-5


def test_an_empty_mask_returns_the_input():
    image = noise()
    assert np.array_equal(FILL(image, np.zeros((1, *SHAPE, 1)), KEY), image)


def test_an_image_that_is_all_hole_becomes_finite():
    fill = FILL(np.full((1, *SHAPE, 3), np.nan), np.ones((1, *SHAPE, 1)), KEY)
    assert np.all(np.isfinite(fill))


def test_a_periodic_texture_is_continued():
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    tile = np.random.default_rng(0).uniform(-1, 1, (5, 4, 3)).astype(np.float32)
    image = tile[row % 5, column % 4][None]
    fill = np.asarray(FILL(image, CENTER, KEY))
    assert np.abs(fill - image).mean() / CENTER.mean() < 0.02


def test_equal_keys_give_equal_fills_and_others_do_not():
    image = noise()
    first, again = FILL(image, CENTER, KEY), FILL(image, CENTER, KEY)
    other = FILL(image, CENTER, jax.random.key(1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_batch_equals_its_images_one_by_one():
    images = np.concatenate([noise(i) for i in range(3)])
    masks = np.concatenate([HOLES[name] for name in ("center", "corner", "one pixel")])
    together = FILL(images, masks, KEY)
    for i in range(3):
        alone = FILL(images[i : i + 1], masks[i : i + 1], KEY)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-6)


def test_jit_equals_eager():
    image = noise()
    eager = make().inpaint({}, image, CENTER, KEY)
    np.testing.assert_allclose(FILL(image, CENTER, KEY), eager, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16, 3), (5, 30, 1)])
def test_tiny_and_gray_images_are_filled(shape):
    image = jnp.broadcast_to(
        jnp.linspace(-1, 1, shape[1])[None, None, :, None], (1, *shape)
    )
    mask = np.zeros((1, *shape[:2], 1), np.float32)
    mask[:, 1:4, 5:11] = 1
    fill = make().inpaint({}, jnp.where(mask > 0, jnp.nan, image), mask, KEY)
    assert fill.shape == image.shape
    assert jnp.max(jnp.abs(fill - image)) < 0.7


@pytest.mark.parametrize(
    "option",
    [
        {"patch_size": 4},
        {"patch_size": 1},
        {"levels": 0},
        {"rounds": 0},
        {"final_rounds": 0},
        {"decay": 0.9},
        {"filled_weight": 0},
    ],
)
def test_options_out_of_range_are_refused(option):
    with pytest.raises(InputError, match=next(iter(option))):
        make(**option)


def test_matches_stay_in_the_source_and_distances_are_theirs():
    image = jnp.asarray(noise()[0])
    rng = np.random.default_rng(0)
    source = rng.random(SHAPE) < 0.3
    source[-4:] = source[:, -4:] = False
    targets = list_positions(
        jnp.asarray(rng.random(SHAPE) < 0.2).at[-4:].set(False), 64
    )

    def distance(at, candidate):
        difference = patches(image, at, 5)[:, None] - patches(image, candidate, 5)
        return jnp.sum(difference**2, axis=(-2, -1))

    start = jnp.full(targets.at.size, np.flatnonzero(source)[0], jnp.int32)
    match, best = search(
        start,
        targets,
        distance,
        jnp.asarray(source),
        KEY,
        passes=8,
        bounds=jnp.array([SHAPE[0] - 4, SHAPE[1] - 4]),
        longest=68,
        target_width=SHAPE[1],
        chunk=64,
    )
    count = int(targets.length)
    match, at = match[:count], targets.at[:count]
    assert np.all(source.reshape(-1)[match])
    np.testing.assert_allclose(best[:count], distance(at, match[:, None])[:, 0], 1e-5)
    assert jnp.mean(best[:count]) < jnp.mean(distance(at, start[:count, None]))


def test_random_search_reaches_every_corner():
    image = jnp.asarray(noise()[0, :24, :20])
    corners = jnp.zeros((24, 20), bool).at[::19, ::15].set(True)
    source = jnp.zeros((24, 20), bool).at[:20, :16].set(True)

    def distance(at, candidate):
        difference = patches(image, at, 5)[:, None] - patches(image, candidate, 5)
        return jnp.sum(difference**2, axis=(-2, -1))

    targets = list_positions(corners, 4)
    match, _ = search(
        jnp.full(targets.at.size, 9 * 20 + 7),
        targets,
        distance,
        source,
        KEY,
        passes=4000,
        bounds=jnp.array([20, 16]),
        longest=20,
        target_width=20,
        chunk=4,
    )
    assert targets.length == 4
    assert np.array_equal(match[:4], targets.at[:4])


def test_matches_of_the_level_above_keep_their_offset_doubled():
    size = 7
    step = -9 * SHAPE[1] + 7
    hole = jnp.asarray(box(slice(30, 38), slice(28, 36))[0, ..., 0] > 0)

    @jax.jit
    def start(image):
        pyramid = hole_pyramid(image, hole, patch_size=size, levels=2)
        options = Options(size, 2, 1, 1, 1.3, 0.1)
        level = patchmatch._level(pyramid, jnp.int32(0), options)
        coarse = jnp.arange(hole.size) + step
        match, weight = patchmatch._start(level, coarse, size, KEY)
        return match - level.targets.at, weight - level.log_confidence, level.live()

    moved, doubt, live = start(jnp.where(hole[..., None], 0, noise()[0]))
    assert live.sum() == (8 + size - 1) ** 2
    assert np.all(moved[live] == 2 * step)
    assert np.all(doubt[live] == 0)


def test_depth_is_the_distance_from_the_known_region():
    row, column = np.mgrid[:41, :41] - 20
    radius = np.hypot(row, column)
    depth = np.asarray(hole_depth(jnp.asarray(radius < 18)))
    assert np.array_equal(depth > 0, radius < 18)
    assert np.max(np.abs(depth - np.clip(18 - radius, 0, None))) < 2


def test_coarse_pixels_average_the_known_ones():
    image = jnp.asarray(noise()[0])
    hole = jnp.zeros(SHAPE, bool).at[:2, :1].set(True).at[:2, 2:5].set(True)
    known = jnp.where(hole[..., None], 0, image)
    pyramid = jax.jit(hole_pyramid, static_argnames=("patch_size", "levels"))(
        jnp.tile(known, (2, 2, 1)), jnp.tile(hole, (2, 2)), patch_size=3, levels=2
    )
    coarse = pyramid.image[1]
    assert np.array_equal(np.flatnonzero(pyramid.hole[1][0, :32]), [1])
    np.testing.assert_allclose(coarse[0, 0], image[:2, 1].mean(0), atol=1e-6)
    assert np.all(coarse[0, 1] == 0)
    np.testing.assert_allclose(coarse[0, 2], image[:2, 5].mean(0), atol=1e-6)
    either = pyramid.target[0] ^ pyramid.source[0]
    assert either[:142, :126].all()
    assert either.sum() == 142 * 126
