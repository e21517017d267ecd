"""Fills a parameter tree from the arrays of another project, with nothing left over.

Trees are nested dicts; their leaves are named by dotted paths such as
`params.encoder.conv1.kernel`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxpaint.errors import InputError

_LISTED = 5
"""How many names of each kind an error shows."""


class Source(NamedTuple):
    """Where a parameter comes from."""

    key: str
    """The name of the array in the file."""

    transform: Callable[[np.ndarray], np.ndarray] = np.asarray
    """Brings the array into our layout."""


def conv(key: str) -> Source:
    """Returns the source of a convolution kernel, `[O, I, h, w]` to `[h, w, I, O]`."""
    return Source(key, lambda x: x.transpose(2, 3, 1, 0))


def conv_transposed(key: str) -> Source:
    """Returns the source of a transposed convolution kernel, `[I, O, h, w]` to
    `[h, w, I, O]`.

    The kernel is not turned around: `jaxpaint.layers.convolution` does that.
    """
    return Source(key, lambda x: x.transpose(2, 3, 0, 1))


def dense(key: str) -> Source:
    """Returns the source of a matrix, `[O, I]` to `[I, O]`."""
    return Source(key, lambda x: x.transpose(1, 0))


def batch_norm(path: str, key: str) -> dict[str, Source]:
    """Returns the four sources of a batch norm, by path.

    Args:
      path: of the layer in our trees, without `params` or `batch_stats`.
      key: of the layer in the file, such as `main.3`. Its `num_batches_tracked` is
        left to the caller's `ignored`.
    """
    return {
        f"params.{path}.scale": Source(f"{key}.weight"),
        f"params.{path}.bias": Source(f"{key}.bias"),
        f"batch_stats.{path}.mean": Source(f"{key}.running_mean"),
        f"batch_stats.{path}.var": Source(f"{key}.running_var"),
    }


def assemble(
    template: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    sources: Mapping[str, Source],
    ignored: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns a tree of arrays with the structure, shapes and dtypes of `template`.

    Args:
      template: nested dicts with leaves that have a shape and a dtype.
      arrays: what the file holds, by name.
      sources: for each dotted path of the template, where its array comes from.
      ignored: regular expressions; a name in which one is found may stay unused.

    Raises:
      InputError: a parameter that nothing fills, an array that nothing uses and that
        is not ignored, or a shape that does not fit; all of them in one line.
    """
    wanted = dict(leaves(template))
    filled: dict[str, np.ndarray] = {}
    missing, misshaped, used = [], [], set()
    for path, leaf in wanted.items():
        source = sources.get(path)
        if source is None:
            missing.append(path)
            continue
        whose = f" (for {path})" * (source.key != path)
        if source.key not in arrays:
            missing.append(source.key + whose)
            continue
        used.add(source.key)
        array = np.asarray(arrays[source.key])
        try:
            value = source.transform(array)
        except ValueError:  # another rank than the transform is for
            value = array
        if value.shape != tuple(leaf.shape):
            got, want = list(value.shape), list(leaf.shape)
            misshaped.append(f"{source.key} is {got}, want {want}{whose}")
        else:
            filled[path] = np.asarray(value, leaf.dtype, order="C")
    unexpected = [
        key
        for key in arrays
        if key not in used and not any(re.search(pattern, key) for pattern in ignored)
    ]
    report(missing, unexpected, misshaped)
    return nest(filled)


def report(
    missing: Sequence[str], unexpected: Sequence[str], misshaped: Sequence[str]
) -> None:
    """Raises InputError, in one line, if there is anything to report."""
    kinds = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    parts = []
    for kind, names in kinds.items():
        if names:
            more = ", ..." if len(names) > _LISTED else ""
            shown = ", ".join(names[:_LISTED])
            parts.append(f"{len(names)} {kind}: {shown}{more}")
    if parts:
        raise InputError(f"the weights do not fit; {'; '.join(parts)}")


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted path, leaf) of a tree of nested dicts, in its order."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree of nested dicts whose leaves have these dotted paths.

    Raises:
      InputError: a path that leads through a leaf.
    """
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise InputError(f"'{path}' leads through an array of the same file")
        if name in node:
            raise InputError(f"'{path}' is an array and a folder of the same file")
        node[name] = value
    return tree
