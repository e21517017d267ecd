import fnmatch
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint import losses
from jaxpaint.features import vgg16


def pictures(seed=0, channels=3):
    rng = np.random.default_rng(seed)
    shape = (2, 12, 10, channels)
    return (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))


def box():
    return jnp.zeros((2, 12, 10, 1)).at[:, 4:8, 3:6].set(1)


def test_masked_l1_reads_the_mask_alone_and_divides_by_everything():
    output, truth = pictures()
    mask = box()
    elsewhere = jnp.where(mask > 0, output, 9.0)
    value = losses.masked_l1(output, truth, mask)
    assert value == losses.masked_l1(elsewhere, truth, mask)
    inside = np.abs(np.asarray(output - truth))[:, 4:8, 3:6]
    np.testing.assert_allclose(value, inside.sum() / output.size, rtol=1e-5)


def test_hole_and_valid_add_up_to_the_mean_difference():
    output, truth = pictures()
    parts = [losses.masked_l1(output, truth, m) for m in (box(), 1 - box())]
    np.testing.assert_allclose(sum(parts), jnp.mean(jnp.abs(output - truth)), rtol=1e-6)


def test_gram_does_not_see_where_a_feature_is():
    features, _ = pictures(channels=4)
    moved = jnp.roll(features, (3, 2), axis=(1, 2))
    np.testing.assert_allclose(losses.gram(features), losses.gram(moved), atol=1e-6)
    assert losses.style([features], [moved]) < 1e-6
    assert losses.perceptual([features], [moved]) > 0.1


def test_gram_of_large_features_is_finite_in_16_bit():
    features = jnp.full((1, 32, 32, 8), 300.0, jnp.float16)
    np.testing.assert_allclose(losses.gram(features), 300**2 / 8, rtol=1e-2)


def test_total_variation_counts_pairs_inside_the_region():
    image, _ = pictures()
    region = losses.dilate(box())
    outside = jnp.where(region > 0, image, 7.0)
    value = losses.total_variation(image, region)
    assert value == losses.total_variation(outside, region)
    inside = np.asarray(image)[:, 3:9, 2:7]
    rows, columns = (np.abs(np.diff(inside, axis=axis)).sum() for axis in (1, 2))
    want = rows / (2 * 11 * 10 * 3) + columns / (2 * 12 * 9 * 3)
    np.testing.assert_allclose(value, want, rtol=1e-5)


def test_dilation_reaches_one_pixel_diagonals_included():
    mask = jnp.zeros((1, 5, 5, 1)).at[0, 1, 1].set(1).at[0, 4, 4].set(1)
    grown = np.asarray(losses.dilate(mask))[0, :, :, 0]
    want = np.zeros((5, 5))
    want[:3, :3] = want[3:, 3:] = 1
    np.testing.assert_array_equal(grown, want)


def cases(fixtures):
    """Yields (arrays, expected, tolerance of a name, weights, folder)."""
    folders = sorted(fixtures.glob("pconv_losses*"))
    assert folders
    for folder in folders:
        meta = json.loads((folder / "meta.json").read_text())
        arrays = dict(np.load(folder / "io.npz"))
        yield folder, meta, arrays


def close(meta, name, got, want):
    atol = 0.0
    for pattern, value in meta["tolerance"]["atol_per_array"].items():
        if fnmatch.fnmatch(name, pattern) and not isinstance(value, str):
            atol = value
    rtol = meta["tolerance"]["rtol"]
    got = np.asarray(got)
    np.testing.assert_allclose(got, want.reshape(got.shape), rtol, atol, err_msg=name)


def nhwc(x):
    return jnp.asarray(np.asarray(x, np.float32).transpose(0, 2, 3, 1))


@pytest.mark.parity
def test_terms_equal_those_of_the_references(fixtures):
    for folder, meta, arrays in cases(fixtures):
        params = vgg16.read(folder / "weights.pth")
        weights = meta["config"]["weights"]
        truth, output, known = (nhwc(arrays[n]) for n in ("gt", "output", "mask"))
        hole = 1 - known

        def terms(output, truth=truth, known=known, hole=hole, params=params):
            composite = jnp.where(hole > 0, output, truth)
            want = vgg16.pools(params, truth)
            got = [vgg16.pools(params, x) for x in (output, composite)]
            return {
                "valid": losses.masked_l1(output, truth, known),
                "hole": losses.masked_l1(output, truth, hole),
                "prc": sum(losses.perceptual(x, want) for x in got),
                "style": sum(losses.style(x, want) for x in got),
                # This reference smooths all of the composite; ours the hole.
                "tv": losses.total_variation(composite, jnp.ones_like(hole)),
            }

        def total(output, terms=terms, weights=weights):
            found = terms(output)
            return sum(weights[name] * value for name, value in found.items()), found

        def pieces(output, params=params):
            maps = vgg16.pools(params, output)
            return maps, losses.gram(maps[-1])

        with jax.default_matmul_precision("highest"):
            (value, found), grad = jax.jit(jax.value_and_grad(total, has_aux=True))(
                output
            )
            maps, gram = jax.jit(pieces)(output)
        for name, term in found.items():
            close(meta, f"naoto.{name}", term, arrays[f"naoto.{name}"])
        close(meta, "naoto.total", value, arrays["naoto.total"])
        close(meta, "grad_output", grad, nhwc(arrays["grad_output"]))
        for number, features in enumerate(maps, start=1):
            name = f"feat_output.pool{number}"
            close(meta, name, features, nhwc(arrays[name]))
        close(meta, "gram_output.pool3", gram, arrays["gram_output.pool3"])

        region = losses.dilate(hole)
        np.testing.assert_array_equal(region, nhwc(arrays["paper.P"]))
        composite = jnp.where(hole > 0, output, truth)
        variation = losses.total_variation(composite, region)
        close(meta, "paper.tv_dilated", variation, arrays["paper.tv_dilated"])

        # mmagic divides by the number of masked elements, not by that of all.
        for name, mask in (("hole", hole), ("valid", known)):
            mean = losses.masked_l1(output, truth, mask) / jnp.mean(mask)
            close(meta, f"mmagic.{name}", mean, arrays[f"mmagic.{name}"])
