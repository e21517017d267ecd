"""Image inpainting in JAX: the landmark methods, one library, one command line.

Conventions, everywhere inside the library:

- Images are float32 `[B, H, W, C]` in [-1, 1].
- Masks are float32 `[B, H, W, 1]`; **1 means hole, 0 means known**.
- Random keys come from `jax.random.key`; the argument is named `key` and comes last.
- Known pixels come back bit for bit; what lies under the hole is never read.

Other polarities, ranges and layouts are converted once, where data enters or leaves.

Attributes are loaded when first used: `import jaxpaint` imports neither jax nor flax.
"""

import importlib
from typing import TYPE_CHECKING

from jaxpaint.version import __version__

if TYPE_CHECKING:
    from jaxpaint.errors import InputError
    from jaxpaint.inpainting import inpaint
    from jaxpaint.methods import make, names
    from jaxpaint.nearest_neighbors import nearest_neighbor_field
    from jaxpaint.types import Method, Window
    from jaxpaint.weights import load

_HOMES = {
    "InputError": "errors",
    "Method": "types",
    "Window": "types",
    "inpaint": "inpainting",
    "load": "weights",
    "make": "methods",
    "names": "methods",
    "nearest_neighbor_field": "nearest_neighbors",
}

__all__ = [
    "InputError",
    "Method",
    "Window",
    "__version__",
    "inpaint",
    "load",
    "make",
    "names",
    "nearest_neighbor_field",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"jaxpaint.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jaxpaint' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
