"""Properties of the harmonic, biharmonic, total variation and Bertalmio fills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import spsolve

from jaxpaint import multigrid
from jaxpaint.methods import bertalmio, biharmonic, total_variation
from jaxpaint.poisson import harmonic_fill, planes

HEIGHT, WIDTH = 85, 102


def holes():
    """Masks that touch borders and corners, thin and wide, `[3, H, W, 1]`."""
    mask = np.zeros((3, HEIGHT, WIDTH, 1), np.float32)
    mask[0, 9:69, 12:90] = 1
    mask[1, 20:22] = 1
    mask[1, :, 30] = 1
    mask[2, :7, :9] = 1
    mask[2, 15:20, 15:20] = 1
    mask[2, 30, 45] = 1
    return jnp.asarray(mask)


def noise(seed=0):
    return jax.random.uniform(
        jax.random.key(seed), (3, HEIGHT, WIDTH, 3), minval=-1, maxval=1
    )


def neumann_laplacian(height, width):
    """The sparse 5-point Laplacian, outside neighbours dropped."""

    def one(n):
        d = np.full(n, -2.0)
        d[[0, -1]] = -1
        return sparse.diags_array(
            [np.ones(n - 1), d, np.ones(n - 1)], offsets=[-1, 0, 1]
        )

    return sparse.csr_array(
        sparse.kron(sparse.eye_array(height), one(width))
        + sparse.kron(one(height), sparse.eye_array(width))
    )


def direct_solution(operator, image, mask):
    """Solves operator u = 0 in the hole by sparse LU, one image."""
    hole = np.asarray(mask)[..., 0].ravel() > 0
    flat = np.asarray(image, np.float64).reshape(hole.size, -1)
    right_side = -(operator[hole][:, ~hole] @ flat[~hole])
    out = flat.copy()
    out[hole] = spsolve(operator[hole][:, hole].tocsc(), right_side)
    return out.reshape(image.shape)


def test_laplacian_equals_the_sparse_matrix():
    image = noise()
    expected = neumann_laplacian(HEIGHT, WIDTH) @ np.asarray(image).reshape(3, -1, 3)[0]
    actual = multigrid.laplacian(planes(image))[0]
    np.testing.assert_allclose(
        np.moveaxis(np.asarray(actual), 0, -1).reshape(-1, 3), expected, atol=1e-5
    )


def test_v_cycle_is_symmetric_and_contracts():
    hole = planes(holes())
    ones = jnp.ones_like(hole)
    levels = multigrid.hierarchy(multigrid.grid(hole, ones, ones))
    a, b = (hole * planes(noise(s)) for s in (1, 2))
    precondition = jax.jit(lambda x: multigrid.v_cycle(levels, x))
    np.testing.assert_allclose(
        jnp.sum(a * precondition(b)), jnp.sum(precondition(a) * b), rtol=1e-4
    )
    error = a - precondition(multigrid.apply(levels[0], a))
    assert float(jnp.linalg.norm(error)) < 0.5 * float(jnp.linalg.norm(a))


def test_harmonic_equals_the_direct_solution():
    image, mask = noise(), holes()
    actual = harmonic_fill(image, mask, tolerance=1e-6)
    for i in range(3):
        expected = direct_solution(neumann_laplacian(HEIGHT, WIDTH), image[i], mask[i])
        np.testing.assert_allclose(np.asarray(actual[i]), expected, atol=1e-4)


def test_harmonic_needs_few_iterations_whatever_the_width():
    box = jnp.zeros((3, 200, 200, 1)).at[0, 20:28, 20:28].set(1)
    mask = box.at[1, 20:60, 20:60].set(1).at[2, 20:180, 20:180].set(1)
    image = jax.random.uniform(jax.random.key(0), (3, 200, 200, 1))
    few, many = (harmonic_fill(image, mask, iterations=n) for n in (8, 100))
    assert float(jnp.max(jnp.abs(few - many))) < 1e-3


def test_harmonic_stays_within_the_range_of_the_known_pixels():
    image = 0.25 * noise()
    filled = harmonic_fill(image, holes())
    assert float(jnp.max(jnp.abs(filled))) <= 0.25 + 1e-5


@pytest.mark.parametrize("wide", [0, 100], ids=["multigrid", "list"])
def test_biharmonic_equals_the_direct_solution(wide):
    image, mask = 0.1 * noise(), holes()
    # Two known pixels at the ends of the range, so that clipping changes nothing.
    image = image.at[:, -1, 0].set(1).at[:, -1, -1].set(-1)
    actual = biharmonic.biharmonic_fill(image, mask, tolerance=1e-6, wide=wide)
    laplacian = neumann_laplacian(HEIGHT, WIDTH)
    for i in range(3):
        expected = direct_solution(laplacian @ laplacian, image[i], mask[i])
        np.testing.assert_allclose(
            np.asarray(actual[i]), np.clip(expected, -1, 1), atol=2e-3
        )


def test_biharmonic_reproduces_a_quadratic():
    y, x = np.mgrid[:40, :40] / 40.0
    image = jnp.asarray((x**2 - 0.5 * y**2 + x * y)[None, ..., None], jnp.float32)
    mask = jnp.zeros((1, 40, 40, 1)).at[:, 10:16, 8:30].set(1)
    filled = biharmonic.biharmonic_fill(image, mask, tolerance=1e-6)
    np.testing.assert_allclose(np.asarray(filled), np.asarray(image), atol=1e-3)


def test_biharmonic_is_clipped_to_the_known_range():
    image, mask = noise(), holes()
    image = jnp.where(mask > 0, 5, image)
    filled = biharmonic.biharmonic_fill(image, mask)
    known = jnp.where(mask > 0, 0, image)
    assert float(jnp.max(filled)) <= float(jnp.max(known))
    assert float(jnp.min(filled)) >= float(jnp.min(known))


def test_total_variation_keeps_a_step_across_a_scratch():
    image = jnp.full((1, 32, 32, 3), -0.5).at[:, :, 16:].set(0.5)
    mask = jnp.zeros((1, 32, 32, 1)).at[:, 14:19].set(1)
    error, smeared = (
        float(jnp.sum(jnp.abs(filled - image)))
        for filled in (
            total_variation.total_variation_fill(image, mask),
            harmonic_fill(image, mask),
        )
    )
    assert error < 0.25 * smeared


def test_bertalmio_continues_a_diagonal_edge_no_worse_than_harmonic():
    y, x = np.mgrid[:40, :40]
    image = np.where(x + y > 40, 0.5, -0.5)[None, ..., None].astype(np.float32)
    mask = jnp.zeros((1, 40, 40, 1)).at[:, 18:23].set(1)
    image = jnp.asarray(image)
    filled = bertalmio.bertalmio_fill(image, mask, steps=300)
    assert float(jnp.mean(jnp.abs(filled - image))) < 0.9 * float(
        jnp.mean(jnp.abs(harmonic_fill(image, mask) - image))
    )


def test_bertalmio_stays_finite_for_three_thousand_steps():
    filled = bertalmio.bertalmio_fill(noise(), holes(), steps=3000, stop=0.0)
    assert np.isfinite(np.asarray(filled)).all()


def test_bertalmio_in_luma_and_chroma_keeps_grey_grey():
    image = jnp.repeat(noise()[..., :1], 3, axis=-1)
    filled = bertalmio.bertalmio_fill(image, holes(), steps=30, luma_chroma=True)
    np.testing.assert_allclose(
        np.asarray(filled[..., 0]), np.asarray(filled[..., 2]), atol=1e-5
    )


@pytest.fixture(
    scope="module", params=["astronaut_scratch", "china_box", "coffee_text"]
)
def linear_case(request, fixtures):
    case = np.load(fixtures / "classical_linear" / f"{request.param}.npz")
    source = np.load(fixtures / "classical_cv" / f"{request.param}.npz")
    image = jnp.asarray(source["image"], jnp.float32)[None] / 127.5 - 1
    mask = jnp.asarray(source["mask"], jnp.float32)[None, ..., None]
    return case, image, mask, request.param


def unit(image):
    """[-1, 1] to the [0, 1] of the recorded numbers."""
    return (np.asarray(image[0]) + 1) / 2


@pytest.mark.parity
def test_harmonic_parity(linear_case):
    case, image, mask, _ = linear_case
    actual = harmonic_fill(image, mask)
    np.testing.assert_allclose(unit(actual), case["harmonic"], atol=1e-3)


@pytest.mark.parity
def test_biharmonic_parity_with_scikit_image(linear_case, fixtures):
    _, image, mask, name = linear_case
    expected = np.load(fixtures / "classical_biharmonic" / f"{name}.npz")["biharmonic"]
    actual = biharmonic.biharmonic_fill(image, mask, tolerance=1e-6)
    np.testing.assert_allclose(unit(actual), expected, atol=2e-3)


@pytest.mark.parity
def test_total_variation_parity(linear_case):
    case, image, mask, _ = linear_case
    actual = total_variation.total_variation_fill(image, mask, rounds=30)
    # The minimum is flat: stopping rules move single pixels, hardly the mean.
    difference = np.abs(unit(actual) - case["tv_irls"])
    assert difference.max() < 0.02
    assert difference[np.asarray(mask[0, ..., 0]) > 0].mean() < 5e-4


@pytest.mark.parity
def test_bertalmio_terms_parity(linear_case):
    case, _, mask, _ = linear_case
    hole = planes(mask)
    start = jnp.moveaxis(jnp.asarray(case["harmonic"]), -1, 0)[None]
    for term, recorded in [
        (bertalmio.transport, "bscb_step_on_harmonic"),
        (bertalmio.curvature_flow, "curvature_flow_on_harmonic"),
    ]:
        actual = jnp.moveaxis((hole * term(start))[0], 0, -1)
        np.testing.assert_allclose(np.asarray(actual), case[recorded], atol=2e-5)


@pytest.mark.parity
def test_bertalmio_parity_after_150_steps(linear_case):
    case, image, mask, _ = linear_case
    actual = bertalmio.bertalmio_fill(image, mask, steps=150, stop=0.0)
    expected = np.clip(case["bscb_150"], 0, 1)
    hole = np.asarray(mask[0, ..., 0]) > 0
    difference = np.abs(unit(actual) - expected)[hole]
    # Recorded without clipping between the rounds, in float64.
    assert difference.mean() < 1e-3
    assert np.quantile(difference, 0.99) < 0.02
