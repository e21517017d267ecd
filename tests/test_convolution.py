"""Convolutions equal the compiler's own, in values and gradients of every kind."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxpaint.layers import convolution
from jaxpaint.layers.convolution import (
    convolve,
    convolve_transposed,
    convolve_upsampled,
)
from jaxpaint.layers.partial_conv import PartialConv

# Batch, height, width, in, out, size, stride, padding, dilation. The first six have few
# output pixels and are matrix products on a CPU; the others are not.
CASES = [
    (2, 9, 8, 3, 4, 3, 1, 1, 1),
    (2, 9, 8, 3, 4, 4, 2, 1, 1),
    (2, 11, 7, 2, 3, 5, 2, 2, 1),
    (3, 4, 4, 5, 6, 4, 1, 0, 1),
    (3, 4, 5, 5, 6, 4, 1, 0, 1),
    (3, 1, 1, 5, 6, 3, 1, 1, 1),
    (1, 24, 26, 3, 4, 3, 1, 1, 1),
    (1, 48, 47, 3, 4, 4, 2, 1, 1),
    (1, 47, 50, 2, 3, 5, 2, 2, 1),
    (1, 48, 49, 2, 3, 7, 2, 3, 1),
    (1, 48, 49, 2, 3, 1, 2, 0, 1),
    (1, 72, 71, 2, 3, 4, 3, 0, 1),
    (1, 70, 72, 2, 3, 2, 3, 0, 1),
    (2, 9, 8, 3, 4, 3, 1, 2, 2),
    (1, 50, 49, 3, 4, 3, 2, 2, 2),
]


def reference(x, kernel, stride, padding, dilation=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def arrays(case):
    batch, height, width, features, out, size = case[:6]
    rng = np.random.default_rng(sum(case))
    x = rng.standard_normal((batch, height, width, features), dtype=np.float32)
    kernel = rng.standard_normal((size, size, features, out), dtype=np.float32)
    return jnp.asarray(x), jnp.asarray(kernel)


def check(got, want, tolerance=2e-6):
    got, want = (np.asarray(x, np.float32) for x in (got, want))
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


def recorded(name, monkeypatch):
    """Returns a list that gets arguments and result of all calls of a function."""
    calls, function = [], getattr(convolution, name)

    def call(*args, **options):
        calls.append((args, function(*args, **options)))
        return calls[-1][1]

    monkeypatch.setattr(convolution, name, call)
    return calls


def with_limits(monkeypatch, **limits):
    """Sets from where on, or up to where, a form of the convolution is taken."""
    for name, value in limits.items():
        monkeypatch.setattr(convolution, name, value)


def in_bfloat16(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_of_a_convolution(case) -> None:
    check_values_and_gradients(case)


def check_values_and_gradients(case, tolerance=2e-6) -> None:
    x, kernel = arrays(case)
    stride, padding, dilation = case[6:]
    ours = partial(convolve, stride=stride, padding=padding, dilation=dilation)

    @jax.jit
    def compare(x, kernel):
        want, back = jax.vjp(
            lambda x, w: reference(x, w, stride, padding, dilation), x, kernel
        )
        cotangent = jnp.cos(want)
        got, ours_back = jax.vjp(ours, x, kernel)
        return (got, *ours_back(cotangent)), (want, *back(cotangent))

    for got, want in zip(*compare(x, kernel), strict=True):
        check(got, want, tolerance)


@pytest.mark.parametrize(
    ("case", "calls"),
    [
        ((2, 9, 8, 3, 4, 3, 1, 1, 1), 2),
        ((1, 8, 11, 2, 3, 4, 1, 2, 1), 2),
        ((1, 12, 9, 2, 3, 3, 1, 2, 2), 2),
        ((2, 19, 8, 3, 4, 3, 1, 0, 1), 2),
        # An output, and the four phases of its gradient.
        ((2, 9, 8, 3, 4, 4, 2, 1, 1), 5),
    ],
)
@pytest.mark.parametrize("band", [1, 40, 1000])
def test_products_of_patches_in_bands(case, calls, band, monkeypatch):
    # Single rows; a number that does not divide the rows; and all of them.
    with_limits(monkeypatch, _PATCHES=0, _MANY_PIXELS=0, _BAND=band)
    with_limits(monkeypatch, _WIDE_INPUT=0, _WIDE_OUTPUT=0)
    monkeypatch.setattr(convolution, "_cores", lambda: 2)
    found = recorded("_by_bands_of_patches", monkeypatch)
    check_values_and_gradients(case)
    assert len(found) == calls


@pytest.mark.parametrize(
    ("case", "tile"),
    [
        ((2, 9, 8, 3, 4, 3, 1, 1, 1), 4),
        ((1, 11, 6, 3, 4, 3, 1, 1, 1), 2),
        ((2, 8, 10, 2, 3, 3, 1, 0, 1), 4),
        ((1, 12, 16, 2, 3, 3, 1, 2, 2), 4),
        ((1, 12, 15, 2, 3, 3, 1, 4, 4), 4),
    ],
)
@pytest.mark.parametrize("tiles", [1, 20, 1000])
def test_winograds_filtering_along_rows(case, tile, tiles, monkeypatch):
    # Output and both gradients; columns that fill no block, and dilation.
    with_limits(monkeypatch, _PATCHES=0, _TILES=tiles, _FEATURES=0)
    with_limits(monkeypatch, _TILED_FEATURES=(0, 0))
    with_limits(monkeypatch, _TILED_PIXELS=0, _TILED_PRODUCTS=0)
    found = recorded("_by_winograd", monkeypatch)
    sums = recorded("_banded_sums", monkeypatch)
    check_values_and_gradients(case, tolerance=2e-5)
    assert len(found) == 2
    arguments, _ = found[0]
    assert arguments[-1] == tile
    [(_, kernel)] = sums
    assert len(kernel) == tile + 2


def test_winograds_products_where_they_are_fewest() -> None:
    def tile(width, dilation=1, features=(64, 64), size=3, stride=1):
        kernel = 3, size, *features
        return convolution._winograd_tile(width, kernel, stride, dilation)

    assert tile(64) == 4
    assert tile(64, dilation=16) == 4
    assert tile(66, dilation=32) == 1
    assert tile(34, dilation=16) == 1
    assert tile(32, dilation=16) == 2
    assert tile(64, features=(64, 48)) == 4
    assert tile(64, features=(64, 3)) == 1
    assert tile(64, size=1) == 1
    assert tile(64, stride=2) == 1


@pytest.mark.parametrize("bits", [0, 1 << 31, 0x7F800000, 0xFF800000, 0xFFFFFFFF])
def test_the_zero_of_pictures_is_one_whatever_is_in_them(bits, monkeypatch):
    # Both zeros, infinities, and the last of the numbers that are none.
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    x = np.full((1, 1, 1, 1), bits, np.uint32).view(np.float32)
    assert jax.jit(convolution._zero_of)(x).view(np.uint32) == 0


def test_maps_of_many_features_go_by_winograds_filtering_earlier(monkeypatch):
    found = recorded("_by_winograd", monkeypatch)
    for side, features in ((32, 128), (64, 64), (32, 64), (16, 256)):
        x = jax.ShapeDtypeStruct((1, side, side, features), jnp.float32)
        kernel = jax.ShapeDtypeStruct((3, 3, features, features), jnp.float32)
        jax.eval_shape(partial(convolve, padding=2, dilation=2), x, kernel)
    assert [y.shape[1::2] for _, y in found] == [(32, 128), (64, 64)]


@pytest.mark.parametrize(
    ("case", "features"),
    [
        ((2, 9, 8, 3, 4, 3, 1, 1, 1), [8, 8]),
        ((1, 8, 9, 12, 3, 3, 2, 1, 1), [8, 12, 12, 12, 12]),
        ((2, 7, 8, 20, 4, 3, 1, 1, 1), [4, 20]),
        ((2, 7, 8, 20, 5, 3, 1, 2, 2), [8, 20]),
    ],
)
def test_kernels_of_few_features_are_filled_up(case, features, monkeypatch):
    # Output and gradient of the input, for each phase of the stride.
    with_limits(monkeypatch, _PATCHES=0, _MANY_PIXELS=0)
    monkeypatch.setattr(convolution, "_cores", lambda: 1)
    found = recorded("_filled_up", monkeypatch)
    check_values_and_gradients(case)
    assert [kernel.shape[3] for _, kernel in found] == features


def test_products_in_bands_leave_a_sharded_batch_where_it_is(monkeypatch):
    with_limits(monkeypatch, _MANY_PIXELS=1 << 14, _TILED_FEATURES=(0, 0))
    with_limits(monkeypatch, _TILED_PRODUCTS=0, _WIDE_INPUT=0, _WIDE_OUTPUT=0)
    monkeypatch.setattr(convolution, "_cores", lambda: 2)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    x, kernel = arrays((16, 32, 32, 3, 3, 3))

    def layers(kernel, x):
        x = convolve(x, kernel, padding=1)
        return convolve(x, kernel[:, :2], padding=1)

    run = jax.jit(layers, in_shardings=(whole, rows), out_shardings=rows)
    text = run.lower(kernel, x).compile().as_text()
    assert text.count(" while(") == 2
    for other in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert other not in text


@pytest.mark.parametrize("case", [CASES[i] for i in (0, 1, 2, 4, 12, 13, 14)])
@pytest.mark.parametrize("tiles", [1, 40, 1000])
def test_kernel_gradient_in_bands_of_rows(case, tiles, monkeypatch):
    # Single rows; a number that does not divide the rows; and all of them.
    with_limits(monkeypatch, _PATCHES=0, _FEATURES=0, _TILES=tiles)
    calls = recorded("_kernel_gradient_by_bands", monkeypatch)
    check_values_and_gradients(case)
    if case[7] == 0:
        test_transposed_is_the_adjoint(case)
    assert calls


@pytest.mark.parametrize("tiled", [(0, 0), (9, 9)])
def test_kernel_gradient_in_bands_leaves_a_sharded_batch_where_it_is(
    tiled, monkeypatch
):
    with_limits(monkeypatch, _FEATURES=0, _TILED_FEATURES=tiled)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    x, kernel = arrays((16, 32, 32, 3, 4, 3))

    def loss(kernel, x):
        return jnp.sum(jnp.sin(convolve(x, kernel, padding=1)))

    grad = jax.jit(jax.grad(loss), in_shardings=(whole, rows), out_shardings=whole)
    text = grad.lower(kernel, x).compile().as_text()
    assert "all-reduce" in text
    for other in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert other not in text


@pytest.mark.parametrize("case", [CASES[i] for i in (1, 3, 7)])
def test_transposed_is_the_adjoint(case) -> None:
    x, kernel = arrays(case)
    stride, padding = case[6:8]

    @jax.jit
    def compare(x, kernel):
        y = jnp.cos(reference(x, kernel, stride, padding))

        def ours(y, kernel):
            return convolve_transposed(y, kernel, stride=stride, padding=padding)

        def adjoint(y, kernel):
            # PyTorch's sides: those without the remainder of the division by stride.
            sides = [(n - 1) * stride - 2 * padding + case[5] for n in y.shape[1:3]]
            zeros = jnp.zeros((len(y), *sides, kernel.shape[3]))
            forward = partial(reference, stride=stride, padding=padding)
            swapped = kernel.swapaxes(2, 3)
            return jax.vjp(lambda x: forward(x, swapped), zeros)[1](y)[0]

        want, back = jax.vjp(adjoint, y, kernel.swapaxes(2, 3))
        got, ours_back = jax.vjp(ours, y, kernel.swapaxes(2, 3))
        cotangent = jnp.sin(want)
        return (got, *ours_back(cotangent)), (want, *back(cotangent))

    for got, want in zip(*compare(x, kernel), strict=True):
        check(got, want)


def test_transposed_sides_are_those_of_pytorch() -> None:
    for side, size, stride, padding, want in [(1, 4, 1, 0, 4), (4, 4, 2, 1, 8)]:
        kernel = jnp.ones((size, size, 2, 3))
        y = convolve_transposed(
            jnp.ones((1, side, side, 2)), kernel, stride=stride, padding=padding
        )
        assert y.shape == (1, want, want, 3)


@pytest.mark.parametrize(("size", "side"), [(3, 7), (3, 24), (5, 9)])
def test_convolution_of_doubled_pixels(size, side) -> None:
    x, kernel = arrays((2, side, side - 1, 3, 4, size))
    padding = size // 2

    @jax.jit
    def compare(x, kernel):
        def plain(x, kernel):
            doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            return reference(doubled, kernel, 1, padding)

        want, back = jax.vjp(plain, x, kernel)
        got, ours_back = jax.vjp(
            partial(convolve_upsampled, padding=padding), x, kernel
        )
        cotangent = jnp.sin(want)
        return (got, *ours_back(cotangent)), (want, *back(cotangent))

    for got, want in zip(*compare(x, kernel), strict=True):
        check(got, want)


@pytest.mark.parametrize("side", [8, 32])
def test_a_partial_convolution_doubles_pixels_itself(side) -> None:
    # On both sides of the number of pixels from which it need not make them.
    rng = np.random.default_rng(side)
    inputs = [
        jnp.asarray(rng.standard_normal((1, n, n, 3), dtype=np.float32))
        for n in (side // 2, side)
    ]
    known = [(x[..., :1] > 0).astype(jnp.float32) for x in inputs]
    layer = partial(PartialConv, 4, 3, padding=1)
    variables = layer().init(jax.random.key(0), inputs[1:] * 2)
    got, mask = layer(upsample=True).apply(variables, inputs, known)
    big = (
        [convolution.doubled(inputs[0]), inputs[1]],
        [convolution.doubled(known[0]), known[1]],
    )
    want, want_mask = layer().apply(variables, *big)
    check(got, want)
    np.testing.assert_array_equal(mask, want_mask)


@pytest.mark.parametrize("case", [CASES[1], CASES[7]])
def test_bfloat16_is_the_rounded_result(case) -> None:
    x, kernel = (in_bfloat16(a) for a in arrays(case))
    stride, padding = case[6:8]
    ours = partial(convolve, stride=stride, padding=padding)
    y, back = jax.vjp(ours, x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    want, want_back = jax.vjp(lambda x, w: reference(x, w, stride, padding), x, kernel)
    cotangent = in_bfloat16(jnp.cos(want))
    grads, want_grads = back(cotangent.astype(jnp.bfloat16)), want_back(cotangent)
    for a, b in zip((y, *grads), (want, *want_grads), strict=True):
        assert a.dtype == jnp.bfloat16
        check(a, b, 2**-8)


@pytest.mark.parametrize("case", [CASES[1], CASES[7]])
def test_gradients_of_gradients(case) -> None:
    # Gradient penalties need them.
    x, kernel = arrays(case)
    stride, padding = case[6:8]

    def penalty(convolution):
        def norm(x, kernel):
            grad = jax.grad(lambda x: jnp.sum(jnp.sin(convolution(x, kernel))))(x)
            return jnp.sum(jnp.square(grad))

        return jax.grad(norm, argnums=(0, 1))

    got = jax.jit(penalty(partial(convolve, stride=stride, padding=padding)))(x, kernel)
    want = jax.jit(penalty(lambda x, w: reference(x, w, stride, padding)))(x, kernel)
    for a, b in zip(got, want, strict=True):
        check(a, b, 1e-5)


@pytest.mark.parametrize("case", [CASES[1], CASES[7]])
def test_vmap_and_remat(case) -> None:
    x, kernel = arrays(case)
    stride, padding = case[6:8]
    ours = jax.checkpoint(partial(convolve, stride=stride, padding=padding))
    kernels = jnp.stack([kernel, -2 * kernel])

    @jax.jit
    def compare(x, kernels):
        grad = jax.grad(lambda w, x: jnp.sum(jnp.sin(ours(x, w))))
        batched = jax.vmap(grad, (0, None))(kernels, x)
        return batched, jnp.stack([grad(w, x) for w in kernels])

    check(*compare(x, kernels))


@pytest.mark.parametrize("side", [4, 32])
def test_sharded_batch_stays_where_it_is(side) -> None:
    # The gradient's sum over devices is the only communication there may be.
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    x, kernel = arrays((16, side, side, 3, 4, 4))

    def loss(kernel, x):
        y = jnp.sin(convolve(x, kernel, stride=2, padding=1))
        y = jnp.sin(convolve_transposed(y, kernel.swapaxes(2, 3), stride=2, padding=1))
        return jnp.sum(jnp.square(convolve_upsampled(y, kernel[:3, :3], padding=1)))

    grad = jax.jit(jax.grad(loss), in_shardings=(whole, rows), out_shardings=whole)
    compiled = grad.lower(kernel, x).compile()
    text = compiled.as_text()
    assert "all-reduce" in text
    for other in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert other not in text
    alone = jax.jit(jax.grad(loss))(kernel, x)
    check(compiled(jax.device_put(kernel, whole), jax.device_put(x, rows)), alone)


@pytest.mark.parametrize(
    ("platform", "case", "native"),
    [("cpu", 1, 0), ("cpu", 7, 2), ("cuda", 1, 3), ("cuda", 7, 3)],
)
def test_only_a_cpu_departs_from_the_compilers_convolution(
    platform, case, native
) -> None:
    # Of output and both gradients; the phases of a stride are convolutions too.
    x, kernel = arrays(CASES[case])
    ours = partial(convolve, stride=2, padding=1)

    def program(x, kernel):
        y, back = jax.vjp(ours, x, kernel)
        return y, back(y)

    lowered = jax.jit(program).trace(x, kernel).lower(lowering_platforms=(platform,))
    found = lowered.as_text().count("stablehlo.convolution")
    phases = 4 if platform == "cpu" and native else 0
    assert found == native + phases


@pytest.mark.parametrize(
    ("side", "size", "native"), [(64, 1, 0), (64, 3, 0), (48, 3, 1)]
)
def test_which_convolutions_are_left_to_the_compiler_on_a_cpu(side, size, native):
    x, kernel = arrays((1, side, side, 64, 64, size))
    run = jax.jit(partial(convolve, padding=size // 2))
    lowered = run.trace(x, kernel).lower(lowering_platforms=("cpu",))
    assert lowered.as_text().count("stablehlo.convolution") == native


@pytest.mark.parametrize("case", [6, 7, 13])
def test_in_branches_axes_stand_as_the_compiler_wants_them_on_a_cpu(case) -> None:
    # It puts them right outside of branches and loops only, and is slow otherwise.
    x, kernel = arrays(CASES[case])
    stride, padding, dilation = CASES[case][6:]
    ours = partial(convolve, stride=stride, padding=padding, dilation=dilation)

    def gradients(x, kernel):
        y, back = jax.vjp(ours, x, kernel)
        one, other = back(jnp.sin(y))
        y, back = jax.vjp(
            partial(convolve_transposed, stride=stride), y, other.swapaxes(2, 3)
        )
        return one, back(jnp.sin(y))[1]

    def program(number, x, kernel):
        shapes = jax.eval_shape(gradients, x, kernel)
        rest = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        branches = (gradients, lambda x, kernel: rest)
        return lax.switch(number, branches, x, kernel)

    text = jax.jit(program).lower(0, x, kernel).compile().as_text()
    orders = re.findall(r"dim_labels=([^, ]+)", text)
    assert len(orders) >= 3
    assert set(orders) == {"b01f_01io->b01f"}


def test_layers_add_the_bias_and_keep_the_dtype() -> None:
    x, kernel = arrays(CASES[0])
    bias = jnp.arange(4, dtype=jnp.float32)
    for layer in (
        convolution.Conv(4, 3, padding=1),
        convolution.ConvTranspose(4, 3, padding=1),
        convolution.Conv(4, 3, padding=1, dtype=jnp.bfloat16),
    ):
        params = {"params": {"kernel": kernel, "bias": bias}}
        zero = {"params": {"kernel": kernel, "bias": 0 * bias}}
        y = layer.apply(params, x)
        assert y.dtype == layer.dtype
        check(y - layer.apply(zero, x), jnp.broadcast_to(bias, y.shape), 0.02)
