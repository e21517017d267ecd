"""Convolution and transposed convolution with the sizes and paddings of PyTorch.

Published networks count padding in pixels on both sides, which flax's `"SAME"` does not
give for even kernels and strides; kernels here are `[kh, kw, in, out]`.

GPUs and TPUs get the compiler's convolutions. On CPUs some of those are several times
slower than the same sum written in another way, which `_by_matmul`, `_in_bands`,
`_winograd_tile` and `_by_bands` choose from the shapes; docs/performance.md has the
figures.
"""

import functools
import itertools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

# Up to so many output pixels (of a batch) one matrix multiplication beats the
# compiler's CPU convolution; beyond, gathering the patches costs more than it saves.
_PATCHES = 512

# Up to so many the kernel, and not the patches, is what must not be rearranged.
_FEW_PATCHES = 64

# Where several cores share a convolution, the compiler divides it badly. From so many
# features on, of output and input, products of patches are ahead, for so many output
# pixels at once for each core.
_WIDE_OUTPUT = 64
_WIDE_INPUT = 16
_BAND = 256

# Below so many output pixels of a batch such forms save less time than it takes to
# compile them.
_MANY_PIXELS = 1 << 12

# A kernel of fewer output features than the first of these is slow; to fill it up is
# worth it up to the second of input features, or where it is half full.
_LANES, _FEW_FEATURES = 8, 16

# Where the gradient of a kernel is worth bands of rows: products of the numbers of
# features, or pixels of a picture, from which on; entries of the kernel, up to which.
_FEATURES = 512
_PIXELS = 1 << 14
_KERNEL = 1 << 20


class _Matrices(NamedTuple):
    """Of Winograd's minimal filtering, for what is in them."""

    inputs: np.ndarray
    kernels: np.ndarray
    outputs: np.ndarray


# For 2 and 4 outputs of 3 taps.
_WINOGRAD = {
    2: _Matrices(
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
        np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
        np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
    ),
    4: _Matrices(
        np.array(
            [
                [4, 0, -5, 0, 1, 0],
                [0, -4, -4, 1, 1, 0],
                [0, 4, -4, -1, 1, 0],
                [0, -2, -1, 2, 1, 0],
                [0, 2, -1, -2, 1, 0],
                [0, 4, 0, -5, 0, 1],
            ]
        ),
        np.array(
            [
                [1 / 4, 0, 0],
                [-1 / 6, -1 / 6, -1 / 6],
                [-1 / 6, 1 / 6, -1 / 6],
                [1 / 24, 1 / 12, 1 / 6],
                [1 / 24, -1 / 12, 1 / 6],
                [0, 0, 1],
            ]
        ),
        np.array(
            [
                [1, 1, 1, 1, 1, 0],
                [0, 1, -1, 2, -2, 0],
                [0, 1, 1, 4, 4, 0],
                [0, 1, -1, 8, -8, 1],
            ]
        ),
    ),
}

# From how many features on, of the fewer and of the more of input and output, they are
# ahead, and from how many output pixels of a batch, and those times both numbers of
# features; tiles of a batch that are worked on at once.
_TILED_FEATURES = 48, 64
_TILED_PIXELS = 1 << 10
_TILED_PRODUCTS = 12 << 20
_TILES = 1024

# How much longer products take that go with sums before and behind them.
_TRANSFORMS = 1.25


def _side(length: int, size: int, stride: int, dilation: int) -> int:
    """Returns the output's side for an input's, padding included, and a kernel's."""
    return (length - dilation * (size - 1) - 1) // stride + 1


class _Window(NamedTuple):
    """How a kernel moves over a picture."""

    stride: int
    padding: int
    dilation: int
    layout: str
    """Of the kernel: HWIO, or HWOI, which a transposed convolution has. Turning one
    into the other would cost as much as a small convolution."""

    @property
    def pads(self) -> list[tuple[int, int]]:
        """Padding before and behind, of rows and of columns."""
        return [(self.padding, self.padding)] * 2

    def side(self, length: int, size: int) -> int:
        """Returns the output's side for an input's side and a kernel's size."""
        return _side(length + 2 * self.padding, size, self.stride, self.dilation)

    def reversed(self, size: int) -> "_Window":
        """Returns that of the input's gradient, for a stride of 1."""
        padding = self.dilation * (size - 1) - self.padding
        return self._replace(
            padding=padding, layout=self.layout[:2] + self.layout[:1:-1]
        )


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> jax.Array:
    """Returns the cross-correlation of `[B, H, W, I]` with `[kh, kw, I, O]`.

    The output's side is `(H + 2 padding - dilation (kh - 1) - 1) // stride + 1`.
    Gradients of any order, in reverse mode only.
    """
    return _convolve(x, kernel, _Window(stride, padding, dilation, "HWIO"))


def convolve_transposed(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0
) -> jax.Array:
    """Returns the adjoint of `convolve`: pixel i adds to `i stride - padding + k`.

    Maps `[B, H, W, I]` with `[kh, kw, I, O]`, which is not flipped, to the side
    `(H - 1) stride - 2 padding + kh`. Gradients as those of `convolve`.
    """
    height, width = (
        (length - 1) * stride - 2 * padding + size
        for length, size in zip(x.shape[1:3], kernel.shape[:2], strict=True)
    )
    window = _Window(stride, padding, 1, "HWOI")
    return _input_gradient(x, kernel, window, (height, width))


def convolve_upsampled(x: jax.Array, kernel: jax.Array, *, padding: int) -> jax.Array:
    """Returns `convolve(u, kernel, padding=padding)`; u is `x` with pixels doubled.

    Where pixels are doubled along both axes (nearest upsampling by 2), an output pixel
    sees some pixels of `x` through several entries of the kernel. Those are added
    first: for kernels of 3, 4 multiplications in the place of 9.
    """

    def doubled(taps: Sequence[jax.Array]) -> jax.Array:
        """Returns the taps in reverse order, each added to the one before it."""
        inner = [one + other for one, other in itertools.pairwise(taps)]
        return jnp.stack([taps[0], *inner, taps[-1]][::-1])

    return convolve_transposed(
        x,
        doubled([doubled(list(row)) for row in kernel]),
        stride=2,
        padding=kernel.shape[0] - 1 - padding,
    )


def doubled(x: jax.Array) -> jax.Array:
    """Returns each pixel as 2 x 2 of them: `[B, 2 H, 2 W, C]`."""
    batch, height, width, channels = x.shape
    grid = jnp.broadcast_to(
        x[:, :, None, :, None], (batch, height, 2, width, 2, channels)
    )
    return grid.reshape(batch, 2 * height, 2 * width, channels)


# A convolution and its two gradients are the three ways to contract one trilinear form
# of picture, kernel and output. Each has the other two as its gradients. Shapes below
# are those of kernels `[kh, kw, I, O]`.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """Maps `[B, H, W, I]` and `[kh, kw, I, O]` to `[B, H', W', O]`."""
    height, width = kernel.shape[:2]

    def by_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
        patches = _patches(x, (height, width), window)
        return _patches_by_kernel(patches, kernel, window.layout)

    def shared(x: jax.Array, kernel: jax.Array) -> jax.Array:
        kernel = _in_order(kernel, window)
        return _shared(x, kernel, window.pads, window.stride, window.dilation)

    whole = _by_matmul(x.shape, (height, width), window)
    default = functools.partial(_compiled, window=window)
    return _on_cpu(by_matmul if whole else shared, default, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(
    y: jax.Array, kernel: jax.Array, window: _Window, sides: tuple[int, int]
) -> jax.Array:
    """Maps `[B, H', W', O]` and `[kh, kw, I, O]` to `[B, H, W, I]`; sides: H, W."""
    height, width = kernel.shape[:2]
    shape = (len(y), *sides, kernel.shape[window.layout.index("I")])

    def compiled(y: jax.Array, kernel: jax.Array) -> jax.Array:
        x = jax.ShapeDtypeStruct(shape, y.dtype)
        return _transpose(lambda x: _compiled(x, kernel, window), x, y)

    def by_matmul(y: jax.Array, kernel: jax.Array) -> jax.Array:
        columns = _columns(y, kernel, window.layout)
        x = jax.ShapeDtypeStruct(shape, columns.dtype)
        return _transpose(lambda x: _patches(x, (height, width), window), x, columns)

    def by_phases(y: jax.Array, kernel: jax.Array) -> jax.Array:
        return _input_gradient_by_phases(y, kernel, window, sides)

    reverse = window.reversed(height)

    def shared(y: jax.Array, kernel: jax.Array) -> jax.Array:
        kernel = _in_order(kernel[::-1, ::-1], reverse)
        return _shared(y, kernel, reverse.pads, dilation=window.dilation)

    if _by_matmul(shape, (height, width), window):
        return _on_cpu(by_matmul, compiled, y, kernel)
    if 1 < window.stride <= min(height, width) and window.dilation == 1:
        return _on_cpu(by_phases, compiled, y, kernel)
    if height != width or window.stride != 1:
        return compiled(y, kernel)
    return _on_cpu(shared, compiled, y, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(
    x: jax.Array, y: jax.Array, window: _Window, size: tuple[int, int]
) -> jax.Array:
    """Maps `[B, H, W, I]` and `[B, H', W', O]` to `[kh, kw, I, O]`; size: kh, kw."""
    features, out = x.shape[-1], y.shape[-1]

    def compiled(x: jax.Array, y: jax.Array) -> jax.Array:
        shape = (features, out) if window.layout == "HWIO" else (out, features)
        kernel = jax.ShapeDtypeStruct((*size, *shape), y.dtype)
        return _transpose(lambda kernel: _compiled(x, kernel, window), kernel, y)

    def by_matmul(x: jax.Array, y: jax.Array) -> jax.Array:
        patches = _patches(x, size, window)
        kernel = _patches_by_output(patches, y, size, window.layout)
        return kernel.reshape(*size, *kernel.shape[1:])

    def in_order(x: jax.Array, y: jax.Array) -> jax.Array:
        return _kernel_gradient_in_order(x, y, window, size)

    def by_bands(x: jax.Array, y: jax.Array) -> jax.Array:
        return _kernel_gradient_by_bands(x, y, window, size)

    on_cpu = by_bands if _by_bands(x.shape, y.shape, size) else in_order
    if _by_matmul(x.shape, size, window):
        on_cpu = by_matmul
    return _on_cpu(on_cpu, compiled, x, y)


_convolve.defvjp(
    lambda x, kernel, window: (_convolve(x, kernel, window), (x, kernel)),
    lambda window, saved, y: (
        _input_gradient(y, saved[1], window, saved[0].shape[1:3]),
        _kernel_gradient(saved[0], y, window, saved[1].shape[:2]),
    ),
)
_input_gradient.defvjp(
    lambda y, kernel, window, sides: (
        _input_gradient(y, kernel, window, sides),
        (y, kernel),
    ),
    lambda window, sides, saved, x: (
        _convolve(x, saved[1], window),
        _kernel_gradient(x, saved[0], window, saved[1].shape[:2]),
    ),
)
_kernel_gradient.defvjp(
    lambda x, y, window, size: (_kernel_gradient(x, y, window, size), (x, y)),
    lambda window, size, saved, kernel: (
        _input_gradient(saved[1], kernel, window, saved[0].shape[1:3]),
        _convolve(saved[0], kernel, window),
    ),
)


def _compiled(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    return _plain(x, kernel, window.pads, window.stride, window.dilation, window.layout)


def _plain(
    x: jax.Array,
    kernel: jax.Array,
    padding: Sequence[tuple[int, int]],
    stride: int = 1,
    dilation: int = 1,
    layout: str = "HWIO",
) -> jax.Array:
    """Returns the compiler's convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", layout, "NHWC"),
    )


# In a loop or a branch, the compiler's CPU convolution is some 20 times slower unless
# batch and features stand where it wants them, which it sees to outside of them alone.


def _in_order(kernel: jax.Array, window: _Window) -> jax.Array:
    """Returns the kernel with its axes brought into order, `[kh, kw, I, O]`."""
    return kernel.swapaxes(2, 3) if window.layout == "HWOI" else kernel


def _shared(
    x: jax.Array,
    kernel: jax.Array,
    padding: Sequence[tuple[int, int]],
    stride: int = 1,
    dilation: int = 1,
) -> jax.Array:
    """Returns the convolution in the form that is fastest on CPUs."""
    out = kernel.shape[3]
    rows, across = (
        _side(length + sum(pair), size, stride, dilation)
        for length, pair, size in zip(
            x.shape[1:3], padding, kernel.shape[:2], strict=True
        )
    )
    pixels = len(x) * rows * across
    products = pixels * math.prod(kernel.shape[2:])
    if pixels >= _TILED_PIXELS and products >= _TILED_PRODUCTS:
        tile = _winograd_tile(across, kernel.shape, stride, dilation)
        if tile > 1:
            return _by_winograd(x, kernel, padding, dilation, tile)
    if pixels >= _MANY_PIXELS:
        if _in_bands(*kernel.shape[2:]):
            return _by_bands_of_patches(x, kernel, padding, stride, dilation)
        kernel = _filled_up(kernel)
    return _plain(x, kernel, padding, stride, dilation)[..., :out]


def _filled_up(kernel: jax.Array) -> jax.Array:
    """Returns a kernel for few features with zeros for more, which is faster there."""
    features, out = kernel.shape[2:]
    if out >= _LANES or (out <= _LANES // 2 and features > _FEW_FEATURES):
        return kernel
    return jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, _LANES - out)))


def _kernel_gradient_in_order(
    x: jax.Array, y: jax.Array, window: _Window, size: tuple[int, int]
) -> jax.Array:
    """Returns the kernel's gradient as a convolution over pictures of the batch.

    The input's features are its batch, the output is its kernel, and what was the
    batch is added up. Stride and dilation change places.
    """
    step, apart = window.stride, window.dilation
    padding = []
    for length, moves, taps in zip(x.shape[1:3], y.shape[1:3], size, strict=True):
        reach = (moves - 1) * step + (taps - 1) * apart + 1
        padding.append((window.padding, reach - length - window.padding))
    kernel = _plain(
        x.transpose(3, 1, 2, 0),
        y.transpose(1, 2, 0, 3),
        padding,
        stride=apart,
        dilation=step,
    )
    return kernel.transpose(
        *((1, 2, 0, 3) if window.layout == "HWIO" else (1, 2, 3, 0))
    )


def _transpose(
    linear: Callable[[jax.Array], jax.Array], x: jax.ShapeDtypeStruct, y: jax.Array
) -> jax.Array:
    """Returns the adjoint of `linear`, which takes what looks like `x`, at `y`."""
    return jax.linear_transpose(linear, x)(y)[0]


def _on_cpu(special: Callable, default: Callable, *args: jax.Array) -> jax.Array:
    """Returns `special(*args)` on CPUs and `default(*args)` elsewhere.

    On CPUs in float32 at least. The platform is known when the program is compiled:
    only one of the two remains in it.
    """

    def wide(*args: jax.Array) -> jax.Array:
        dtype = jnp.promote_types(args[0].dtype, jnp.float32)
        return special(*(x.astype(dtype) for x in args)).astype(args[0].dtype)

    return lax.platform_dependent(*args, cpu=wide, default=default)


def _by_matmul(shape: tuple[int, ...], size: tuple[int, int], window: _Window) -> bool:
    """Whether a CPU should gather patches and multiply matrices; shape: of the input.

    Few output pixels make the compiler's convolution spend its time on rearranging the
    kernel. A layer over the whole map has nothing to gather.
    """
    sides = [window.side(n, k) for n, k in zip(shape[1:3], size, strict=True)]
    few = window.dilation == 1 and shape[0] * math.prod(sides) <= _PATCHES
    return few or (size == (1, 1) and not window.padding)


def _by_bands(
    shape: tuple[int, ...], out: tuple[int, ...], size: tuple[int, int]
) -> bool:
    """Whether a CPU should sum the kernel's gradient up over bands of rows.

    Not where the kernel itself, which every band adds to, is large for so few pixels;
    small pictures with few features are not worth it. The shapes are those of input and
    output.
    """
    features = shape[3] * out[3]
    if features < _FEATURES and out[1] * out[2] < _PIXELS:
        return False
    few = features * math.prod(size) <= _KERNEL
    return few or math.prod(out[:3]) >= _MANY_PIXELS


def _in_bands(features: int, out: int) -> bool:
    """Whether a CPU should multiply patches band by band, for numbers of features."""
    return _cores() > 1 and features >= _WIDE_INPUT and out >= _WIDE_OUTPUT


def _cores() -> int:
    """Returns how many cores there are for each device of this process."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, count // jax.local_device_count())


class _Reach(NamedTuple):
    """Which pixels of flattened pictures go into the outputs, row by row."""

    places: np.ndarray
    """int `[planes, columns, taps]`: the pixels of the first row."""
    steps: np.ndarray
    """int `[rows]`: how much further those of each row are."""

    def bands(self, batch: int, pixels: int) -> tuple[int, int]:
        """Returns how many bands of how many rows have about so many pixels each."""
        rows, columns = len(self.steps), self.places.shape[1]
        most = min(max(1, pixels // (batch * columns)), rows)
        size = max(n for n in range(1, most + 1) if rows % n == 0)
        if 2 * size <= most:
            size = most
        return -(-rows // size), size

    def patches(self, x: jax.Array, number: jax.Array, size: int) -> jax.Array:
        """Maps `[B, pixels, I]` to `[planes, B size columns, taps I]` of a band.

        Rows beyond the last one are as that is.
        """
        planes, columns, taps = self.places.shape
        batch, rows = len(x), len(self.steps)
        more = -rows % size
        steps = np.concatenate([self.steps, np.repeat(self.steps[-1:], more)])
        shape = planes, batch * size * columns, taps, x.shape[2]
        dimensions = lax.GatherDimensionNumbers(
            offset_dims=(5,),
            collapsed_slice_dims=(1,),
            start_index_map=(1,),
            operand_batching_dims=(0,),
            start_indices_batching_dims=(1,),
        )

        def gathered(x: jax.Array, number: jax.Array) -> jax.Array:
            first = jnp.asarray(steps.reshape(-1, size), jnp.int32)[number]
            index = jnp.asarray(self.places[:, None, None], jnp.int32)
            index = index + first[None, None, :, None, None]
            index = jnp.broadcast_to(index, (planes, batch, size, columns, taps))
            found = lax.gather(
                x,
                index[..., None],
                dimensions,
                (1, 1, x.shape[2]),
                mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
            )
            return found.reshape(shape)

        def nothing(x: jax.Array, number: jax.Array) -> jax.Array:
            del number
            return jnp.zeros(shape, x.dtype)

        # Always the first. In a branch the loop's innermost axis is that of features:
        # merged with the next, as the product wants it, it takes four times as long.
        found = lax.cond(number >= 0, gathered, nothing, x, number)
        return found.reshape(*shape[:2], -1)


def _reach(
    sides: Sequence[int], size: Sequence[int], stride: int, dilation: int
) -> _Reach:
    """Returns that of a kernel in padded pictures, in one plane."""
    wide = sides[1]
    rows, across = (
        _side(length, taps, stride, dilation)
        for length, taps in zip(sides, size, strict=True)
    )
    down, right = (np.arange(taps) * dilation for taps in size)
    taps = (down[:, None] * wide + right).reshape(-1)
    return _Reach(
        (np.arange(across)[:, None] * stride + taps)[None],
        np.arange(rows) * stride * wide,
    )


def _by_bands_of_patches(
    x: jax.Array,
    kernel: jax.Array,
    padding: Sequence[tuple[int, int]],
    stride: int = 1,
    dilation: int = 1,
) -> jax.Array:
    """Returns the convolution with a kernel `[kh, kw, I, O]`, some rows at a time.

    What their windows cover is gathered, which is one loop over the cache, and
    multiplied, which the cores share well.
    """
    zero = _zero_of(x)
    x = _padded(x, padding)
    return _banded_products(
        x.reshape(len(x), -1, x.shape[3]),
        kernel.reshape(1, -1, kernel.shape[3]),
        zero,
        reach=_reach(x.shape[1:3], kernel.shape[:2], stride, dilation),
        pixels=_BAND * _cores(),
        combine=lambda products: products[0],
    )


def _zero_of(x: jax.Array) -> jax.Array:
    """Returns a zero that is there only with the pictures.

    What does not depend on them the compiler would make for all layers before all else,
    and so take memory that is new and in no cache. Not of several devices, which would
    have to send it around.
    """
    if jax.local_device_count() > 1:
        return jnp.zeros((), x.dtype)
    kind = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    number = lax.bitcast_convert_type(x[0, 0, 0, 0], kind)
    # Anything cheaper than a division would be done anew wherever the zero is added.
    return ((number >> 1) // kind.type(np.iinfo(kind).max)).astype(x.dtype)


def _padded(x: jax.Array, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """Returns `[B, H, W, I]` with zeros added, or pixels cut off where negative."""
    edges = [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _banded_products(
    x: jax.Array,
    matrices: jax.Array,
    zero: jax.Array,
    *,
    reach: _Reach,
    pixels: int,
    combine: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Returns rows of output pixels, made of products of gathered pixels, in a loop.

    Args:
      x: `[B, pixels, I]`.
      matrices: `[planes, taps I, O]`.
      zero: `_zero_of` the pictures. Taken from `x` it would have that made twice.
      reach: which pixels go into an output.
      pixels: of all pictures that are worked on at once.
      combine: makes `[.., columns', O]`, of all columns and planes of a row, out of
        `[planes, .., columns, O]`.

    Returns:
      `[B, rows, columns', O]`.
    """
    batch, out = len(x), matrices.shape[-1]
    planes, columns, _ = reach.places.shape
    count, size = reach.bands(batch, pixels)

    def band(number: jax.Array) -> jax.Array:
        patches = reach.patches(x, number, size)
        products = lax.dot_general(patches, matrices, (((2,), (1,)), ((0,), (0,))))
        return combine(products.reshape(planes, batch, size, columns, out))

    # The compiler would undo a loop of one, and also the branch that gathers if it knew
    # the number.
    if count == 1:
        return band(zero.astype(jnp.int32))
    shape = jax.eval_shape(band, jax.ShapeDtypeStruct((), jnp.int32))
    y = jnp.broadcast_to(zero, (batch, count * size, *shape.shape[2:]))
    y = lax.fori_loop(
        0,
        count,
        lambda number, y: lax.dynamic_update_slice_in_dim(
            y, band(number), number * size, axis=1
        ),
        y,
    )
    return y[:, : len(reach.steps)]


def _banded_sums(
    x: jax.Array, y: jax.Array, zero: jax.Array, *, reach: _Reach, pixels: int
) -> jax.Array:
    """Returns the gradient of the matrices of `_banded_products`, in a loop as there.

    Args:
      x: `[B, pixels, I]`.
      y: `[B, rows, planes columns, O]`.
      zero: as there.
      reach: which pixels went into an output.
      pixels: of all pictures that are worked on at once.

    Returns:
      `[planes, O, taps, I]`: the smaller operand of the products is the one that the
      compiler turns around.
    """
    planes, columns, taps = reach.places.shape
    batch, rows, _, out = y.shape
    count, size = reach.bands(batch, pixels)
    y = _padded(y, [(0, count * size - rows), (0, 0)])

    def sums(number: jax.Array) -> jax.Array:
        patches = reach.patches(x, number, size)
        band = lax.dynamic_slice_in_dim(y, number * size, size, axis=1)
        band = band.reshape(batch, size, planes, columns, out)
        band = jnp.moveaxis(band, 2, 0).reshape(planes, -1, out)
        return lax.dot_general(band, patches, (((1,), (1,)), ((0,), (0,))))

    if count == 1:
        total = sums(zero.astype(jnp.int32))
    else:
        total = jnp.zeros((planes, out, taps * x.shape[2]), x.dtype)
        total = lax.fori_loop(
            0, count, lambda number, total: total + sums(number), total
        )
    return total.reshape(planes, out, taps, -1)


def _winograd_tile(
    width: int, kernel: tuple[int, ...], stride: int, dilation: int
) -> int:
    """Returns how many outputs of a row, of `width`, a CPU should make together."""
    fewer, more = sorted(kernel[2:])
    if stride > 1 or kernel[1] != 3:
        return 1
    if fewer < _TILED_FEATURES[0] or more < _TILED_FEATURES[1]:
        return 1

    def work(tile: int) -> float:
        if tile == 1:
            return 3 * width
        blocks = -(-width // (tile * dilation))
        return blocks * dilation * (tile + 2) * _TRANSFORMS

    return min((1, *_WINOGRAD), key=work)


def _combination(factors: np.ndarray, parts: Sequence[jax.Array]) -> jax.Array:
    """Returns the sum of the parts times the factors, of which many are 0 or 1."""
    terms = [
        part if factor == 1 else factor * part
        for factor, part in zip(factors.tolist(), parts, strict=True)
        if factor
    ]
    return functools.reduce(jnp.add, terms)


class _Tiles(NamedTuple):
    """How Winograd's minimal filtering F(tile, 3) goes along rows of pictures.

    Lavin and Gray, CVPR 2016, section 4.1: `tile + 2` products give `tile` outputs of 3
    taps. Rows of the kernel and features are one long sum, as in
    `_by_bands_of_patches`. Columns at the distance of the dilation meet in a block.
    """

    tile: int
    dilation: int
    across: int
    """Columns of the output."""

    @property
    def blocks(self) -> int:
        return -(-self.across // (self.tile * self.dilation))

    @property
    def line(self) -> int:
        """Columns of a plane."""
        return self.blocks * self.dilation

    @property
    def more(self) -> int:
        """Columns that the last blocks have beyond the output's."""
        return self.tile * self.line - self.across

    def planes(
        self, x: jax.Array, padding: Sequence[tuple[int, int]], height: int
    ) -> tuple[jax.Array, _Reach]:
        """Maps `[B, H, W, I]` to `[B, pixels, I]`, and what a kernel's rows see."""
        (left, right), count = padding[1], self.tile + 2
        x = _padded(x, [padding[0], (left, right + self.more)])
        batch, tall, wide, features = x.shape
        x = x.reshape(batch, tall, wide // self.dilation, self.dilation, features)
        last = self.tile * (self.blocks - 1) + 1
        columns = [x[:, :, k : k + last : self.tile] for k in range(count)]
        matrix = _WINOGRAD[self.tile].inputs
        x = jnp.stack([_combination(row, columns) for row in matrix], axis=1)
        plane = np.arange(count)[:, None, None] * (tall * self.line)
        down = np.arange(height) * self.dilation * self.line
        rows = _side(tall, height, 1, self.dilation)
        reach = _Reach(
            plane + np.arange(self.line)[:, None] + down, np.arange(rows) * self.line
        )
        return x.reshape(batch, -1, features), reach

    def matrices(self, kernel: jax.Array) -> jax.Array:
        """Maps `[kh, 3, I, O]` to `[planes, kh I, O]`."""
        taps = [kernel[:, k] for k in range(3)]
        rows = _WINOGRAD[self.tile].kernels
        kernel = jnp.stack([_combination(row, taps) for row in rows])
        return kernel.reshape(len(kernel), -1, kernel.shape[3])

    def kernel(self, matrices: jax.Array) -> jax.Array:
        """Maps `[planes, ..]` to `[3, ..]`, the adjoint of `matrices`."""
        columns = _WINOGRAD[self.tile].kernels.T
        return jnp.stack([_combination(column, list(matrices)) for column in columns])

    def combine(self, products: jax.Array) -> jax.Array:
        """Maps `[planes, B, rows, columns of a plane, O]` to `[B, rows, W, O]`."""
        shape = *products.shape[:3], self.blocks, self.dilation, products.shape[4]
        products = products.reshape(shape)
        matrix = _WINOGRAD[self.tile].outputs
        y = jnp.stack([_combination(row, list(products)) for row in matrix], axis=3)
        return y.reshape(*y.shape[:2], -1, y.shape[5])

    def spread(self, y: jax.Array) -> jax.Array:
        """Maps `[B, rows, W, O]` to `[B, rows, planes columns, O]`.

        The adjoint of `combine`, but for the order of axes: the batch stays the first,
        as it may be divided among devices.
        """
        y = _padded(y, [(0, 0), (0, self.more)])
        batch, rows, _, out = y.shape
        y = y.reshape(batch, rows, self.blocks, self.tile, self.dilation, out)
        columns = [y[:, :, :, k] for k in range(self.tile)]
        matrix = _WINOGRAD[self.tile].outputs.T
        y = jnp.stack([_combination(row, columns) for row in matrix], axis=2)
        return y.reshape(batch, rows, -1, out)


def _by_winograd(
    x: jax.Array,
    kernel: jax.Array,
    padding: Sequence[tuple[int, int]],
    dilation: int,
    tile: int,
) -> jax.Array:
    """Returns the convolution with a kernel `[kh, 3, I, O]` in fewer products."""
    across = _side(x.shape[2] + sum(padding[1]), 3, 1, dilation)
    tiles = _Tiles(tile, dilation, across)
    zero = _zero_of(x)
    x, reach = tiles.planes(x, padding, kernel.shape[0])
    y = _banded_products(
        x,
        tiles.matrices(kernel + zero),
        zero,
        reach=reach,
        pixels=_TILES,
        combine=tiles.combine,
    )
    return y[:, :, :across]


def _patches(x: jax.Array, size: tuple[int, int], window: _Window) -> jax.Array:
    """Returns `[B, H', W', kh kw I]`: what the window covers, undilated."""
    if x.shape[1:3] == size and not window.padding:
        return x.reshape(len(x), 1, 1, -1)
    x, step = _padded(x, window.pads), window.stride
    # The distance from the first to the last window, plus one.
    height, width = (
        (n - k) // step * step + 1 for n, k in zip(x.shape[1:3], size, strict=True)
    )
    # Columns first, then rows: fewer and longer pieces to copy.
    x = jnp.concatenate(
        [x[:, :, j : j + width : step] for j in range(size[1])], axis=-1
    )
    return jnp.concatenate(
        [x[:, i : i + height : step] for i in range(size[0])], axis=-1
    )


# The compiler copies an operand whose contracted axis is not where its multiplication
# wants it. For large kernels and few patches that copy would take most of the time, so
# the three products below turn the smaller operand, or multiply for each tap apart.


def _patches_by_kernel(patches: jax.Array, kernel: jax.Array, layout: str) -> jax.Array:
    """Maps `[B, H', W', kh kw I]` and the kernel to `[B, H', W', O]`."""
    pixels = patches.shape[:3]
    taps = math.prod(kernel.shape[:2])
    if layout == "HWIO":
        flat = kernel.reshape(-1, kernel.shape[3])
        return lax.dot_general(patches, flat, (((3,), (0,)), ((), ())))
    if math.prod(pixels) > _FEW_PATCHES:
        flat = kernel.swapaxes(2, 3).reshape(-1, kernel.shape[2])
        return lax.dot_general(patches, flat, (((3,), (0,)), ((), ())))
    by_tap = patches.reshape(math.prod(pixels), taps, -1)
    flat = kernel.reshape(taps, *kernel.shape[2:])
    y = lax.dot_general(flat, by_tap, (((2,), (2,)), ((0,), (1,))))
    return jnp.sum(y, axis=0).T.reshape(*pixels, -1)


def _columns(y: jax.Array, kernel: jax.Array, layout: str) -> jax.Array:
    """Maps `[B, H', W', O]` and the kernel to `[B, H', W', kh kw I]`."""
    pixels = y.shape[:3]
    taps = math.prod(kernel.shape[:2])
    rows = y.reshape(-1, y.shape[3])
    if layout == "HWIO":
        flat = kernel.reshape(-1, kernel.shape[3])
        columns = lax.dot_general(flat, rows, (((1,), (1,)), ((), ()))).T
    elif len(rows) > _FEW_PATCHES:
        columns = lax.dot_general(rows, kernel, (((1,), (2,)), ((), ())))
    else:
        flat = kernel.reshape(taps, *kernel.shape[2:])
        copies = jnp.broadcast_to(rows[None], (taps, *rows.shape))
        columns = lax.dot_general(copies, flat, (((2,), (1,)), ((0,), (0,))))
        columns = columns.swapaxes(0, 1)
    return columns.reshape(*pixels, -1)


def _patches_by_output(
    patches: jax.Array, y: jax.Array, size: tuple[int, int], layout: str
) -> jax.Array:
    """Maps `[B, H', W', kh kw I]` and `[B, H', W', O]` to `[kh kw, I, O]`."""
    taps, rows = math.prod(size), y.reshape(-1, y.shape[3])
    by_tap = patches.reshape(len(rows), taps, -1)
    if layout == "HWIO":
        flat = by_tap.reshape(len(rows), -1)
        kernel = lax.dot_general(flat, rows, (((0,), (0,)), ((), ())))
        return kernel.reshape(taps, -1, y.shape[3])
    if len(rows) > _FEW_PATCHES:
        kernel = lax.dot_general(rows, by_tap, (((0,), (0,)), ((), ())))
        return kernel.swapaxes(0, 1)
    copies = jnp.broadcast_to(rows[None], (taps, *rows.shape))
    return lax.dot_general(copies, by_tap, (((1,), (0,)), ((0,), (1,))))


def _input_gradient_by_phases(
    y: jax.Array, kernel: jax.Array, window: _Window, sides: tuple[int, int]
) -> jax.Array:
    """Returns the input's gradient as one convolution for each phase of the stride.

    The compiler's form spreads `y` out with zeros between and multiplies those too.
    Input pixels with the same remainder modulo the stride see the same part of the
    kernel, and form a picture that an ordinary convolution makes out of `y`.
    """
    step, size = window.stride, kernel.shape[:2]
    counts = [-(-side // step) for side in sides]
    # From the output's features to the input's.
    kernel = kernel.swapaxes(2, 3) if window.layout == "HWIO" else kernel

    def phase(axis: int, first: int) -> tuple[int, tuple[int, int]]:
        """Returns the first tap and the padding of input pixels first + i stride."""
        start, tap = divmod(first + window.padding, step)
        taps = len(range(tap, size[axis], step))
        low = taps - 1 - start
        return tap, (low, start + counts[axis] - y.shape[1 + axis])

    rows = []
    for top in range(step):
        row = []
        for left in range(step):
            (i, vertical), (j, horizontal) = phase(0, top), phase(1, left)
            part = kernel[i::step, j::step][::-1, ::-1]
            row.append(_shared(y, part, [vertical, horizontal]))
        rows.append(jnp.stack(row, axis=3))
    x = jnp.stack(rows, axis=2)
    x = x.reshape(len(y), step * counts[0], step * counts[1], -1)
    return x[:, : sides[0], : sides[1]]


def _kernel_gradient_by_bands(
    x: jax.Array, y: jax.Array, window: _Window, size: tuple[int, int]
) -> jax.Array:
    """Returns the kernel's gradient, a few rows of `y` at a time.

    Those stay in the cache. The compiler's form turns all pictures around first, so
    that features become a batch.
    """
    across, out = y.shape[2:]
    zero, shape = _zero_of(x), (*size, x.shape[3], out)
    tile = _winograd_tile(across, shape, window.stride, window.dilation)
    if tile > 1 and math.prod(shape) <= _KERNEL:
        tiles = _Tiles(tile, window.dilation, across)
        planes, reach = tiles.planes(x, window.pads, size[0])
        y = tiles.spread(y)
        total = _banded_sums(planes, y, zero, reach=reach, pixels=_TILES)
        kernel = tiles.kernel(total).transpose(2, 0, 3, 1)
    else:
        x = _padded(x, window.pads)
        reach = _reach(x.shape[1:3], size, window.stride, window.dilation)
        flat = x.reshape(len(x), -1, x.shape[3])
        total = _banded_sums(flat, y, zero, reach=reach, pixels=_TILES)
        kernel = total[0].transpose(1, 2, 0).reshape(shape)
    return kernel if window.layout == "HWIO" else kernel.swapaxes(2, 3)


class _Layer(nn.Module):
    """What both layers have; parameters `kernel` and, on request, `bias`."""

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.he_normal()
    bias_init: Callable = nn.initializers.zeros

    def _apply(self, convolve: Callable, x: jax.Array, **options: int) -> jax.Array:
        size = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, size)
        y = convolve(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            **options,
        )
        if not self.use_bias:
            return y
        bias = self.param("bias", self.bias_init, (self.features,))
        return y + bias.astype(self.dtype)[None, None, None]


class Conv(_Layer):
    """Convolution with square kernels; parameters `kernel` and, on request, `bias`."""

    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, I]` to `[B, H', W', features]` of `dtype`."""
        return self._apply(convolve, x, dilation=self.dilation)


class ConvTranspose(_Layer):
    """Transposed convolution with square kernels; parameters as in `Conv`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, I]` to `[B, H', W', features]` of `dtype`."""
        return self._apply(convolve_transposed, x)
