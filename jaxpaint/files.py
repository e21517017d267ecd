"""Picture and mask files: Pillow to read and write them, numpy arrays between.

Pixels are uint8, `[H, W]` for grey and `[H, W, 3]` for colour pictures, upright
(EXIF rotation applied). Masks are boolean `[H, W]`, True = hole. Every error that a
file causes is an `InputError` of one line that begins with the path.
"""

import contextlib
import io
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from jaxpaint.errors import InputError

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""The formats that are read and written, by lower-case suffix."""

_READABLE = sorted(set(FORMATS.values()))

LOSSY = ("JPEG", "WEBP")
OPAQUE = ("JPEG", "BMP")
LONGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}


class Header(NamedTuple):
    """What a picture file tells before it is decoded; sizes are of the upright one."""

    width: int
    height: int
    alpha: bool


class Picture(NamedTuple):
    """A decoded picture, with what must survive beside its pixels."""

    pixels: np.ndarray
    """uint8 `[H, W]` or `[H, W, 3]`."""

    alpha: np.ndarray | None = None
    """uint8 `[H, W]`, 0 = transparent."""

    icc_profile: bytes | None = None
    exif: bytes | None = None


def read_header(path: Path) -> Header:
    """Returns size and transparency of the picture at `path` without decoding it.

    Raises:
      InputError: no file, no picture, or too many pixels.
    """
    with _opened(path) as image:
        width, height = image.size
        if _header_orientation(image) >= 5:
            width, height = height, width
        return Header(width, height, image.has_transparency_data)


def read_picture(path: Path) -> Picture:
    """Returns the picture at `path`, upright, with its alpha split off.

    Palette and CMYK pictures become RGB; 16 bits per channel become 8, with a
    warning; of several frames or pages the first is taken, with a warning.

    Raises:
      InputError: no file, no picture, damaged, or too many pixels.
    """
    image, exif = _decode(path)
    profile = image.info.get("icc_profile")
    if _is_wide(image):
        grey = (_uint16(image, path).astype(np.uint32) + 128) // 257
        warnings.warn(
            f"{path} has more than 8 bits per pixel; 8 are kept", stacklevel=2
        )
        return Picture(grey.astype(np.uint8), None, profile, exif)
    if image.mode == "CMYK":
        # The profile describes inks and would be wrong for the converted picture.
        image, profile = _cmyk_to_rgb(image, profile), None
    grey = image.mode in ("1", "L", "LA", "La")
    if not image.has_transparency_data:
        image = _converted(image, "L" if grey else "RGB", path)
        return Picture(np.array(image), None, profile, exif)
    channels = np.asarray(_converted(image, "LA" if grey else "RGBA", path))
    pixels = channels[..., 0] if grey else channels[..., :3]
    alpha = channels[..., -1].copy()
    return Picture(np.ascontiguousarray(pixels), alpha, profile, exif)


def read_rgb(
    path: Path, short_side: int = 0, contents: bytes | None = None
) -> np.ndarray:
    """Returns a picture for training: uint8 `[H, W, 3]`, upright, in a thread or not.

    As `read_picture`, but grey is repeated, transparent pixels show white, and nobody
    is warned about frames and bits that are left out.

    Args:
      path: the file.
      short_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as its
        short side keeps twice this many pixels; 0: never.
      contents: of a file that is not on disk; `path` is then its name in errors.

    Raises:
      InputError: no file, no picture, damaged, or too many pixels.
    """
    with _blaming_picture(path):
        with path.open("rb") if contents is None else io.BytesIO(contents) as file:
            # `warnings.catch_warnings`, as `_opened` has it, is not for threads.
            image = Image.open(file, formats=_READABLE)
            if short_side:
                scale = 2 * short_side / min(image.size)
                image.draft(None, (int(image.width * scale), int(image.height * scale)))
            image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if _is_wide(image):
            grey = (_uint16(image, path).astype(np.uint32) + 128) // 257
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        if image.mode == "CMYK":
            image = _cmyk_to_rgb(image, image.info.get("icc_profile"))
        if image.has_transparency_data:
            image = _converted(image, "RGBA", path)
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(_converted(image, "RGB", path))


def read_mask(path: Path) -> np.ndarray:
    """Returns the mask at `path` as boolean `[H, W]`, True = hole.

    White is hole, from half of the range on; a mask whose largest value is 1 counts
    as 0/1. In a mask with alpha only what is opaque and white is hole.

    Raises:
      InputError: no file, no picture, damaged, or too many pixels.
    """
    image, _ = _decode(path)
    if _is_wide(image):
        return _upper_half(_uint16(image, path))
    if not image.has_transparency_data:
        return _upper_half(np.asarray(_converted(image, "L", path)))
    grey, alpha = _converted(_converted(image, "RGBA", path), "LA", path).split()
    opaque = np.asarray(alpha) > 127
    return _upper_half(np.where(opaque, np.asarray(grey), np.uint8(0)))


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a boolean mask `[height, width]`, sampled from the nearest pixels."""
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.NEAREST)) > 0


def check_can_hold(path: Path, width: int, height: int, alpha: bool) -> None:
    """Checks that the format of `path` can hold a picture of this kind.

    Raises:
      InputError: it has no transparency, or not so many pixels a side.
    """
    kind = FORMATS[path.suffix.lower()]
    if alpha and kind in OPAQUE:
        raise InputError(
            f"{path} cannot hold the transparency of the input; write png or webp"
        )
    longest = LONGEST_SIDE.get(kind)
    if longest and max(width, height) > longest:
        raise InputError(
            f"{path} would be {width}x{height} but {kind} holds at most {longest} "
            "pixels a side; write png"
        )


def is_lossy(path: Path) -> bool:
    """Returns whether the format of `path` changes the pixels it stores."""
    return FORMATS[path.suffix.lower()] in LOSSY


def write_picture(path: Path, picture: Picture, quality: int = 95) -> None:
    """Writes `picture` to `path` whole or not at all, in the format of its suffix.

    Args:
      path: where to; an existing file is replaced.
      picture: pixels, alpha, profile and EXIF, as far as the format can hold them.
      quality: 1 to 100, for JPEG and WebP.
    """
    kind = FORMATS[path.suffix.lower()]
    channels = picture.pixels
    if picture.alpha is not None and kind not in OPAQUE:
        channels = np.dstack([channels, picture.alpha])
    settings: dict[str, object] = {}
    if kind in LOSSY:
        settings["quality"] = quality
    if kind == "PNG":
        settings["compress_level"] = 3  # twice as fast as 6 and one percent larger
    if kind == "JPEG":
        settings["subsampling"] = 0  # full colour resolution: edges of fills stay clean
    if picture.icc_profile:
        settings["icc_profile"] = picture.icc_profile
    if picture.exif:
        settings["exif"] = picture.exif
    with replacing(path) as file:
        Image.fromarray(channels).save(file, kind, **settings)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that takes the name `path` once it is complete.

    After any error or interruption in the block, `path` is what it was before.
    """
    part = path.with_name(f".{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Opens a picture; whatever goes wrong in the block is the fault of the file."""
    # Given a path, Pillow would map some TIFF files into memory and mix up the sides
    # of those with an orientation.
    with _blaming_picture(path), path.open("rb") as file:
        with warnings.catch_warnings():
            # Pillow warns at half of the size that it refuses; refusing suffices.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=_READABLE)
        yield image


@contextlib.contextmanager
def blaming(path: Path, want: str) -> Iterator[None]:
    """Turns whatever goes wrong in the block into an InputError about the file.

    `want` says what the file should be: "a picture".
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except PermissionError:
        raise InputError(f"{path} may not be read (permission denied)") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; want {want}") from None
    except Exception as error:
        # Decoders answer damage with a dozen different exceptions.
        why = " ".join(str(error).split())
        raise InputError(f"{path} is damaged or truncated ({why})") from error


@contextlib.contextmanager
def _blaming_picture(path: Path) -> Iterator[None]:
    """Does what `blaming` does for files that should be pictures."""
    with blaming(path, "a picture"):
        try:
            yield
        except Image.DecompressionBombError:
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
            raise InputError(
                f"{path} is too large; at most {limit} megapixels"
            ) from None
        except UnidentifiedImageError:
            if path.exists() and path.stat().st_size == 0:
                raise InputError(f"{path} is empty (0 bytes); want a picture") from None
            raise InputError(
                f"{path} is not a picture; want PNG, JPEG, WebP, BMP or TIFF"
            ) from None


def _decode(path: Path) -> tuple[Image.Image, bytes | None]:
    """Returns the upright picture at `path` and its EXIF with orientation 1."""
    with _opened(path) as image:
        rawmode = str(image.tile[0].args) if image.tile else ""
        kind, frames = image.format, getattr(image, "n_frames", 1)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        exif = _upright_exif(image)
    if ";16" in rawmode and not _is_wide(image):
        warnings.warn(f"{path} has 16 bits per channel; 8 are kept", stacklevel=3)
    if frames > 1 and kind != "MPO":  # phones store a preview as a second JPEG
        warnings.warn(f"{path} has {frames} frames; the first is taken", stacklevel=3)
    return image, exif


def _header_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation that `image.size` does not yet account for."""
    if image.format == "TIFF":  # Pillow tells the size of a TIFF upright already
        return 1
    # A PNG may carry it behind the pixels, and `getexif` would decode them to look.
    hints = ("exif", "Raw profile type exif", "XML:com.adobe.xmp")
    if image.format == "PNG" and not any(hint in image.info for hint in hints):
        return 1
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _upright_exif(image: Image.Image) -> bytes | None:
    """Returns the EXIF of an upright picture as bytes, or None if it has none."""
    # The tags of a TIFF describe how that file stores its pixels.
    if image.format == "TIFF":
        return None
    exif = image.getexif()
    if not exif:
        return None
    exif[ExifTags.Base.Orientation] = 1
    with contextlib.suppress(Exception):  # malformed EXIF must not cost the picture
        return exif.tobytes()
    return None


def _is_wide(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _uint16(image: Image.Image, path: Path) -> np.ndarray:
    """Returns the values of a 16-bit grey picture: Pillow's conversions clip them."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path} has 32 bits per pixel; want 8 or 16")
    return values.astype(np.uint16)


def _upper_half(values: np.ndarray) -> np.ndarray:
    largest = 1 if values.max() <= 1 else np.iinfo(values.dtype).max
    return values > largest / 2


def _converted(image: Image.Image, mode: str, path: Path) -> Image.Image:
    try:
        return image if image.mode == mode else image.convert(mode)
    except ValueError:
        raise InputError(
            f"{path} has colour mode {image.mode}; want grey, RGB, palette or CMYK"
        ) from None


def _cmyk_to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Returns the picture in sRGB, by its profile where that is usable."""
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            inks = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, inks, srgb, outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")
