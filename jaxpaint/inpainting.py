"""`inpaint`: the library's front door for arrays of any usual kind."""

import functools
import warnings
from collections.abc import Callable, Hashable, Mapping

import jax
import numpy as np

from jaxpaint import images, masks, methods, regions
from jaxpaint.errors import InputError
from jaxpaint.types import Params

_SUSPICIOUS_SHARE = 0.75


@functools.lru_cache(maxsize=32)
def _prepared(name: str, options: tuple[tuple[str, object], ...]) -> tuple:
    """Returns the method, and a function that fills a window and tells how far it is:
    `(params, pictures, key, place, tell) -> image`; pictures are image and mask, and
    sketch where there is one."""
    method = methods.make(name, **dict(options))

    def at_place(run: Callable) -> Callable:
        def placed(params: Params, pictures, key: jax.Array, place):
            for number in place:
                key = jax.random.fold_in(key, number)
            return run(params, *pictures, key)

        return jax.jit(placed)

    stages = method.stages
    if stages is None:
        guided = method.guided
        runs = {2: at_place(method.inpaint)} | ({3: at_place(guided)} if guided else {})

        def run(params: Params, pictures, key, place, tell: Callable) -> jax.Array:
            return runs[len(pictures)](params, pictures, key, place)

        return method, run
    begin, advance = at_place(stages.begin), jax.jit(stages.advance)
    finish, broken = jax.jit(stages.finish), jax.jit(stages.broken)

    def fill(params: Params, pictures, key, place, tell: Callable) -> jax.Array:
        carry = begin(params, pictures, key, place)
        for number, part in enumerate(stages.parts, start=1):
            carry = advance(params, carry, part)
            step = int(broken(carry))
            if step >= 0:
                raise InputError(
                    f"method '{name}' gave values that are not finite in step {step}; "
                    "want weights that fit the method's options"
                )
            tell(number / len(stages.parts))
        return finish(carry, *pictures[:2])

    return method, fill


def inpaint(
    image: np.ndarray,
    mask: np.ndarray,
    method: str = "auto",
    key: jax.Array | None = None,
    *,
    options: Mapping[str, object] | None = None,
    params: Params = None,
    sketch: np.ndarray | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> np.ndarray:
    """Returns the image with its hole filled; known pixels come back unchanged.

    Only windows around the holes are worked on. The first call with a method and a
    window shape compiles, later ones do not.

    Args:
      image: uint8, or float in [-1, 1]; `[H, W]`, `[H, W, C]` or `[B, H, W, C]` with 1
        or 3 channels. What lies under the hole is not read.
      mask: `[H, W]`, `[H, W, 1]` or `[B, H, W, 1]`; 1, True or 255 = hole. One mask
        may serve a whole batch.
      method: a name out of `jaxpaint.names()`.
      key: from `jax.random.key`, for methods that draw; by default `key(0)`.
      options: of the method, by name.
      params: of a learned method, as `jaxpaint.load` returns them with its options;
        classical methods have none.
      sketch: lines that lead a guided method; `[H, W]`, `[H, W, 1]` or `[B, H, W, 1]`,
        bool, uint8 (white on black) or float (0 to 1). They count inside the hole.
      progress: called with (windows done, windows in all); the first is a fraction
        while a method that tells how far it is works on a window.

    Returns:
      An array of the image's shape and dtype.

    Raises:
      InputError: a shape, dtype or value that does not fit, a hole without any known
        pixel around it, an unknown method or option, no params, or a sketch for a
        method that takes none.
    """
    for name, value in (options or {}).items():
        if not isinstance(value, Hashable):
            raise InputError(
                f"option '{name}' is a {type(value).__name__}; want a number, a string "
                "or a tuple of them"
            )
    chosen, run = _prepared(method, tuple(sorted((options or {}).items())))
    image, mask = np.asarray(image), np.asarray(mask)
    batch, holes = _check(image, mask)
    key = jax.random.key(0) if key is None else key
    if params is None and chosen.train_step is not None:
        raise InputError(
            f"method '{method}' is learned: give params, as jaxpaint.load returns them"
        )
    params = {} if params is None else params
    lines = None
    if sketch is not None:
        if chosen.guided is None:
            raise InputError(
                f"method '{method}' with these options takes no sketch; want one that "
                "was trained with lines, such as deepfill_v2 with guided=True"
            )
        lines = _check_sketch(np.asarray(sketch), holes.shape)
    plans = [regions.plan(hole, chosen.window) for hole in holes]
    total = sum(len(plan.pieces) for plan in plans)
    done = 0

    def tell(share: float) -> None:
        if progress is not None and share < 1:
            progress(done + share, total)

    result = batch.copy()
    for i, (picture, plan) in enumerate(zip(result, plans, strict=True)):
        missing = plan.labels > 0
        for j, piece in enumerate(plan.pieces):
            cut, gone = picture[piece.window], missing[piece.window]
            seen = regions.within(piece.seen, piece.window)
            hole = np.zeros_like(gone)
            hole[seen] = gone[seen]
            led = [] if lines is None else [lines[i][piece.window]]
            fill = _fill(run, params, cut, gone, [hole, *led], key, (i, j), tell)
            labels = plan.labels[piece.core]
            paste = missing[piece.core] & np.isin(labels, piece.labels)
            core = regions.within(piece.core, piece.window)
            picture[piece.core][paste] = fill[core][paste]
            missing[piece.core][paste] = False
            done += 1
            if progress is not None:
                progress(done, total)
    return result.reshape(image.shape)


def _fill(
    run: Callable,
    params: Params,
    cut: np.ndarray,
    gone: np.ndarray,
    marks: list[np.ndarray],
    key: jax.Array,
    place: tuple[int, int],
    tell: Callable[[float], None],
) -> np.ndarray:
    """Fills one window of an image; `marks`: its hole, and perhaps lines.

    Nothing is read where pixels are `gone`, be it in this hole or in another one.
    `place` is the number of the image and of the window in it.
    """
    unit = images.to_float(cut) if cut.dtype == np.uint8 else cut.astype(np.float32)
    unit = np.where(gone[..., None], np.float32(0), unit)
    marks = [mark[None, ..., None].astype(np.float32) for mark in marks]
    fill = np.asarray(run(params, (unit[None], *marks), key, place, tell))[0]
    return images.to_uint8(fill) if cut.dtype == np.uint8 else fill.astype(cut.dtype)


def _check_sketch(sketch: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """Returns lines, bool `[B, H, W]` as `wanted`, or raises."""
    height, width = wanted[1:]
    lines = sketch[None] if sketch.ndim == 2 else sketch
    if lines.ndim == 3 and lines.shape[-1] == 1:
        lines = lines[None]
    if lines.ndim == 4 and lines.shape[-1] == 1:
        lines = lines[..., 0]
    if lines.shape not in ((1, height, width), wanted):
        raise InputError(
            f"sketch has shape {list(sketch.shape)}; want [{height}, {width}], as the "
            "image, or one such sketch per image"
        )
    if lines.dtype == np.uint8:
        lines = lines > (127 if lines.max() > 1 else 0)
    elif np.issubdtype(lines.dtype, np.floating):
        if not np.all((lines >= 0) & (lines <= 1)):
            raise InputError(
                "sketch has values outside of 0 to 1; want 1 where a line is"
            )
        lines = lines > 0.5
    elif lines.dtype != bool:
        raise InputError(
            f"sketch has dtype {lines.dtype}; want bool, uint8 (white lines on black) "
            "or float (0 to 1)"
        )
    if lines.mean() > 0.5:
        warnings.warn(
            f"the sketch marks {lines.mean():.0%} of the image as lines: is it "
            "inverted? want white lines on black",
            stacklevel=3,
        )
    return np.broadcast_to(lines, wanted)


def _check(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns image `[B, H, W, C]` and hole `[B, H, W]` bool, or raises."""
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise InputError(
            f"image has dtype {image.dtype}; want uint8 (0 to 255) or float (-1 to 1)"
        )
    shape = image.shape
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim == 3:
        image = image[None]
    if image.ndim != 4 or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise InputError(
            f"image has shape {list(shape)}; want [H, W], [H, W, C] or [B, H, W, C] "
            "with 1 or 3 channels (split alpha off first)"
        )
    known_shape = mask.shape
    mask = masks.check(mask)
    if mask.ndim == 2:
        mask = mask[..., None]
    if mask.ndim == 3:
        mask = mask[None]
    batch, height, width, _ = image.shape
    if mask.shape[1:] != (height, width, 1) or mask.shape[0] not in (1, batch):
        raise InputError(
            f"mask has shape {list(known_shape)} but the image {list(shape)}; want "
            f"[{height}, {width}], [{height}, {width}, 1] or one such mask per image"
        )
    holes = np.broadcast_to(mask[..., 0] > 0.5, (batch, height, width))
    for i, hole in enumerate(holes):
        where = f" of image {i}" if batch > 1 else ""
        share = hole.mean()
        if share == 0:
            warnings.warn(f"the mask{where} is empty: nothing to fill", stacklevel=3)
        elif share == 1:
            raise InputError(
                f"the mask{where} covers everything: no known pixel to fill from; "
                "is it inverted?"
            )
        elif share > _SUSPICIOUS_SHARE:
            warnings.warn(
                f"the hole{where} covers {share:.0%} of the image: is the mask "
                "inverted?",
                stacklevel=3,
            )
        if image.dtype != np.uint8:
            _check_range(image[i], hole, where)
    return image, holes


def _check_range(image: np.ndarray, hole: np.ndarray, where: str) -> None:
    known = image[~hole]
    if not np.isfinite(known).all():
        raise InputError(f"a known pixel{where} is NaN or infinite; want -1 to 1")
    if known.min() < -1 or known.max() > 1:
        raise InputError(
            f"known pixels{where} lie in [{known.min():g}, {known.max():g}]; a float "
            "image must lie in [-1, 1] (uint8: x / 127.5 - 1)"
        )
