"""Windows around holes: complete, large enough, few shapes, and without effect."""

import jax
import numpy as np
import pytest

import jaxpaint
from jaxpaint import methods, regions
from jaxpaint.types import Window

LOCAL = Window(margin=4, splits=True)
SQUARE = Window(margin=8, relative=0.5, size=64)


def photo(height, width, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + p) * np.cos(y / 23 - p) for p in (0, 1, 2)]
    image = 110 + 70 * np.stack(waves, -1) + rng.normal(0, 4, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8)


def specks(height, width, count, seed=0):
    rng = np.random.default_rng(seed)
    hole = np.zeros((height, width), bool)
    for _ in range(count):
        row, col = rng.integers(height), rng.integers(width)
        hole[row : row + rng.integers(1, 30), col : col + rng.integers(1, 30)] = True
    return hole


def scratch_with_blots(height, width):
    """One connected hole, thin and long, with wide places."""
    hole = scratch(height, width)
    y, x = np.mgrid[:height, :width]
    for row in range(height // 4, height, height // 4):
        hole |= (y - row) ** 2 + (x - row * width // height) ** 2 < 30**2
    return hole


def scratch(height, width):
    hole = np.zeros((height, width), bool)
    for row in range(height):
        col = int(row * (width - 4) / height)
        hole[row, col : col + 4] = True
    return hole


@pytest.mark.parametrize(
    "hole",
    [
        specks(300, 400, 40),
        scratch(1500, 1200),
        scratch_with_blots(1500, 1200),
        np.eye(700, dtype=bool),
    ],
    ids=["specks", "scratch", "blots", "diagonal"],
)
@pytest.mark.parametrize("window", [LOCAL, Window(margin=20, relative=0.5), SQUARE])
def test_each_hole_pixel_is_pasted_exactly_once_from_inside_its_window(hole, window):
    plan = regions.plan(hole, window)
    pasted = np.zeros(hole.shape, int)
    for piece in plan.pieces:
        for core, cut, length in zip(piece.core, piece.window, hole.shape, strict=True):
            assert 0 <= cut.start <= core.start
            assert core.stop <= cut.stop <= length
        pasted[piece.core] += np.isin(plan.labels[piece.core], piece.labels)
    np.testing.assert_array_equal(pasted, hole)


def test_surroundings_are_as_wide_as_asked_unless_the_photo_ends():
    hole = np.zeros((500, 600), bool)
    hole[200:240, 300:350] = True
    (piece,) = regions.plan(hole, Window(margin=10, relative=1.0)).pieces
    rows, cols = piece.window
    assert rows.start <= 200 - 60
    assert rows.stop >= 240 + 60
    assert cols.start <= 300 - 60
    assert cols.stop >= 350 + 60


def test_many_holes_take_few_shapes():
    plan = regions.plan(specks(3000, 4000, 300), LOCAL)
    shapes = {tuple(s.stop - s.start for s in piece.window) for piece in plan.pieces}
    assert len(shapes) <= 3


@pytest.mark.parametrize(
    ("boxes", "sides"),
    [
        ([(100, 100, 30)], [64]),
        # Two times its side, for surroundings: scaled by two.
        ([(100, 100, 40)], [128]),
        # Together in 48 pixels: as large as one hole may not be.
        ([(100, 100, 10), (138, 130, 10)], [64]),
        ([(100, 100, 10), (139, 130, 10)], [64, 64]),
        # A hole that is scaled makes no other one lose detail.
        ([(20, 20, 40), (100, 100, 10)], [64, 128]),
    ],
)
def test_holes_share_a_square_of_one_size_where_none_is_scaled(boxes, sides):
    hole = np.zeros((300, 300), bool)
    for row, col, side in boxes:
        hole[row : row + side, col : col + side] = True
    pieces = regions.plan(hole, SQUARE).pieces
    for piece in pieces:
        assert len({s.stop - s.start for s in piece.seen}) == 1
        for seen, cut in zip(piece.seen, piece.window, strict=True):
            assert cut.start <= seen.start
            assert seen.stop <= cut.stop
    assert sorted(s.stop - s.start for s, _ in (p.seen for p in pieces)) == sides
    # One shape is compiled for all, unless the method sees all of it.
    assert {s.stop - s.start for p in pieces for s in p.window} == {max(sides)}
    for piece in regions.plan(hole, SQUARE._replace(whole=True)).pieces:
        assert piece.window == piece.seen


def test_a_long_thin_hole_costs_far_less_than_its_box():
    cuts = [piece.window for piece in regions.plan(scratch(3000, 3000), LOCAL).pieces]
    pixels = sum((r.stop - r.start) * (c.stop - c.start) for r, c in cuts)
    assert pixels < 0.5 * 3000**2


def test_pieces_of_a_thin_hole_overlap_by_64_pixels():
    hole = scratch(1500, 1200)
    for piece in regions.plan(hole, LOCAL).pieces:
        for core, cut, length in zip(piece.core, piece.window, hole.shape, strict=True):
            assert cut.start <= max(0, core.start - 64)
            assert cut.stop >= min(length, core.stop + 64)


def test_memory_is_bounded_however_many_holes_there_are():
    plan = regions.plan(specks(3000, 4000, 2000), LOCAL)
    sides = [s.stop - s.start for piece in plan.pieces for s in piece.window]
    assert max(sides) < 1500


def test_cost_follows_the_hole():
    hole = np.zeros((3000, 4000), bool)
    hole[100:140, 100:140] = hole[2900:2940, 3900:3940] = True
    cuts = [piece.window for piece in regions.plan(hole, LOCAL).pieces]
    pixels = sum((r.stop - r.start) * (c.stop - c.start) for r, c in cuts)
    assert pixels < 50_000


def test_a_hole_nearby_does_not_change_what_a_square_shows():
    # Both in windows that are as large as the second one needs.
    image, hole = photo(300, 300), np.zeros((300, 300), bool)
    hole[40:60, 40:60] = True
    alone = hole.copy()
    hole[110:190, 40:120] = True
    options = {"image_size": 64, "width": 4, "critic_width": 4, "fixed_size": True}
    method = jaxpaint.make("deepfill_v1", **options)
    example = methods.example(64)
    params = method.eval_params(jax.jit(method.init)(jax.random.key(0), example))
    assert len({p.window[0].stop for p in regions.plan(hole, method.window).pieces}) > 1
    fills = [
        jaxpaint.inpaint(image, mask, "deepfill_v1", options=options, params=params)
        for mask in (hole, alone)
    ]
    # Places are rounded to whole pixels.
    apart = np.abs(fills[0].astype(int) - fills[1])[40:60, 40:60]
    assert apart.max() <= 1


@pytest.mark.parametrize(
    "hole",
    [specks(400, 500, 4), scratch(1100, 700), scratch_with_blots(1100, 700)],
    ids=["specks", "scratch", "blots"],
)
def test_windows_give_the_fill_of_the_whole_photo(hole, monkeypatch):
    image = photo(*hole.shape)
    parts = jaxpaint.inpaint(image, hole, "harmonic")
    assert len(regions.plan(hole, LOCAL).pieces) > 1
    everything = tuple(slice(0, n) for n in hole.shape)
    one = regions.Plan(
        hole.astype(np.int32),
        [regions.Piece(everything, everything, np.array([1]), everything)],
    )
    monkeypatch.setattr(regions, "plan", lambda hole, window: one)
    whole = jaxpaint.inpaint(image, hole, "harmonic")
    assert np.abs(parts.astype(int) - whole).max() <= 1
