"""Sources, order, loading, prefetching and augmentation of training pictures."""

import contextlib
import functools
import itertools
import logging
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import Image

from jaxpaint import images, masks
from jaxpaint.config import Data
from jaxpaint.data import loader, order
from jaxpaint.data.augment import prepare
from jaxpaint.data.folder import FolderSource
from jaxpaint.data.pictures import Pictures, scale
from jaxpaint.data.prefetch import Prefetch
from jaxpaint.data.sources import open_source
from jaxpaint.errors import InputError

SMALL = Data(image_size=8, batch_size=4, workers=2)


class Counting:
    """Pictures `[8, 12 + i, 3]` full of i; remembers what was read."""

    def __init__(self, count, bad=()):
        self.count, self.bad, self.reads = count, bad, []

    def __len__(self):
        return self.count

    def read(self, index, short_side=0):
        self.reads.append(index)
        if index in self.bad:
            raise InputError(f"{self.name(index)} is damaged")
        return np.full((8, 12 + index, 3), index % 256, np.uint8)

    def name(self, index):
        return f"picture {index}"


def take(source, data, count, **options):
    with contextlib.closing(loader.batches(source, data, **options)) as batches:
        return list(itertools.islice(batches, count))


def save(folder, name, size=(20, 16), seed=0, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


# Order


def test_an_epoch_holds_each_index_once():
    for epoch in range(3):
        where = range(epoch * 37, (epoch + 1) * 37)
        assert sorted(order.indices(where, 37, seed=5)) == list(range(37))


def test_epochs_and_seeds_have_orders_of_their_own():
    drawn = {
        tuple(order.indices(range(37 * epoch, 37 * epoch + 37), 37, seed))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(drawn) == 4


def test_order_and_windows_stay_what_they_were():
    # Another order would change the runs that are resumed after an update.
    assert list(order.permutation(10, 7, 2)) == PERMUTATION
    assert [order.window(p, 7, 100) for p in range(6)] == WINDOWS


PERMUTATION = [6, 7, 8, 4, 0, 1, 5, 3, 9, 2]
WINDOWS = [83, 31, 56, 4, 0, 70]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_rows_of_a_batch(processes):
    whole = list(order.positions(3, 8))
    parts = [order.positions(3, 8, process, processes) for process in range(processes)]
    assert list(itertools.chain(*parts)) == whole == list(range(24, 32))


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match="multiple of the 3 processes"):
        loader.batches(Counting(5), SMALL, seed=0, process_count=3)


# Loader


def test_resuming_continues_bit_for_bit():
    source = open_source("synthetic:10")
    whole = take(source, SMALL, 7, seed=1)
    resumed = take(source, SMALL, 3, seed=1, first_step=4)
    np.testing.assert_array_equal(whole[4:], resumed)


def test_two_processes_read_what_one_reads():
    source = open_source("synthetic:10")
    whole = take(source, SMALL, 4, seed=1)
    parts = [
        take(source, SMALL, 4, seed=1, process_index=index, process_count=2)
        for index in range(2)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


def test_batches_do_not_depend_on_threads_and_cache():
    source = open_source("synthetic:10")
    data = [
        Data(image_size=8, batch_size=5, workers=workers, cache_mb=cache)
        for workers, cache in [(1, 0), (3, 0), (8, 1)]
    ]
    one, *others = [take(source, d, 6, seed=2) for d in data]
    for other in others:
        np.testing.assert_array_equal(one, other)


def test_windows_lie_anywhere_along_the_long_side():
    class Ramp(Counting):
        def read(self, index, short_side=0):
            return np.broadcast_to(np.arange(12)[:, None, None], (12, 8, 3)).astype(
                np.uint8
            )

    rows = np.concatenate(take(Ramp(3), SMALL, 50, seed=0))[:, :, 0, 0]
    first = rows[:, 0]
    np.testing.assert_array_equal(rows, first[:, None] + np.arange(8))
    assert set(first) == {0, 1, 2, 3, 4}


def test_each_picture_is_decoded_once_if_memory_allows():
    source = Counting(6)
    take(source, SMALL, 12, seed=0)
    # Two threads may come upon a picture at the same time.
    assert len(source.reads) <= 12
    assert set(source.reads) == set(range(6))


def test_cache_keeps_what_fits_and_throws_nothing_out():
    source = Counting(4)
    pictures = Pictures(source, 8, cache_bytes=8 * 12 * 3 + 8 * 13 * 3)
    for _ in range(3):
        for index in range(4):
            assert pictures.read(index)[0, 0, 0] == index
    assert [source.reads.count(index) for index in range(4)] == [1, 1, 3, 3]


def test_an_unreadable_picture_is_named_once_and_replaced_by_the_next(caplog):
    source = Counting(9, bad={3})
    with caplog.at_level(logging.WARNING):
        batches = take(source, SMALL, 9, seed=0)  # 36 rows: four epochs
    values, counts = np.unique(np.stack(batches)[:, :, 0, 0, 0], return_counts=True)
    assert dict(zip(values, counts, strict=True)) == {
        index: 8 if index == 4 else 4 for index in range(9) if index != 3
    }
    assert [record.getMessage() for record in caplog.records] == [
        "picture left out (1 of 9 so far): picture 3 is damaged"
    ]


@pytest.mark.parametrize(
    ("count", "bad", "ends"), [(50, 1, False), (50, 2, True), (300, 3, False)]
)
def test_more_than_one_percent_unreadable_ends_the_run(count, bad, ends):
    source = Counting(count, bad=set(range(bad)))
    data = Data(image_size=8, batch_size=10, workers=2)
    if ends:
        with pytest.raises(InputError, match="2 of 50 pictures cannot be read"):
            take(source, data, count // 10, seed=0)
    else:
        take(source, data, count // 10, seed=0)


def test_nothing_readable_is_an_error():
    with pytest.raises(InputError, match="none of the 1 pictures"):
        take(Counting(1, bad={0}), SMALL, 1, seed=0)


def test_errors_of_threads_reach_the_consumer_and_threads_end():
    class Broken(Counting):
        def read(self, index, short_side=0):
            raise RuntimeError("no such luck")

    with pytest.raises(RuntimeError, match="no such luck"):
        take(Broken(5), SMALL, 1, seed=0)
    take(Counting(5), SMALL, 2, seed=0)
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 0},
        {"batch_size": 0},
        {"workers": -1},
        {"cache_mb": -1},
        {"prefetch": 0},
    ],
)
def test_senseless_settings_are_refused(change):
    data = Data(**{"image_size": 8, **change})
    with pytest.raises(InputError, match=f"data.{next(iter(change))} is"):
        loader.batches(Counting(5), data, seed=0)


def test_scaling_is_exact_at_the_size_and_averages_below():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 11, 3), np.uint8)
    np.testing.assert_array_equal(scale(pixels, 8), pixels)
    checks = np.kron(np.indices((32, 40)).sum(0) % 2, np.ones((2, 2))) * 255
    small = scale(np.repeat(checks[..., None], 3, 2).astype(np.uint8), 8)
    assert small.shape == (8, 10, 3)
    assert abs(small.astype(int) - 127).max() < 12
    assert scale(pixels, 32).shape == (32, 44, 3)


def test_of_a_very_long_picture_the_middle_is_taken():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (2, 200, 3))
    taken = scale(ramp, 2)
    assert taken.shape == (2, 16, 3)
    assert taken[0, 0, 0] == 92


def test_validation_takes_the_middle_of_the_first_pictures():
    ramp = np.broadcast_to(np.arange(12)[None, :, None], (8, 12, 3))

    class Ramps(Counting):
        def read(self, index, short_side=0):
            super().read(index)
            return (ramp + 20 * index).astype(np.uint8)

    source = Ramps(5, bad={1})
    squares = loader.validation(source, SMALL, 3)
    assert squares.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(squares[:, 0, 0, 0], [2, 42, 62])
    assert loader.validation(source, SMALL, 99).shape == (4, 8, 8, 3)


# Sources


def test_folder_is_nested_sorted_and_without_hidden_files(tmp_path):
    for name in ["b/2.PNG", "a.jpeg", "b/1.bmp", ".hidden/x.png", "c/._y.png", "z.tif"]:
        save(tmp_path, name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    source = FolderSource(tmp_path)
    names = [source.name(index) for index in range(len(source))]
    assert names == [
        str(tmp_path / n) for n in ["a.jpeg", "b/1.bmp", "b/2.PNG", "z.tif"]
    ]


def test_all_kinds_of_pictures_become_upright_rgb(tmp_path):
    pixels = save(tmp_path, "0.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(pixels).save(tmp_path / "1.png", exif=exif)
    grey = pixels[..., 0]
    Image.fromarray(grey).save(tmp_path / "2.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "3.png")
    alpha = np.dstack([pixels, np.full_like(grey, 0)])
    Image.fromarray(alpha).save(tmp_path / "4.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "5.png")
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "6.tif")
    source = FolderSource(tmp_path)
    read = [source.read(index) for index in range(7)]
    assert all(r.dtype == np.uint8 and r.shape[2] == 3 for r in read)
    np.testing.assert_array_equal(read[0], pixels)
    np.testing.assert_array_equal(read[1], np.rot90(pixels, -1))
    for index in (2, 3, 5):
        np.testing.assert_array_equal(read[index], np.repeat(grey[..., None], 3, 2))
    assert (read[4] == 255).all()
    np.testing.assert_array_equal(read[6], pixels)


def test_a_jpeg_may_come_smaller_but_at_least_twice_what_is_wanted(tmp_path):
    ramp = np.linspace(0, 255, 512)[:, None, None] + np.zeros((1, 640, 3))
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    source = FolderSource(tmp_path)
    assert source.read(0).shape == (512, 640, 3)
    assert source.read(0, 64).shape == (128, 160, 3)
    assert source.read(0, 200).shape == (512, 640, 3)
    full = scale(source.read(0), 64)
    assert abs(scale(source.read(0, 64), 64).astype(int) - full).max() <= 2


def test_damage_is_an_input_error_that_names_the_file(tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.png").write_text("words")
    source = FolderSource(tmp_path)
    for index, what in enumerate(
        ["a.png is damaged", "b.png is empty", "c.png is not"]
    ):
        with pytest.raises(InputError, match=what):
            source.read(index)


def test_folders_that_cannot_serve_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"no picture.*jpg"):
        open_source(str(tmp_path))
    save(tmp_path, "a.png")
    with pytest.raises(InputError, match="is a file; want a folder"):
        open_source(str(tmp_path / "a.png"))
    with pytest.raises(InputError, match=r"data\.train"):
        open_source("")


def test_synthetic_pictures_depend_on_their_index_only():
    one, other = open_source("synthetic:5"), open_source("synthetic:9")
    np.testing.assert_array_equal(one.read(3, 32), other.read(3, 32))
    assert one.read(3, 32).shape[0] == 32
    assert (one.read(3, 32)[:, :32] != one.read(4, 32)[:, :32]).mean() > 0.5
    for bad in ["0", "-1", "x", ""]:
        with pytest.raises(InputError, match="want a count"):
            open_source(f"synthetic:{bad}")


def test_reading_a_folder_needs_no_tensorflow_datasets():
    code = (
        "import sys; from jaxpaint.data import augment, loader, prefetch, sources;"
        "sources.open_source('synthetic:1').read(0);"
        "sys.exit('tensorflow_datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Prefetch


def over_devices(count=8):
    mesh = jax.make_mesh(
        (count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
    )
    return NamedSharding(mesh, PartitionSpec("data"))


def test_prefetched_batches_are_sharded_and_equal_under_the_transfer_guard():
    source, data = open_source("synthetic:10"), Data(image_size=8, batch_size=8)
    expected = take(source, data, 4, seed=0)
    jax.config.update("jax_transfer_guard", "disallow")
    try:
        batches = loader.batches(source, data, seed=0)
        with Prefetch(batches, over_devices(), 2) as ready:
            got = [jax.device_get(next(ready)) for _ in range(4)]
            assert next(ready).sharding.is_equivalent_to(over_devices(), 4)
    finally:
        jax.config.update("jax_transfer_guard", "allow")
    np.testing.assert_array_equal(expected, got)
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_prefetch_passes_errors_on_after_the_batches_before():
    def batches():
        yield np.zeros((8, 2))
        raise OSError("disk on fire")

    with Prefetch(batches(), over_devices(), 2) as ready:
        assert next(ready).shape == (8, 2)
        for _ in range(2):
            with pytest.raises(OSError, match="disk on fire"):
                next(ready)


def test_prefetch_closes_what_it_reads_and_keeps_no_more_than_asked():
    made, closed = [], []

    def batches():
        try:
            for number in itertools.count():
                made.append(number)
                yield np.full((8,), number)
        finally:
            closed.append(True)

    ready = Prefetch(batches(), over_devices(), 3)
    assert next(ready)[0] == 0
    ready.close()
    ready.close()
    assert closed
    assert len(made) <= 1 + 3 + 1


# Augmentation


@functools.cache
def augmented(data):
    return jax.jit(functools.partial(prepare, data=data))


def pictures(count=8, side=16):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


PLAIN = Data(image_size=16, flip=False, masks=("center",))


def test_without_crop_no_pixel_changes():
    x = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    image = augmented(PLAIN)(x, jax.random.key(0))["image"]
    np.testing.assert_array_equal(images.to_uint8(image), x)
    np.testing.assert_allclose(image, images.to_float(x), atol=2e-7)


def test_half_of_the_pictures_are_mirrored():
    data = Data(image_size=16, masks=("center",))
    x = pictures(256)
    image = images.to_uint8(augmented(data)(x, jax.random.key(0))["image"])
    same = (image == x).all((1, 2, 3))
    mirrored = (image == x[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 96 < mirrored.sum() < 160


def test_crops_are_squares_inside_the_picture():
    # Red tells the row and green the column: a crop is read off its corners.
    ramp = np.linspace(0, 255, 32).round().astype(np.uint8)
    x = np.zeros((512, 32, 32, 3), np.uint8)
    x[..., 0], x[..., 1] = ramp[:, None], ramp
    data = Data(image_size=16, min_crop=0.5, max_crop=0.75, flip=False, masks=("half",))
    image = (np.asarray(augmented(data)(x, jax.random.key(0))["image"]) + 1) / 2
    image = image * 31 + 0.5  # where the middle of each pixel comes from
    middle = image[:, 8, 8, :2] - 0.5 * (image[:, 8, 8, :2] - image[:, 7, 7, :2])
    side = (image[:, 11, 11, :2] - image[:, 4, 4, :2]) * 16 / 7
    assert side.min() > 0.5 * 32 - 1
    assert side.max() < 0.75 * 32 + 1
    np.testing.assert_allclose(side[:, 0], side[:, 1], atol=0.6)
    assert np.quantile(side, 0.1) < 18.5
    assert np.quantile(side, 0.9) > 21.5
    low, high = middle - side / 2, middle + side / 2
    assert low.min() > -1
    assert high.max() < 33
    assert low.min() < 2 < 30 < high.max()


def test_a_smaller_size_is_antialiased():
    # Sampled without a filter, every point would fall between two white columns.
    columns = np.tile(np.array([0, 255, 255, 0], np.uint8), 8)
    x = np.broadcast_to(columns[None, None, :, None], (1, 32, 32, 3))
    data = Data(image_size=8, flip=False, masks=("center",))
    image = augmented(data)(x, jax.random.key(0))["image"][:, 2:-2, 2:-2]
    assert abs(np.asarray(image)).max() < 0.2


VARIED = Data(image_size=16, min_crop=0.5, masks=("center", "boxes(count=(1, 1))"))


def test_same_key_same_batch_and_another_key_another_one():
    x = pictures(side=20)
    one, same, other = (augmented(VARIED)(x, jax.random.key(k)) for k in (0, 0, 1))
    for name in ("image", "mask"):
        np.testing.assert_array_equal(one[name], same[name])
        assert (np.asarray(one[name]) != np.asarray(other[name])).any()


def test_the_batch_does_not_depend_on_the_devices():
    x, key = pictures(side=20), jax.random.key(3)
    alone = augmented(VARIED)(x, key)
    spread = augmented(VARIED)(jax.device_put(x, over_devices()), key)
    assert len(spread["image"].sharding.device_set) == 8
    np.testing.assert_array_equal(alone["mask"], spread["mask"])
    # Products of other sizes add up in another order; a step of the files is 8e-3.
    np.testing.assert_allclose(alone["image"], spread["image"], atol=4e-6)


def test_kinds_of_masks_are_drawn_with_equal_chance():
    data = Data(image_size=16, flip=False, masks=("center", "half"))
    mask = augmented(data)(pictures(256), jax.random.key(0))["mask"]
    center = masks.make("center")((16, 16), jax.random.key(0))
    half = masks.make("half")((16, 16), jax.random.key(0))
    is_center = np.asarray((mask == center[None]).all((1, 2, 3)))
    is_half = np.asarray((mask == half[None]).all((1, 2, 3)))
    assert (is_center ^ is_half).all()
    assert 96 < is_center.sum() < 160


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"min_crop": 0.0}, "min_crop is 0.0"),
        ({"min_crop": 0.9, "max_crop": 0.5}, "max_crop 0.5"),
        ({"masks": ()}, r"data\.masks is empty"),
        ({"masks": ("centre",)}, "did you mean 'center'"),
    ],
)
def test_senseless_augmentation_is_refused(change, what):
    with pytest.raises(InputError, match=what):
        prepare(
            jnp.zeros((1, 8, 8, 3), jnp.uint8), jax.random.key(0), data=Data(**change)
        )


def test_mask_texts_are_parsed():
    for parsed, made in [
        ("center", masks.make("center")),
        (" boxes(count=(1, 1)) ", masks.make("boxes", count=(1, 1))),
        ("free_form(width=(2, 3))", masks.make("free_form", width=(2, 3))),
    ]:
        parsed = masks.parse(parsed)
        assert (parsed.func, parsed.keywords) == (made.func, made.keywords)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("fre_form", "did you mean 'free_form'"),
        ("free_form(stroke=1)", "did you mean 'strokes'"),
        ("free_form(1)", "want 'kind'"),
        ("free_form(width=x)", "numbers"),
        ("free_form(**{})", "want 'kind'"),
        ("free_form(", "want 'kind'"),
        ("a.b", "want 'kind'"),
        ("", "want 'kind'"),
    ],
)
def test_mask_texts_that_say_nothing_are_refused(text, what):
    with pytest.raises(InputError, match=what):
        masks.parse(text)
