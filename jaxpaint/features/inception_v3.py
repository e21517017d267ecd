"""Inception-V3 as FID and KID use it (Szegedy et al. 2016; Heusel et al. 2017).

The weights are those of the TensorFlow graph of 2015, as pytorch-fid published them
(`pt_inception-2015-12-05-*.pth`); the user supplies the file. That graph differs from
other Inception networks: average pools do not count what is padded, and the last block
takes the greatest of nine pixels where the others take their mean.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpaint import convert, torch_file
from jaxpaint.convert import coverage
from jaxpaint.types import Params

_SIDE = 299
_EPSILON = 1e-3

Conv = Callable[..., jax.Array]
"""`(name, x, features, kernel, stride, padding) -> y`: convolution, norm and ReLU."""


def read(path: Path | str) -> Params:
    """Returns the parameters, with batch norms folded into kernels.

    Raises:
      InputError: a file that cannot be read, or whose layers are others.
    """
    arrays = convert.state_dict(torch_file.load(path))
    norms = ("weight", "bias", "running_mean", "running_var")
    missing, misshaped, params = [], [], {}
    for name, shape in _shapes().items():
        keys = [f"{name}.conv.weight", *(f"{name}.bn.{norm}" for norm in norms)]
        if lacking := [key for key in keys if key not in arrays]:
            missing += lacking
            continue
        weight, *norm = (np.asarray(arrays[key], np.float32) for key in keys)
        if weight.shape != shape:
            misshaped.append(f"{keys[0]} is {list(weight.shape)}, want {list(shape)}")
            continue
        scale, shift, mean, var = norm
        factor = scale / np.sqrt(var + np.float32(_EPSILON))
        params[name] = {
            "kernel": weight.transpose(2, 3, 1, 0) * factor,
            "bias": shift - mean * factor,
        }
    coverage.report(missing, [], misshaped)
    return params


def describe(params: Params, image: jax.Array) -> jax.Array:
    """Returns the features of FID and KID, `[B, 2048]`: the last pooling.

    Images of any size `[B, H, W, 3]` in [-1, 1] are scaled to 299 x 299, linearly and
    without antialiasing, as pytorch-fid does.
    """
    shape = (len(image), _SIDE, _SIDE, 3)
    x = jax.image.resize(image, shape, "linear", antialias=False)

    def conv(name, x, features, kernel, stride=1, padding=(0, 0)):
        del features, kernel
        layer = params[name]
        y = lax.conv_general_dilated(
            x,
            layer["kernel"],
            (stride, stride),
            [(p, p) for p in padding],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jax.nn.relu(y + layer["bias"][None, None, None])

    return _network(conv, x)


def _shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shape of each kernel in the file, `[O, I, h, w]`, by layer."""
    shapes = {}

    def conv(name, x, features, kernel, stride=1, padding=(0, 0)):
        shapes[name] = (features, x.shape[-1], *kernel)
        sides = [
            (side + 2 * p - k) // stride + 1
            for side, p, k in zip(x.shape[1:3], padding, kernel, strict=True)
        ]
        return jnp.zeros((1, *sides, features))

    image = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, 3), jnp.float32)
    jax.eval_shape(lambda x: _network(conv, x), image)
    return shapes


def _network(conv: Conv, x: jax.Array) -> jax.Array:
    x = conv("Conv2d_1a_3x3", x, 32, (3, 3), 2)
    x = conv("Conv2d_2a_3x3", x, 32, (3, 3))
    x = conv("Conv2d_2b_3x3", x, 64, (3, 3), 1, (1, 1))
    x = _greatest(x, 2)
    x = conv("Conv2d_3b_1x1", x, 80, (1, 1))
    x = conv("Conv2d_4a_3x3", x, 192, (3, 3))
    x = _greatest(x, 2)
    for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
        x = _block_a(conv, f"Mixed_5{letter}", x, pooled)
    x = _block_b(conv, "Mixed_6a", x)
    for letter, inner in zip("bcde", (128, 160, 160, 192), strict=True):
        x = _block_c(conv, f"Mixed_6{letter}", x, inner)
    x = _block_d(conv, "Mixed_7a", x)
    x = _block_e(conv, "Mixed_7b", x, _mean)
    x = _block_e(conv, "Mixed_7c", x, lambda x: _greatest(x, 1, "SAME"))
    return jnp.mean(x, axis=(1, 2))


def _block_a(conv: Conv, name: str, x: jax.Array, pooled: int) -> jax.Array:
    one = conv(f"{name}.branch1x1", x, 64, (1, 1))
    five = conv(f"{name}.branch5x5_1", x, 48, (1, 1))
    five = conv(f"{name}.branch5x5_2", five, 64, (5, 5), 1, (2, 2))
    three = conv(f"{name}.branch3x3dbl_1", x, 64, (1, 1))
    three = conv(f"{name}.branch3x3dbl_2", three, 96, (3, 3), 1, (1, 1))
    three = conv(f"{name}.branch3x3dbl_3", three, 96, (3, 3), 1, (1, 1))
    pool = conv(f"{name}.branch_pool", _mean(x), pooled, (1, 1))
    return jnp.concatenate([one, five, three, pool], axis=-1)


def _block_b(conv: Conv, name: str, x: jax.Array) -> jax.Array:
    three = conv(f"{name}.branch3x3", x, 384, (3, 3), 2)
    double = conv(f"{name}.branch3x3dbl_1", x, 64, (1, 1))
    double = conv(f"{name}.branch3x3dbl_2", double, 96, (3, 3), 1, (1, 1))
    double = conv(f"{name}.branch3x3dbl_3", double, 96, (3, 3), 2)
    return jnp.concatenate([three, double, _greatest(x, 2)], axis=-1)


_ROW, _COLUMN = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
"""Kernels along one axis, with stride and padding."""


def _block_c(conv: Conv, name: str, x: jax.Array, inner: int) -> jax.Array:
    one = conv(f"{name}.branch1x1", x, 192, (1, 1))
    seven = conv(f"{name}.branch7x7_1", x, inner, (1, 1))
    seven = conv(f"{name}.branch7x7_2", seven, inner, *_ROW)
    seven = conv(f"{name}.branch7x7_3", seven, 192, *_COLUMN)
    double = conv(f"{name}.branch7x7dbl_1", x, inner, (1, 1))
    double = conv(f"{name}.branch7x7dbl_2", double, inner, *_COLUMN)
    double = conv(f"{name}.branch7x7dbl_3", double, inner, *_ROW)
    double = conv(f"{name}.branch7x7dbl_4", double, inner, *_COLUMN)
    double = conv(f"{name}.branch7x7dbl_5", double, 192, *_ROW)
    pool = conv(f"{name}.branch_pool", _mean(x), 192, (1, 1))
    return jnp.concatenate([one, seven, double, pool], axis=-1)


def _block_d(conv: Conv, name: str, x: jax.Array) -> jax.Array:
    three = conv(f"{name}.branch3x3_1", x, 192, (1, 1))
    three = conv(f"{name}.branch3x3_2", three, 320, (3, 3), 2)
    seven = conv(f"{name}.branch7x7x3_1", x, 192, (1, 1))
    seven = conv(f"{name}.branch7x7x3_2", seven, 192, *_ROW)
    seven = conv(f"{name}.branch7x7x3_3", seven, 192, *_COLUMN)
    seven = conv(f"{name}.branch7x7x3_4", seven, 192, (3, 3), 2)
    return jnp.concatenate([three, seven, _greatest(x, 2)], axis=-1)


def _block_e(
    conv: Conv, name: str, x: jax.Array, pool: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    def spread(branch: str, x: jax.Array, letters: str) -> list[jax.Array]:
        across, down = letters.split()
        return [
            conv(f"{branch}{across}", x, 384, (1, 3), 1, (0, 1)),
            conv(f"{branch}{down}", x, 384, (3, 1), 1, (1, 0)),
        ]

    one = conv(f"{name}.branch1x1", x, 320, (1, 1))
    three = conv(f"{name}.branch3x3_1", x, 384, (1, 1))
    double = conv(f"{name}.branch3x3dbl_1", x, 448, (1, 1))
    double = conv(f"{name}.branch3x3dbl_2", double, 384, (3, 3), 1, (1, 1))
    pooled = conv(f"{name}.branch_pool", pool(x), 192, (1, 1))
    parts = [
        one,
        *spread(f"{name}.branch3x3_", three, "2a 2b"),
        *spread(f"{name}.branch3x3dbl_", double, "3a 3b"),
        pooled,
    ]
    return jnp.concatenate(parts, axis=-1)


def _greatest(x: jax.Array, stride: int, padding: str = "VALID") -> jax.Array:
    """Returns the greatest of 3 x 3 pixels."""
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


def _mean(x: jax.Array) -> jax.Array:
    """Returns the mean of those of 3 x 3 pixels that are inside."""

    def add(x: jax.Array) -> jax.Array:
        return lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    return add(x) / add(jnp.ones((1, *x.shape[1:3], 1)))
