"""Reading and writing of pictures and masks, on files made by Pillow."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from jaxpaint import files
from jaxpaint.errors import InputError
from jaxpaint.files import Picture

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def write_png16(path: Path, values: np.ndarray) -> None:
    """Writes uint16 `[H, W]` or `[H, W, 3]` as PNG, which Pillow cannot for colour."""
    kind = 0 if values.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", *values.shape[1::-1], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    chunks = b"".join(
        struct.pack(">I", len(data))
        + tag
        + data
        + struct.pack(">I", zlib.crc32(tag + data))
        for tag, data in parts.items()
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".TIFF"])
@pytest.mark.parametrize("pixels", [RGB, GREY], ids=["rgb", "grey"])
def test_lossless_formats_return_the_same_bytes(tmp_path, suffix, pixels):
    path = tmp_path / f"a{suffix}"
    files.write_picture(path, Picture(pixels))
    np.testing.assert_array_equal(files.read_picture(path).pixels, pixels)
    assert not files.is_lossy(path)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy_formats_are_close_and_say_so(tmp_path, suffix):
    smooth = np.add.outer(np.arange(32), np.arange(40)).astype(np.uint8)
    smooth = np.stack([smooth, smooth + 20, 2 * smooth], axis=-1)
    path = tmp_path / f"a{suffix}"
    files.write_picture(path, Picture(smooth))
    error = files.read_picture(path).pixels.astype(int) - smooth
    assert abs(error).max() < 10
    assert files.is_lossy(path)


def test_quality_decides_the_size(tmp_path):
    low, high = tmp_path / "low.jpg", tmp_path / "high.jpg"
    files.write_picture(low, Picture(RGB.repeat(9, 0).repeat(9, 1)), quality=5)
    files.write_picture(high, Picture(RGB.repeat(9, 0).repeat(9, 1)), quality=95)
    assert low.stat().st_size < high.stat().st_size


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("pixels", [RGB, GREY], ids=["rgb", "grey"])
def test_alpha_is_split_off_and_put_back(tmp_path, suffix, pixels):
    alpha = RNG.integers(1, 256, pixels.shape[:2], dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    files.write_picture(path, Picture(pixels, alpha))
    assert files.read_header(path).alpha
    back = files.read_picture(path)
    np.testing.assert_array_equal(back.alpha, alpha)
    if suffix != ".webp":
        np.testing.assert_array_equal(back.pixels, pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once(tmp_path, suffix, orientation):
    grey = np.repeat(np.repeat(GREY // 2, 16, 0), 16, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "camera"
    first = tmp_path / f"first{suffix}"
    Image.fromarray(grey).save(first, exif=exif, quality=95)
    turned = {
        2: grey[:, ::-1],
        3: grey[::-1, ::-1],
        4: grey[::-1],
        5: grey.T,
        6: np.rot90(grey, -1),
        7: np.rot90(grey, 2).T,
        8: np.rot90(grey),
    }.get(orientation, grey)
    assert files.read_header(first)[:2] == turned.shape[::-1]
    picture = files.read_picture(first)
    pixels = picture.pixels if picture.pixels.ndim == 2 else picture.pixels[..., 0]
    np.testing.assert_allclose(pixels.astype(int), turned, atol=12)

    second = tmp_path / f"second{suffix}"
    files.write_picture(second, picture)
    with Image.open(second) as image:
        assert image.size == turned.shape[::-1]
        assert image.getexif().get(0x0112, 1) == 1
        if suffix != ".tif":
            assert image.getexif()[0x010F] == "camera"


def test_orientation_in_xmp_is_applied(tmp_path):
    from PIL import PngImagePlugin

    path, text = tmp_path / "a.png", PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    Image.fromarray(RGB).save(path, pnginfo=text)
    assert files.read_header(path)[:2] == (5, 7)
    assert files.read_picture(path).pixels.shape == (7, 5, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_icc_profile_is_kept(tmp_path, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    Image.fromarray(RGB).save(first, icc_profile=SRGB)
    files.write_picture(second, files.read_picture(first))
    with Image.open(second) as image:
        assert image.info["icc_profile"] == SRGB


def test_palette_becomes_rgb(tmp_path):
    path = tmp_path / "a.png"
    palette = Image.fromarray(RGB).quantize(256)
    palette.save(path)
    picture = files.read_picture(path)
    np.testing.assert_array_equal(picture.pixels, np.asarray(palette.convert("RGB")))
    assert picture.alpha is None


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_transparent_colour_becomes_alpha(tmp_path, mode):
    path = tmp_path / "a.png"
    image = Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert(mode)
    image.save(path, transparency=(0, 0, 0) if mode == "RGB" else 0)
    picture = files.read_picture(path)
    np.testing.assert_array_equal(picture.alpha, [[0, 255, 255]])
    assert picture.pixels.shape == ((1, 3) if mode in ("1", "L") else (1, 3, 3))


def test_cmyk_becomes_rgb_without_the_profile_of_the_inks(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(RGB).convert("CMYK").save(path, icc_profile=SRGB)
    picture = files.read_picture(path)
    np.testing.assert_array_equal(picture.pixels, RGB)
    assert picture.icc_profile is None


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    path = tmp_path / "a.png"
    values = np.array([[0, 128, 129, 32768, 65535, 257 * 77]], np.uint16)
    Image.fromarray(values).save(path)
    with pytest.warns(UserWarning, match="more than 8 bits"):
        pixels = files.read_picture(path).pixels
    np.testing.assert_array_equal(pixels, [[0, 0, 1, 128, 255, 77]])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_warns(tmp_path, suffix):
    from tifffile import imwrite

    path = tmp_path / f"a{suffix}"
    values = np.full((4, 6, 3), 257 * 77, np.uint16)
    if suffix == ".png":
        write_png16(path, values)
    else:
        imwrite(path, values, photometric="rgb")
    with pytest.warns(UserWarning, match="16 bits per channel"):
        pixels = files.read_picture(path).pixels
    np.testing.assert_array_equal(pixels, np.full((4, 6, 3), 77))


def test_float_pixels_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    with pytest.raises(InputError, match=r"a.tif has 32 bits per pixel"):
        files.read_picture(path)


def test_first_of_several_frames_is_taken_with_a_warning(tmp_path):
    path = tmp_path / "a.tif"
    pages = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match="2 frames"):
        np.testing.assert_array_equal(files.read_picture(path).pixels, RGB)


def test_the_preview_in_a_phone_photo_is_no_second_frame(tmp_path):
    path = tmp_path / "a.jpg"
    pages = [Image.fromarray(RGB), Image.fromarray(RGB)]
    pages[0].save(path, "MPO", save_all=True, append_images=pages[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert files.read_picture(path).pixels.shape == RGB.shape


# Masks


def mask_of(path: Path, values: np.ndarray, **settings) -> list:
    Image.fromarray(values).save(path, **settings)
    return files.read_mask(path).astype(int).tolist()


def test_mask_is_hole_from_half_of_the_range(tmp_path):
    values = np.array([[0, 127, 128, 255]], np.uint8)
    assert mask_of(tmp_path / "a.png", values) == [[0, 0, 1, 1]]
    assert mask_of(tmp_path / "a.png", values[..., None].repeat(3, -1)) == [
        [0, 0, 1, 1]
    ]
    wide = np.array([[0, 32767, 32768, 65535]], np.uint16)
    assert mask_of(tmp_path / "b.png", wide) == [[0, 0, 1, 1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_mask_of_zeros_and_ones(tmp_path, dtype):
    assert mask_of(tmp_path / "a.png", np.array([[0, 1, 1]], dtype)) == [[0, 1, 1]]
    assert mask_of(tmp_path / "b.png", np.zeros((1, 3), dtype)) == [[0, 0, 0]]


def test_mask_with_alpha_is_hole_where_opaque_and_white(tmp_path):
    values = np.array([[[255, 255], [255, 0], [0, 255], [0, 0]]], np.uint8)
    assert mask_of(tmp_path / "la.png", values) == [[1, 0, 0, 0]]
    rgba = np.concatenate([values[..., :1].repeat(3, -1), values[..., 1:]], axis=-1)
    assert mask_of(tmp_path / "rgba.png", rgba) == [[1, 0, 0, 0]]


def test_mask_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.array([[255, 0, 0], [0, 0, 0]], np.uint8)
    assert mask_of(tmp_path / "a.png", values, exif=exif) == [[0, 1], [0, 0], [0, 0]]


def test_resized_mask_takes_the_nearest_pixels():
    mask = np.array([[True, False], [False, True]])
    expected = mask.repeat(3, 0).repeat(2, 1)
    np.testing.assert_array_equal(files.resize_mask(mask, 6, 4), expected)


# Bad input


@pytest.mark.parametrize("read", [files.read_picture, files.read_mask])
def test_unreadable_files_are_named_in_one_line(tmp_path, read):
    good = tmp_path / "good.png"
    Image.fromarray(RGB.repeat(20, 0)).save(good)
    whole = good.read_bytes()
    cases = {
        "empty.png": (b"", "is empty"),
        "text.png": (b"hello, this is text", "is not a picture"),
        "cut.png": (whole[: len(whole) // 2], "is damaged or truncated"),
        "head.png": (whole[:20], "is not a picture|is damaged"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} ({message})") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"none.png does not exist"):
        read(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp", ".tif"])
def test_truncated_files_of_all_formats(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RGB.repeat(20, 0).repeat(20, 1)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(InputError, match=r"damaged or truncated|not a picture"):
        files.read_picture(path)


def test_decompression_bomb_is_refused_from_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    write_png16(path, np.zeros((1, 1), np.uint16))
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    for read in (files.read_header, files.read_picture):
        with pytest.raises(InputError, match=r"bomb.png is too large; at most \d+ meg"):
            read(path)


def test_damage_never_raises_anything_but_input_errors(tmp_path):
    path = tmp_path / "a"
    image = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x010F] = "camera"
    for kind in sorted(set(files.FORMATS.values())):
        image.save(path, kind, exif=exif, icc_profile=SRGB[:64])
        whole = bytearray(path.read_bytes())
        for _ in range(60):
            damaged = whole.copy()
            for place in RNG.integers(0, len(whole), 4):
                damaged[place] = RNG.integers(256)
            path.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    files.read_header(path)
                    files.write_picture(
                        path.with_suffix(".png"), files.read_picture(path)
                    )
                except InputError:
                    continue


# Writing


def test_formats_refuse_what_they_cannot_hold():
    for name in ("a.jpg", "a.BMP"):
        with pytest.raises(InputError, match="cannot hold the transparency"):
            files.check_can_hold(Path(name), 8, 8, alpha=True)
    with pytest.raises(InputError, match="20000x8 but WEBP holds at most 16383"):
        files.check_can_hold(Path("a.webp"), 20000, 8, alpha=False)
    files.check_can_hold(Path("a.png"), 10**6, 8, alpha=True)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_interrupted_writing_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def write_half():
        with files.replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_come_without_importing_jax():
    import subprocess
    import sys

    code = "import sys, jaxpaint.files; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
