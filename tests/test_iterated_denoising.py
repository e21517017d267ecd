import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint.errors import InputError
from jaxpaint.methods import iterated_denoising, make
from jaxpaint.methods.iterated_denoising import Stage

SHAPE = (2, 40, 48, 3)
KEY = jax.random.key(0)
METHOD = make("iterated_denoising", passes=8)
fill = jax.jit(lambda image, mask: METHOD.inpaint({}, image, mask, KEY))


def stripes(shape: tuple[int, ...], period: float = 6.5) -> np.ndarray:
    """Oblique waves, another direction in each image of the batch."""
    batch, height, width, channels = shape
    row, column = np.mgrid[:height, :width]
    images = []
    for i in range(batch):
        phase = 2 * np.pi / period * (row * np.cos(i + 0.6) + column * np.sin(i + 0.6))
        images.append(0.8 * np.stack([np.sin(phase + c) for c in range(channels)], -1))
    return np.asarray(images, np.float32)


def strokes(shape: tuple[int, ...]) -> np.ndarray:
    """Thin lines, some of them along and across the image's border."""
    mask = np.zeros((*shape[:3], 1), np.float32)
    mask[0, 10:13], mask[0, :, 20:22], mask[0, :2, :9] = 1, 1, 1
    mask[1:, -1, :], mask[1:, :, 7], mask[1:, 15:19, 9:30] = 1, 1, 1
    return mask


def error(result: jax.Array, truth: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square over the hole."""
    difference = np.asarray(result - truth)[np.broadcast_to(mask > 0, truth.shape)]
    return float(np.sqrt(np.mean(difference**2)))


@pytest.mark.parametrize("size", [1, 8, 32])
def test_dct_basis_is_orthonormal_with_the_constant_first(size):
    basis = np.asarray(iterated_denoising.dct_basis(size))
    np.testing.assert_allclose(basis @ basis.T, np.eye(size), atol=1e-6)
    np.testing.assert_allclose(basis[0], size**-0.5, rtol=1e-6)


def test_denoise_keeps_large_coefficients_and_the_mean_in_all_channels():
    basis = np.asarray(iterated_denoising.dct_basis(8))
    strong, weak = np.outer(basis[2], basis[5]), np.outer(basis[1], basis[1])
    first, second = 0.01 + 3 * strong + 0.5 * weak, 0.02 + 0.1 * strong - 0.5 * weak
    patch = jnp.asarray(np.stack([first, second])[None], jnp.float32)
    expected = np.stack([0.01 + 3 * strong, 0.02 + 0.1 * strong])[None]
    result = iterated_denoising.denoise(patch, jnp.float32(0.6))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_shifts_fall_into_every_quarter_of_the_block_in_each_short_run():
    for start in (0, 37, 1000):
        points = iterated_denoising.shifts(start, 40, 16)
        assert points.min() >= 0
        assert points.max() < 16
        assert len(np.unique(points // 4, axis=0)) == 16


def test_waves_go_on_through_strokes():
    truth, mask = stripes(SHAPE), strokes(SHAPE)
    image = np.where(mask > 0, 0, truth)
    smooth = jax.vmap(iterated_denoising.smooth_fill)(image, 1 - mask)
    assert error(fill(image, mask), truth, mask) < 0.25 * error(smooth, truth, mask)


def test_known_pixels_return_bit_for_bit_and_hole_content_is_never_read():
    truth, mask = 1.5 * stripes(SHAPE), strokes(SHAPE)  # out of range: no clipping
    result = fill(truth, mask)
    known = np.broadcast_to(mask == 0, SHAPE)
    np.testing.assert_array_equal(np.asarray(result)[known], truth[known])
    poisoned = np.where(mask > 0, np.nan, truth).astype(np.float32)
    np.testing.assert_array_equal(fill(poisoned, mask), result)


def test_batch_equals_one_by_one_and_jit_equals_eager():
    image, mask = stripes(SHAPE), strokes(SHAPE)
    together = fill(image, mask)
    for i in range(SHAPE[0]):
        alone = METHOD.inpaint({}, image[i : i + 1], mask[i : i + 1], KEY)
        np.testing.assert_array_equal(alone[0], together[i])


def test_empty_mask_returns_the_image_and_full_mask_a_flat_one():
    image = stripes(SHAPE)
    mask = np.stack([np.zeros((*SHAPE[1:3], 1)), np.ones((*SHAPE[1:3], 1))])
    result = fill(image, mask.astype(np.float32))
    np.testing.assert_array_equal(result[0], image[0])
    np.testing.assert_array_equal(result[1], np.zeros(SHAPE[1:]))


def test_wide_hole_fades_to_a_fill_within_the_range_around_it():
    ramp = np.broadcast_to(np.linspace(-0.9, 0.9, SHAPE[2])[:, None], SHAPE)
    ramp = ramp.astype(np.float32)
    mask = np.zeros((*SHAPE[:3], 1), np.float32)
    mask[:, 4:-4, 8:-8] = 1
    result = fill(ramp, mask)
    assert np.max(np.abs(result - ramp)) < 0.25
    flat = np.full(SHAPE, 0.3, np.float32)
    np.testing.assert_allclose(fill(flat, mask), flat, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (1, 9, 70, 3)])
def test_any_size_is_finite_and_in_range(shape):
    image, mask = np.sign(stripes(shape)), np.zeros((*shape[:3], 1), np.float32)
    mask[:, :3, :5], mask[:, 4], mask[:, :, -1] = 1, 1, 1
    result = METHOD.inpaint({}, image, mask, KEY)
    assert result.shape == shape
    assert np.all(np.abs(result) <= 1)


def test_gray_equals_its_repetition_in_three_channels():
    gray, hole = stripes(SHAPE)[:1, ..., :1], strokes(SHAPE)[:1, ..., 0] > 0
    x = jnp.moveaxis(jnp.where(hole[..., None], 0, gray), -1, 1)[0]
    stage = Stage(8, (0.5, 0.1), 0.7, 1)
    one = iterated_denoising.run_stage(x, hole[0], stage, 6, 0)
    three = iterated_denoising.run_stage(jnp.repeat(x, 3, axis=0), hole[0], stage, 6, 0)
    np.testing.assert_allclose(three, jnp.repeat(one, 3, axis=0), atol=1e-5)


def test_no_block_is_lost_when_the_list_is_longer_than_a_chunk(monkeypatch):
    x = jnp.moveaxis(stripes((1, 96, 96, 1)), -1, 1)[0]
    hole = jnp.zeros((96, 96), bool).at[::4].set(True)
    x = jnp.where(hole[None], 0, x)
    stage = Stage(8, (1.0, 0.1), 1.0, 1)
    chunked = iterated_denoising.run_stage(x, hole, stage, 3, 0)
    monkeypatch.setattr(iterated_denoising, "CHUNK", 32 * 8**2)
    finer = iterated_denoising.run_stage(x, hole, stage, 3, 0)
    np.testing.assert_allclose(finer, chunked, atol=1e-5)
    # A hole row left at its start value of 0 would be a lost block.
    assert np.all(np.abs(finer[0, ::4]).max(1) > 0.1)


def test_passes_below_one_are_refused():
    with pytest.raises(InputError, match="passes is 0; want 1 or more"):
        make("iterated_denoising", passes=0)
