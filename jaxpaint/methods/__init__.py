"""The registered methods: one file each, found by its name.

A method is `jaxpaint/methods/<name>.py` with `make(**options) -> Method`; the first
line of its docstring describes it in `jaxpaint info`.
"""

import importlib
import inspect
import pkgutil

import jax.numpy as jnp

from jaxpaint.errors import InputError, unknown_name
from jaxpaint.types import Batch, Method


def names() -> list[str]:
    """Returns the names of all methods, sorted, without importing them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name[0] != "_")


def make(name: str, **options: object) -> Method:
    """Returns the method `name`, configured with its `options`.

    Raises:
      InputError: no such method, no such option, or a value it refuses.
    """
    if name not in names():
        raise unknown_name("method", name, names())
    factory = importlib.import_module(f"{__name__}.{name}").make
    known = inspect.signature(factory).parameters
    for option in options:
        if option not in known:
            if not known:
                raise InputError(f"method '{name}' has no options; got '{option}'")
            raise unknown_name(f"option of method '{name}'", option, known)
    return factory(**options)


def example(image_size: int) -> Batch:
    """Returns a batch of one grey picture, of use for its shapes: see `Method.init`."""
    sides = (1, image_size, image_size)
    return {"image": jnp.zeros((*sides, 3)), "mask": jnp.zeros((*sides, 1))}
