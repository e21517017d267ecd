"""Random hole masks for training and testing, by name.

A sampler is a pure function `(size, key) -> mask`: `size` is `(height, width)` in
pixels and static, the mask float32 `[H, W, 1]` of exactly 0 and 1, 1 = hole. Samplers
can be jitted and vmapped: a batch is `jax.vmap(partial(sampler, size))(keys)`. A key
gives the same mask whether it is drawn alone, in a batch, jitted or not. Kinds without
chance (`half`, `center` and their like) take the key and ignore it.

One file per family; this one imports none of them, nor jax, until a mask is made.
"""

import ast
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxpaint.errors import InputError, unknown_name

if TYPE_CHECKING:
    import jax

    Sampler = Callable[[tuple[int, int], jax.Array], jax.Array]

__all__ = ["check", "make", "names", "parse"]

# Kind: file, function, and the options that make it this kind.
_KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "boxes": ("boxes", "boxes", {}),
    "glcic_box": ("boxes", "boxes", {"count": (1, 1), "side": (3 / 8, 1 / 2)}),
    "deepfill_box": ("boxes", "deepfill_box", {}),
    "center": ("context_encoder", "center", {}),
    "random_blocks": ("context_encoder", "random_blocks", {}),
    "random_region": ("context_encoder", "random_region", {}),
}
for _family, _functions in {
    "free_form": "free_form free_form_box free_form_box_legacy free_form_legacy",
    "lama": "lama_medium lama_thick lama_thin lama_training lama_training_small",
    "repaint": "alternating_lines expand half narrow super_resolve_2x wide",
}.items():
    for _function in _functions.split():
        _KINDS[_function] = (_family, _function, {})
for _low, _high in [(1, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 60)]:
    _ratio = {"ratio": (_low / 100, _high / 100)}
    _name = f"irregular_{_low:02}_{_high}"
    _KINDS[_name] = ("irregular", "irregular", _ratio)
    _KINDS[f"{_name}_border"] = (
        "irregular",
        "irregular",
        {**_ratio, "border": 50 / 512},
    )


def names() -> list[str]:
    """Returns the names of all kinds of masks, sorted."""
    return sorted(_KINDS)


def make(kind: str, **options: object) -> "Sampler":
    """Returns the sampler `(size, key) -> mask` of a kind, configured with its options.

    Options are the keyword arguments of the kind's function; see its docstring.

    Raises:
      InputError: no such kind, or no such option.
    """
    if kind not in _KINDS:
        raise unknown_name("mask kind", kind, _KINDS)
    module, name, preset = _KINDS[kind]
    function = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    known = [n for n in inspect.signature(function).parameters if n not in _ALWAYS]
    for option in options:
        if option not in known:
            if not known:
                raise InputError(f"mask kind '{kind}' has no options; got '{option}'")
            raise unknown_name(f"option of mask kind '{kind}'", option, known)
    return functools.partial(function, **{**preset, **options})


def parse(text: str) -> "Sampler":
    """Returns the sampler that a text like `kind` or `kind(option=value)` describes.

    Values are Python literals: `free_form(strokes=(1, 2), width=(4, 10))`.

    Raises:
      InputError: not of this form, no such kind, or no such option.
    """
    form = f"mask '{text}' is not understood; want 'kind' or 'kind(option=value)'"
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return make(call.id)
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise InputError(form)
        options = {str(o.arg): ast.literal_eval(o.value) for o in call.keywords}
    except InputError:
        raise
    except ValueError:
        raise InputError(f"{form} with numbers, texts or tuples as values") from None
    except SyntaxError:
        raise InputError(form) from None
    if call.args or any(option.arg is None for option in call.keywords):
        raise InputError(form)
    return make(call.func.id, **options)


_ALWAYS = ("size", "key")


def check(mask: np.ndarray) -> np.ndarray:
    """Returns a user's mask as float32 of exactly 0 and 1, of the same shape.

    Args:
      mask: `[H, W]`, `[H, W, 1]` or `[B, H, W, 1]`, 1 or white = hole. Boolean; or
        unsigned integers, where a maximum of 1 means 0 and 1 and otherwise everything
        above half the range of the type is hole; or exact zeros and ones of any other
        type.

    Raises:
      InputError: another shape or type, or values between 0 and 1 or outside.
    """
    mask = np.asarray(mask)
    if mask.ndim not in (2, 3, 4) or (mask.ndim > 2 and mask.shape[-1] != 1):
        raise InputError(
            f"mask has shape {mask.shape}; want [H, W], [H, W, 1] or [B, H, W, 1]; "
            "take one channel of a color mask, and give a batch a last axis of 1"
        )
    if mask.size == 0:
        raise InputError(f"mask of shape {mask.shape} has no pixels")
    if mask.dtype.kind not in "buif":
        raise InputError(
            f"mask has type {mask.dtype}; want bool, integer or floating point"
        )
    if mask.dtype.kind == "u" and mask.max() > 1:
        return (mask > np.iinfo(mask.dtype).max // 2).astype(np.float32)
    if not np.all((mask == 0) | (mask == 1)):
        raise InputError(
            f"mask of type {mask.dtype} has values from {mask.min()} to {mask.max()}; "
            "want exactly 0 (known) and 1 (hole); threshold it, for instance mask > 0.5"
        )
    return mask.astype(np.float32)
