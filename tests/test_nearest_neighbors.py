import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint.errors import InputError
from jaxpaint.nearest_neighbors import nearest_neighbor_field

KEY = jax.random.key(0)


def noise(height: int, width: int, batch: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.random((batch, height, width, 3), np.float32)


def windows(image: np.ndarray, size: int = 7) -> np.ndarray:
    """Returns all patches of `[H, W, C]`, as `[H', W', size * size * C]`."""
    view = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))
    return view.reshape(*view.shape[:2], -1)


def test_an_image_matches_itself_nearly_everywhere():
    image = noise(40, 37)
    field = nearest_neighbor_field(image, image, KEY)
    rows, columns = np.mgrid[:34, :31]
    identity = np.stack([rows, columns], axis=-1)
    hits = np.all(np.asarray(field.position[0]) == identity, axis=-1)
    assert hits.mean() > 0.99
    np.testing.assert_allclose(field.distance[0][hits], 0, atol=1e-6)


def test_a_shifted_copy_gives_its_offset():
    image = noise(48, 52)
    a, b = image[:, 5:45, 7:47], image
    position = np.asarray(nearest_neighbor_field(a, b, KEY).position[0])
    rows, columns = np.mgrid[:34, :34]
    offset = position - np.stack([rows, columns], axis=-1)
    assert np.mean(np.all(offset == (5, 7), axis=-1)) > 0.99


def test_positions_lie_inside_and_distances_are_theirs():
    a, b = noise(30, 24), noise(21, 33)[..., ::-1]
    field = nearest_neighbor_field(a, b, KEY, patch_size=5, iterations=1)
    position = np.asarray(field.position[0])
    assert position.min() >= 0
    assert np.all(position.max((0, 1)) <= (16, 28))
    matched = windows(b[0], 5)[position[..., 0], position[..., 1]]
    expected = np.sum((windows(a[0], 5) - matched) ** 2, axis=-1)
    np.testing.assert_allclose(field.distance[0], expected, rtol=1e-5)


def test_mean_distance_never_rises_between_iterations():
    a, b = noise(32, 32), noise(32, 32)[:, ::-1]
    fields = [nearest_neighbor_field(a, b, KEY, iterations=i) for i in range(1, 7)]
    distances = np.stack([field.distance for field in fields])
    assert np.all(np.diff(distances, axis=0) <= 0)
    assert distances[-1].mean() < distances[0].mean()


def test_equal_keys_give_equal_fields_and_others_do_not():
    a, b = noise(24, 24), noise(24, 24)[:, ::-1]
    first = nearest_neighbor_field(a, b, KEY).position
    again = nearest_neighbor_field(a, b, KEY).position
    other = nearest_neighbor_field(a, b, jax.random.key(1)).position
    assert jnp.all(first == again)
    assert not jnp.all(first == other)


def test_a_batch_equals_its_images_one_by_one():
    a, b = noise(20, 22, batch=2), noise(25, 18, batch=2)
    together = nearest_neighbor_field(a, b, KEY)
    single = [nearest_neighbor_field(a[i : i + 1], b[i : i + 1], KEY) for i in (0, 1)]
    alone = jax.tree.map(lambda *x: jnp.concatenate(x), *single)
    assert jnp.all(together.position == alone.position)
    assert jnp.all(together.distance == alone.distance)


@pytest.mark.parametrize(
    ("a_shape", "b_shape", "options", "words"),
    [
        ((1, 9, 9, 3), (1, 9, 9, 1), {}, "equal B and C"),
        ((1, 9, 9, 3), (2, 9, 9, 3), {}, "equal B and C"),
        ((9, 9, 3), (9, 9, 3), {}, "equal B and C"),
        ((1, 9, 9, 3), (1, 9, 6, 3), {}, "patch_size"),
        ((1, 9, 9, 3), (1, 9, 9, 3), {"patch_size": 0}, "patch_size"),
        ((1, 9, 9, 3), (1, 9, 9, 3), {"iterations": 0}, "iterations"),
    ],
)
def test_what_does_not_go_together_is_refused(a_shape, b_shape, options, words):
    with pytest.raises(InputError, match=words):
        nearest_neighbor_field(jnp.zeros(a_shape), jnp.zeros(b_shape), KEY, **options)


@pytest.mark.parity
def test_as_close_as_the_sequential_search(fixtures):
    """Mean over five keys, from the second iteration on; origin: the fixture's README.

    The jump-flooding search spends more comparisons per iteration than the sequential
    one, and is expected a few per cent ahead; 5 % behind is the bound.
    """
    folder = fixtures / "classical_nnf"
    pairs = np.load(folder / "nnf.npz")
    for name, curves in json.loads((folder / "curves.json").read_text()).items():
        a, b = (pairs[f"{name}_{side}"][None].astype(np.float32) / 255 for side in "AB")
        for iteration in range(2, 6):
            mean = np.mean(
                [
                    nearest_neighbor_field(
                        a, b, jax.random.key(seed), iterations=iteration
                    ).distance.mean()
                    for seed in range(5)
                ]
            )
            assert mean <= 1.05 * curves["sequential_mean"][iteration], name
            assert mean >= curves["exact_mean"], name


@pytest.mark.parity
def test_no_distance_is_below_the_exact_one(fixtures):
    pairs = np.load(fixtures / "classical_nnf" / "nnf.npz")
    a, b = (pairs[f"brick_{side}"][None].astype(np.float32) / 255 for side in "AB")
    distance = nearest_neighbor_field(a, b, KEY).distance[0]
    assert np.all(np.asarray(distance) >= pairs["brick_dist"] * (1 - 1e-5))
