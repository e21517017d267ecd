"""Mask samplers: contract of every kind, laws against published figures, parity."""

import argparse
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxpaint import masks
from jaxpaint.cli import masks as command
from jaxpaint.errors import InputError
from jaxpaint.masks import boxes, context_encoder, lama, raster, redraw, walks

ODD = (49, 70)
KEYS = jax.random.split(jax.random.key(0), 24)
# Undoes what `conftest.py` sets for programs that run once.
OPTIMIZED: dict[str, int | bool] = {"xla_backend_optimization_level": 3}
if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", ""):
    OPTIMIZED["xla_cpu_use_fusion_emitters"] = True
FIXED = ["alternating_lines", "center", "expand", "half", "super_resolve_2x"]


@functools.cache
def drawn(kind: str) -> np.ndarray:
    """Masks `[24, 49, 70, 1]` of a kind, one for each of `KEYS`."""
    batch = jax.vmap(functools.partial(masks.make(kind), ODD))
    return np.asarray(jax.jit(batch)(KEYS))


@functools.cache
def many(kind: str, number: int, size=(256, 256), **options) -> np.ndarray:
    """Masks `[number, H, W]` of a kind as bool; so many that optimizing pays."""
    sampler = functools.partial(masks.make(kind, **options), size)
    holes = jax.jit(
        jax.vmap(lambda key: sampler(key)[..., 0] > 0),
        compiler_options=OPTIMIZED,
    )
    keys = jax.random.split(jax.random.key(1), number)
    return np.concatenate([holes(keys[i : i + 50]) for i in range(0, number, 50)])


def shares(holes: np.ndarray) -> np.ndarray:
    return holes.reshape(len(holes), -1).mean(axis=1)


def standard_error(values: np.ndarray) -> float:
    return values.std(ddof=1) / math.sqrt(len(values))


# The contract of every kind.


@pytest.mark.parametrize("kind", masks.names())
def test_masks_are_zero_or_one_and_neither_empty_nor_full(kind):
    mask = drawn(kind)
    assert mask.shape == (24, *ODD, 1)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, 1}
    share = shares(mask)
    assert np.all((share > 0) & (share < 1))


# One kind for each path through the code: the others differ in numbers only.
@pytest.mark.parametrize(
    "kind",
    [
        *FIXED,
        *("boxes", "random_blocks", "random_region"),
        *("free_form", "wide", "irregular_30_40_border"),
    ],
)
def test_a_key_gives_the_same_mask_alone_or_in_a_batch_jitted_or_not(kind):
    alone = masks.make(kind)(ODD, KEYS[3])
    np.testing.assert_array_equal(drawn(kind)[3], alone)


@pytest.mark.parametrize("kind", masks.names())
def test_only_kinds_without_chance_ignore_the_key(kind):
    distinct = len(np.unique(drawn(kind).reshape(24, -1), axis=0))
    assert distinct == 1 if kind in FIXED else distinct > 20


@pytest.mark.parametrize("kind", masks.names())
@pytest.mark.parametrize("size", [(64, 64), (161, 33)])
def test_any_size_is_traced(kind, size):
    mask = jax.eval_shape(functools.partial(masks.make(kind), size), KEYS[0])
    assert mask.shape == (*size, 1)
    assert mask.dtype == jnp.float32


# Names and options.


def test_names_are_sorted_and_made_without_importing_jax():
    assert masks.names() == sorted(masks.names())
    code = (
        "import sys, argparse; from jaxpaint import masks; masks.names();"
        "from jaxpaint.cli import masks as c;"
        "c.add_arguments(argparse.ArgumentParser()); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_kinds_and_options_are_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'free_form'"):
        masks.make("freeform")
    with pytest.raises(InputError, match="did you mean 'max_area'"):
        masks.make("lama_thin", max_aera=0.5)
    with pytest.raises(InputError, match="has no options; got 'size'"):
        masks.make("half", size=3)


def test_options_override_those_of_the_kind():
    sampler = masks.make("glcic_box", side=(0.1, 0.1))
    assert sampler((80, 40), KEYS[0]).sum() == 8 * 4


# Masks of users.


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (2, 4, 6, 1)])
@pytest.mark.parametrize("kind", ["bool", "uint8", "white", "int64", "float64"])
def test_check_accepts_the_usual_masks(shape, kind):
    expected = np.arange(np.prod(shape)).reshape(shape) % 3 == 0
    mask = np.uint8(255) * expected if kind == "white" else expected.astype(kind)
    result = masks.check(mask)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


def test_check_thresholds_gray_masks_above_half_range():
    mask = np.array([[0, 1, 127, 128, 255]], np.uint8)
    np.testing.assert_array_equal(masks.check(mask), [[0, 0, 0, 1, 1]])
    wide = np.array([[0, 255, 32767, 32768]], np.uint16)
    np.testing.assert_array_equal(masks.check(wide), [[0, 0, 0, 1]])


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((4, 6, 3), np.uint8),
        np.zeros((2, 4, 6), bool),
        np.zeros(6, bool),
        np.zeros((0, 4), bool),
        np.full((4, 6), 0.5),
        np.full((4, 6), -1),
        np.full((4, 6), 255),
        np.full((4, 6), np.nan),
        np.full((4, 6), "1"),
        np.full((4, 6), 1j),
    ],
)
def test_check_refuses_other_shapes_types_and_values(mask):
    with pytest.raises(InputError, match=r"^mask .*\d"):
        masks.check(mask)


# Rasterisation.


def test_capsules_hold_the_pixels_within_their_radius():
    rng = np.random.default_rng(0)
    number, (height, width) = 300, (41, 70)
    start = rng.integers(-8, 78, (number, 2)).astype(np.int32)
    # Slopes of all kinds: a quarter of the segments level, upright, or points.
    move = rng.integers(-40, 41, (number, 2)) * rng.integers(0, 4, (number, 2)).clip(
        0, 1
    )
    end = (start + move).astype(np.int32)
    radius = (rng.integers(1, 90, number) / 4).astype(np.float32)

    @jax.jit
    @jax.vmap
    def draw(start, end, radius):
        packed = raster.capsules(
            (height, width),
            start[None],
            end[None],
            radius[None],
            jnp.array([True]),
        )
        return raster.unpack(packed, (height, width))[..., 0], raster.area(packed)

    mask, area = draw(start, end, radius)
    pixel = np.stack(np.mgrid[:height, :width], axis=-1)[None].astype(float)
    a, e = start[:, None, None].astype(float), move[:, None, None].astype(float)
    along = ((pixel - a) * e).sum(-1) / np.maximum((e * e).sum(-1), 1)
    nearest = a + np.clip(along, 0, 1)[..., None] * e
    square = ((pixel - nearest) ** 2).sum(-1)
    expected = square <= (radius**2)[:, None, None] + 1e-9
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(area, expected.sum((1, 2)))


def test_inactive_shapes_are_left_out_and_others_united():
    start = jnp.array([[4, 4], [20, 60], [20, 5]])
    radius = jnp.array([3.0, 2.0, 5.0])
    active = jnp.array([True, True, False])
    draw = jax.jit(functools.partial(raster.capsules, ODD))
    together = draw(start, start, radius, active)
    row, column = np.mgrid[: ODD[0], : ODD[1]]
    first = (row - 4) ** 2 + (column - 4) ** 2 <= 9
    second = (row - 20) ** 2 + (column - 60) ** 2 <= 4
    np.testing.assert_array_equal(raster.unpack(together, ODD)[..., 0], first | second)


@pytest.mark.parametrize("width", [31, 64, 70])
def test_boxes_of_any_width_are_packed_and_unpacked(width):
    size = (9, width)
    top, left = jnp.array([-1, 3]), jnp.array([0, width // 3])
    height, sides = jnp.array([3, 4]), jnp.array([width // 2, width])
    packed = raster.boxes(size, top, left, height, sides, jnp.array([True, True]))
    expected = np.zeros(size, bool)
    expected[:2, : width // 2] = True
    expected[3:7, width // 3 :] = True
    np.testing.assert_array_equal(raster.unpack(packed, size)[..., 0], expected)
    assert raster.area(packed) == expected.sum()


def test_walks_keep_their_bounds():
    low, high = jnp.array([[2, 3]]), jnp.array([[30, 50]])
    moves = jax.random.randint(jax.random.key(0), (40, 9, 2), -20, 21)
    start = jnp.full((40, 2), 10)
    clipped = np.asarray(walks.clipped(start, moves, low, high))
    turned = np.asarray(walks.turned_back(start, moves, low, high))
    for corners in (clipped, turned):
        assert corners.min(axis=(0, 1)).tolist() == [2, 3]
        assert np.all(corners <= high[None])
    on_bounds = [
        np.mean((c == low[None]) | (c == high[None])) for c in (clipped, turned)
    ]
    assert on_bounds[1] < on_bounds[0] / 3


def test_redraw_returns_the_first_accepted_draw_or_the_last():
    def draw(key):
        return jax.random.randint(key, (), 0, 6)

    @jax.jit
    @jax.vmap
    def rolled(key):
        six = redraw.redraw(draw, lambda value: value == 5, key)
        return six, redraw.redraw(draw, lambda value: value > 5, key, cap=3)

    keys = jax.random.split(jax.random.key(0), 20)
    six, capped = rolled(keys)
    assert np.all(np.asarray(six) == 5)
    third = jax.vmap(lambda key: draw(jax.random.fold_in(key, 2)))(keys)
    np.testing.assert_array_equal(capped, third)


# Boxes.


def test_boxes_cover_their_whole_range_of_sides_and_places():
    holes = many("glcic_box", 1000, (16, 32))
    rows, columns = holes.any(axis=2), holes.any(axis=1)
    # Sides of 3/8 to 1/2: 6 to 8 of 16 rows, 12 to 16 of 32 columns.
    assert set(rows.sum(axis=1)) == {6, 7, 8}
    assert set(columns.sum(axis=1)) == {12, 13, 14, 15, 16}
    np.testing.assert_array_equal(holes, rows[:, :, None] & columns[:, None, :])
    assert set(rows.argmax(axis=1)) == set(range(11))
    # Each of three heights has a chance of 1/3; 4 standard errors of a share.
    counts = np.bincount(rows.sum(axis=1))[6:]
    assert np.all(np.abs(counts - 1000 / 3) < 4 * math.sqrt(1000 * 2 / 9))


def test_several_boxes_keep_the_margin():
    holes = many("boxes", 100, (40, 60), margin=0.1, count=(2, 2))
    assert holes[:, 4:-4, 6:-6].sum() == holes.sum()
    assert holes[:, 4].any()
    assert holes[:, :, -7].any()
    most = max(ndimage.label(hole)[1] for hole in holes)
    assert most == 2


# Free-form brush.


def test_free_form_has_no_preferred_side():
    holes = many("free_form", 1000)
    halves = {
        "rows": (holes[:, :128], holes[:, 128:]),
        "columns": (holes[..., :128], holes[..., 128:]),
    }
    for first, second in halves.values():
        difference = shares(first) - shares(second)
        assert abs(difference.mean()) < 4 * standard_error(difference)


def test_free_form_covers_oblong_images_and_its_legacy_form_does_not():
    holes = many("free_form", 200, (64, 128))
    assert holes.any(axis=0).all()
    # Strokes confined to 64 columns would leave one of the two ends of each mask.
    ends = holes[..., :40].any(axis=(1, 2)) & holes[..., -40:].any(axis=(1, 2))
    assert ends.any()
    legacy = many("free_form_legacy", 200, (64, 128))
    # Corners stay within column 64, and the brush reaches 19 pixels further.
    assert legacy[..., 60:64].any()
    assert not legacy[..., 84:].any()


# LaMa. Reference: 500 draws of the published sampler at 256 x 256. Mean, standard
# deviation, the 5, 25, 50, 75, 95 % quantiles and the share above 0.5 of the hole
# share; mean and standard deviation of the number of 8-connected components.

LAMA = {
    "lama_thin": (
        0.2922,
        0.129,
        (0.077, 0.185, 0.304, 0.401, 0.474),
        0.028,
        6.34,
        2.43,
    ),
    "lama_medium": (
        *(0.2507, 0.132, (0.024, 0.174, 0.272, 0.345, 0.446), 0.012, 2.60, 1.13),
    ),
    "lama_thick": (
        *(0.3883, 0.216, (0.071, 0.221, 0.361, 0.557, 0.752), 0.324, 1.34, 0.57),
    ),
    "lama_training": (
        *(0.3487, 0.205, (0.064, 0.196, 0.314, 0.487, 0.747), 0.238, 1.33, 0.56),
    ),
    "lama_training_small": (
        *(0.2119, 0.154, (0.036, 0.074, 0.169, 0.330, 0.501), 0.052, 1.98, 1.33),
    ),
}


def assert_means_agree(ours: np.ndarray, mean: float, std: float, number: int) -> None:
    """Compares two sample means to 4 standard errors of their difference."""
    bound = 4 * math.sqrt(ours.var(ddof=1) / len(ours) + std**2 / number)
    assert abs(ours.mean() - mean) < bound


@pytest.mark.parametrize("kind", LAMA)
def test_lama_masks_have_the_published_statistics(kind):
    mean, std, quantiles, large, parts, parts_std = LAMA[kind]
    holes = many(kind, 500)
    share = shares(holes)
    assert_means_agree(share, mean, std, 500)
    # Of our draws the share p lies below the quantile p of the reference; the
    # difference of two binomial shares has variance p (1 - p) (1 / 500 + 1 / 500).
    # Half a unit of the last printed digit of the quantile adds less than 0.005.
    for level, quantile in zip((0.05, 0.25, 0.5, 0.75, 0.95), quantiles, strict=True):
        bound = 4 * math.sqrt(level * (1 - level) * 2 / 500) + 0.005
        assert abs(np.mean(share < quantile) - level) < bound
    bound = 4 * math.sqrt(large * (1 - large) * 2 / 500)
    assert abs(np.mean(share > 0.5) - large) < bound
    number = np.array([ndimage.label(h, np.ones((3, 3)))[1] for h in holes])
    assert_means_agree(number, parts, parts_std, 500)


def test_lama_masks_have_settings_of_their_own_at_512():
    share = shares(many("lama_thick", 200, (512, 512)))
    # As above; the settings for 256 would give 0.3883.
    assert_means_agree(share, 0.4572, 0.252, 500)


def test_lama_strokes_are_up_to_one_more_than_the_setting():
    settings = lama._Strokes(number=(2, 3), width=1, length=1)

    @jax.jit
    @jax.vmap
    def draw(key):
        packed = lama._strokes((512, 512), key, settings, 1.0)
        return raster.unpack(packed, (512, 512))[..., 0]

    parts = [ndimage.label(mask, np.ones((3, 3)))[1] for mask in draw(KEYS)]
    assert max(parts) == 4


def test_lama_masks_scale_with_the_image():
    large, small = many("lama_thick", 500), many("lama_thick", 500, (64, 64))
    mean, std = shares(large).mean(), shares(large).std()
    assert_means_agree(shares(small), mean, std, 500)


def test_max_area_is_kept_with_the_law_of_the_accepted_masks():
    every = shares(many("lama_thick", 500))
    accepted = every[every <= 0.5]
    kept = shares(many("wide", 500))
    assert kept.max() <= 0.5
    assert_means_agree(kept, accepted.mean(), accepted.std(), len(accepted))


# Irregular masks.


@pytest.mark.parametrize("kind", [k for k in masks.names() if "irregular" in k])
def test_irregular_masks_lie_in_their_bin(kind):
    low, high = (int(word) / 100 for word in kind.split("_")[1:3])
    share = shares(drawn(kind))
    assert np.all((share > low) & (share <= high))
    border = drawn(kind).copy()
    # 50 of 512 pixels: 5 of 49 rows, 7 of 70 columns.
    border[:, 5:-5, 7:-7] = 0
    assert border.any() != kind.endswith("border")


def test_irregular_masks_fill_their_bins_evenly():
    low = np.repeat(np.arange(0.1, 0.6, 0.1), 24)
    share = [shares(drawn(f"irregular_{i}0_{i + 1}0")) for i in range(1, 6)]
    place = (np.concatenate(share) - low) / 0.1
    # The target is uniform, of variance 1/12 in units of the bin, and the last stroke
    # overshoots it by less than a quarter on average.
    assert 0.5 - 4 / math.sqrt(12 * len(place)) < place.mean() < 0.75
    assert place.min() < 0.1
    assert place.max() > 0.9


def test_irregular_refuses_bins_that_no_mask_has():
    for size, options in [
        ((64, 64), {"ratio": (0.3, 0.2)}),
        ((64, 64), {"ratio": (0.8, 0.9), "border": 0.1}),
        ((4, 4), {"ratio": (0.0, 0.05)}),
    ]:
        with pytest.raises(InputError, match="no irregular mask"):
            masks.make("irregular_10_20", **options)(size, KEYS[0])


# Context Encoder.


def test_center_is_a_quarter_of_the_image():
    mask = masks.make("center")((128, 64), KEYS[0])[..., 0]
    assert mask[32:96, 16:48].all()
    assert mask.sum() == 64 * 32


def test_random_blocks_are_at_most_a_quarter_of_the_image():
    share = shares(drawn("random_blocks"))
    assert share.max() <= 0.25
    # The last square that would not fit is left out: most masks come near.
    assert share.mean() > 0.15


@pytest.mark.parametrize("size", [(128, 128), (96, 224)])
def test_random_regions_are_smooth_and_of_20_to_30_percent(size):
    holes = many("random_region", 100, size)
    share = shares(holes)
    assert np.all((share > 0.2) & (share < 0.3))
    # Lattice steps of 1/7.68 of the shorter side: a region wide as a step loses little
    # to an opening by 3 x 3, single pixels would be lost.
    opened = [ndimage.binary_opening(h, np.ones((3, 3))).mean() for h in holes]
    assert np.mean(opened) > 0.97 * share.mean()


def test_catmull_rom_weights_reproduce_straight_lines():
    step, phase = 7.3, 100
    weights = np.asarray(context_encoder._interpolation(60, step, jnp.int32(phase)))
    # Node 0 lies one step before the first pixel; positions are rounded down to 1/256
    # step and each of four weights to 1/512.
    position = np.arange(60) / step + phase / 256 + 1
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=4 / 1024)
    line = weights @ (np.arange(weights.shape[1]) - 5)
    np.testing.assert_allclose(line, position - 5, atol=1 / 256 + 4 * 6 / 1024)


# RePaint.


def test_fixed_masks_follow_their_geometry_at_any_size():
    row, column = np.mgrid[: ODD[0], : ODD[1]]
    expected = {
        "half": column >= 35,
        "alternating_lines": row % 2 == 0,
        "super_resolve_2x": ~((row % 2 == 1) & (column % 2 == 1)),
        "expand": ~((row >= 18) & (row < 30) & (column >= 26) & (column < 43)),
    }
    for kind, hole in expected.items():
        np.testing.assert_array_equal(drawn(kind)[0, ..., 0], hole)


# Parity with recorded masks and statistics.


def read_meta(folder: Path) -> dict:
    return json.loads((folder / "meta.json").read_text())


@pytest.mark.parity
@pytest.mark.parametrize(
    "kind", ["half", "expand", "alternating_lines", "super_resolve_2x"]
)
def test_fixed_repaint_masks_equal_the_published_files(fixtures, kind):
    for folder in sorted(fixtures.glob("repaint_masks*")):
        packed = np.load(folder / "io.npz")[kind]
        known = np.unpackbits(packed, axis=1).reshape(-1, 256, 256)
        mask = masks.make(kind)((256, 256), KEYS[0])[..., 0]
        for keep in known:
            np.testing.assert_array_equal(mask, 1 - keep)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["wide", "narrow"])
def test_random_repaint_masks_have_the_statistics_of_the_files(fixtures, kind):
    share = shares(many(kind, 500))
    assert 0.48 < share.max() <= 0.5
    for folder in sorted(fixtures.glob("repaint_masks*")):
        about = read_meta(folder)["statistics"][kind]
        theirs = 1 - np.array(about["per_image_known"])
        assert_means_agree(share, theirs.mean(), theirs.std(ddof=1), len(theirs))
        # Two-sample Kolmogorov-Smirnov distance at level 1e-4.
        n, m = len(share), len(theirs)
        at = np.sort(np.concatenate([share, theirs]))
        distance = np.abs(
            np.searchsorted(np.sort(share), at, side="right") / n
            - np.searchsorted(np.sort(theirs), at, side="right") / m
        ).max()
        assert distance < math.sqrt(-math.log(1e-4 / 2) / 2 * (n + m) / (n * m))


@pytest.mark.parity
def test_deepfill_masks_have_the_official_areas(fixtures):
    kinds = {
        "freeform": ["free_form", "free_form_legacy"],
        "bbox": ["deepfill_box"],
        "union": ["free_form_box", "free_form_box_legacy"],
    }
    # The fixture's tolerances for 1000 draws.
    tolerance = {"freeform": 0.008, "bbox": 0.003, "union": 0.007}
    for folder in sorted(fixtures.glob("deepfill_mask_stats*")):
        reference = read_meta(folder)["reference_means_12000_draws"]
        for name, ours in kinds.items():
            for kind in ours:
                share = shares(many(kind, 1000))
                assert abs(share.mean() - reference[name]) < tolerance[name]
                assert abs(share.std() / reference[f"{name}_std"] - 1) < 0.1


@pytest.mark.parity
def test_deepfill_boxes_have_the_official_sides_and_places(fixtures):
    holes = many("deepfill_box", 1000)
    rows, columns = holes.any(axis=2), holes.any(axis=1)
    for folder in sorted(fixtures.glob("deepfill_mask_stats*")):
        official = read_meta(folder)["statistics"]["bbox"]
        for axis, side, place in [(rows, "height", "top"), (columns, "width", "left")]:
            sides = axis.sum(axis=1)
            about = official[side]
            assert_means_agree(sides, about["mean"], about["std"], about["n"])
            assert (sides.min(), sides.max()) == (about["min"], about["max"])
            # The official numbers give the corner of the box before it shrinks.
            corner = axis.argmax(axis=1) - (128 - sides) // 2
            about = official[place]
            assert_means_agree(corner, about["mean"], about["std"], about["n"])
            assert corner.min() >= about["min"]
            assert corner.max() <= about["max"]


@pytest.mark.parity
def test_legacy_free_form_has_the_official_heat_maps(fixtures):
    square = many("free_form_legacy", 1000).mean(axis=0)
    oblong = many("free_form_legacy", 500, (256, 384)).mean(axis=0)
    maps = {
        "heat_256_quadrants": square.reshape(2, 128, 2, 128).mean(axis=(1, 3)),
        "heat_256_rows8": square.reshape(8, -1).mean(axis=1),
        "heat_256_cols8": square.reshape(256, 8, 32).mean(axis=(0, 2)),
        "heat_256x384_rows8": oblong.reshape(8, -1).mean(axis=1),
        "heat_256x384_cols12": oblong.reshape(256, 12, 32).mean(axis=(0, 2)),
    }
    for folder in sorted(fixtures.glob("deepfill_mask_stats*")):
        recorded = np.load(folder / "io.npz")
        for name, heat in maps.items():
            np.testing.assert_allclose(heat, recorded[name], atol=0.03)
            np.testing.assert_array_equal(heat == 0, recorded[name] == 0)


@pytest.mark.parity
def test_legacy_free_form_has_the_official_areas_at_other_sizes(fixtures):
    for folder in sorted(fixtures.glob("deepfill_mask_stats*")):
        statistics = read_meta(folder)["statistics"]
        for number, size in [(200, (512, 512)), (500, (256, 384))]:
            name = "512" if size[0] == 512 else "256x384"
            about = statistics[f"freeform_area_fraction_{name}"]
            share = shares(many("free_form_legacy", number, size))
            assert_means_agree(share, about["mean"], about["std"], about["n"])


# The command.


def masks_command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def test_command_writes_masks_and_a_sheet(tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    flags = ("--kind", "boxes", "--size", "24x32", "--output", str(folder))
    assert masks_command(*flags, "--count", "3", "--seed", "5") == 0
    names = ["boxes_000.png", "boxes_001.png", "boxes_002.png", "boxes_sheet.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    keys = [jax.random.fold_in(jax.random.key(5), i) for i in range(3)]
    written = [np.asarray(Image.open(folder / name)) for name in names[:3]]
    for image, key in zip(written, keys, strict=True):
        mask = boxes.boxes((24, 32), key)[..., 0]
        np.testing.assert_array_equal(image, 255 * np.asarray(mask))
    sheet = Image.open(folder / "boxes_sheet.png")
    assert sheet.mode == "L"
    np.testing.assert_array_equal(np.asarray(sheet)[4:28, 4:36], written[0])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert f"mean hole share {np.mean(written) / 255:.3f}" in out


def test_command_gives_the_same_masks_however_many(tmp_path):
    flags = ("--kind", "boxes", "--size", "24", "--output")
    masks_command(*flags, str(tmp_path / "few"), "--count", "2")
    masks_command(*flags, str(tmp_path / "many"), "--count", "18")
    assert len(list((tmp_path / "many").iterdir())) == 19
    for name in ["boxes_000.png", "boxes_001.png"]:
        few, many = (tmp_path / folder / name for folder in ("few", "many"))
        assert few.read_bytes() == many.read_bytes()
    last = {path.read_bytes() for path in (tmp_path / "many").iterdir()}
    assert len(last) == 19


def test_command_replaces_files_only_when_told(tmp_path):
    flags = ("--kind", "half", "--size", "16", "--output", str(tmp_path), "--count=2")
    (tmp_path / "half_001.png").write_text("precious")
    with pytest.raises(InputError, match=r"half_001.png exists \(1 of 3 files do\)"):
        masks_command(*flags)
    assert [path.name for path in tmp_path.iterdir()] == ["half_001.png"]
    assert masks_command(*flags, "--overwrite") == 0
    assert Image.open(tmp_path / "half_001.png").size == (16, 16)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--kind", "wid"], "did you mean 'wide'"),
        (["--size", "12by3"], "want a side like 256"),
        (["--size", "-5"], "want a side like 256"),
        (["--size", "4x400"], "sides from 8 to 8192"),
        (["--count", "0"], "--count is 0"),
        (["--seed", "-1"], "--seed is -1"),
    ],
)
def test_command_refuses_what_it_cannot_follow(tmp_path, flags, message):
    output = tmp_path / "out"
    with pytest.raises(InputError, match=message):
        masks_command("--kind", "half", "--output", str(output), *flags)
    assert not output.exists()


def test_command_refuses_a_file_as_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        masks_command("--kind", "half", "--output", str(tmp_path / "file"))
