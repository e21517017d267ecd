"""Samplers with a perfect denoiser: their results have the law of the posterior."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint.diffusion import gaussian, process, resampling, sampler, solvers
from jaxpaint.diffusion.ddnm import ddnm
from jaxpaint.diffusion.lanpaint import lanpaint
from jaxpaint.diffusion.mmps import _solved, mmps
from jaxpaint.diffusion.pigdm import pigdm
from jaxpaint.diffusion.repaint import repaint, repaint_pasted_after
from jaxpaint.diffusion.resampling import Resampling
from jaxpaint.methods import repaint as method

LENGTH = 16
COUNT = 2000


def pairs(levels, jump=1, repeats=1, moves=resampling.folded):
    return moves(resampling.levels(levels, Resampling(jump, repeats)))


# Sampler, and what its results may be away from the posterior: squared Frechet distance
# as a share of the variance, and the ratio of standard deviations.
SAMPLERS = {
    "repaint": (50, lambda p: repaint(p, pairs(50, 5, 10)), 0.05, 0.12),
    "repaint stepwise": (
        50,
        lambda p: repaint(p, pairs(50, 5, 10, resampling.stepwise)),
        0.05,
        0.12,
    ),
    "repaint with DDIM": (
        50,
        lambda p: repaint(p, pairs(50, 5, 10), solvers.ddim(1.0)),
        0.05,
        0.12,
    ),
    "repaint, pasted after": (
        50,
        lambda p: repaint_pasted_after(p, pairs(50, 5, 10)),
        0.05,
        0.12,
    ),
    "ddnm": (100, lambda p: ddnm(p, pairs(100, 10, 3)), 0.08, 0.2),
    "pigdm": (100, lambda p: pigdm(p, pairs(100)), 0.08, 0.2),
    "lanpaint": (50, lambda p: lanpaint(p, 5), 0.05, 0.12),
    "lanpaint, 120 calls": ("quad20", lambda p: lanpaint(p, 5), 0.01, 0.06),
    "mmps": ("quad50", lambda p: mmps(p, pairs(50), 4), 0.02, 0.12),
}


def samples(prior, known, values, levels, make, seed=0):
    """Returns results `[COUNT, unknown]` in float64."""
    spaced = process.make("linear", 1000, str(levels))
    chosen = make(spaced)
    image = np.zeros(LENGTH, np.float32)
    image[known] = values
    image = np.broadcast_to(image[None, None, :, None], (COUNT, 1, LENGTH, 1))
    mask = np.broadcast_to(
        np.float32(~known)[None, None, :, None], (COUNT, 1, LENGTH, 1)
    )
    told = sampler.Known(jnp.asarray(image), jnp.asarray(mask))
    denoise = gaussian.denoiser(prior, spaced)
    result = jax.jit(lambda key: sampler.run(chosen, denoise, told, key))(
        jax.random.key(seed)
    )
    return np.asarray(result, np.float64)[:, 0, :, 0][:, ~known]


@pytest.mark.parametrize("name", SAMPLERS)
def test_results_have_the_mean_and_covariance_of_the_posterior(name):
    levels, make, distance, spread = SAMPLERS[name]
    prior = gaussian.smooth(LENGTH, reach=6.0)
    known = np.arange(LENGTH) % 8 < 4
    values = gaussian.draw(prior, 1, np.random.default_rng(3))[0][known]
    posterior = gaussian.conditional(prior, known, values)
    found = samples(prior, known, values, levels, make)
    assert gaussian.frechet(found, posterior) < distance
    _, covariance = gaussian.moments(posterior)
    ratio = np.sqrt(np.trace(np.cov(found.T)) / np.trace(covariance))
    assert abs(ratio - 1) < spread


def test_plain_replacement_is_far_from_it():
    # The measure tells a sampler that resamples from one that does not.
    prior = gaussian.smooth(LENGTH, reach=6.0)
    known = np.arange(LENGTH) % 8 < 4
    values = gaussian.draw(prior, 1, np.random.default_rng(3))[0][known]
    posterior = gaussian.conditional(prior, known, values)

    def distance(repeats):
        found = samples(
            prior, known, values, 50, lambda p: repaint(p, pairs(50, 5, repeats))
        )
        return gaussian.frechet(found, posterior)

    assert distance(1) > 3 * distance(10)


def test_a_folded_climb_has_the_law_of_its_steps():
    spaced = process.make("linear", 1000, "50")
    visited = resampling.levels(50, Resampling(7, 2))
    folded = sampler.moves_of(spaced, resampling.folded(visited))
    steps = sampler.moves_of(spaced, resampling.stepwise(visited))
    keep, variance, climbs = 1.0, 0.0, []
    for kind, a, b in zip(*(steps[n] for n in ("kind", "keep", "add")), strict=True):
        if kind == sampler.UP:
            keep, variance = keep * a, variance * a**2 + b**2
        elif variance:
            climbs.append((keep, np.sqrt(variance)))
            keep, variance = 1.0, 0.0
    up = folded["kind"] == sampler.UP
    got = np.stack([folded["keep"][up], folded["add"][up]], axis=1)
    assert len(climbs) > 3
    np.testing.assert_allclose(got, climbs, rtol=1e-5)


def test_parts_give_what_one_scan_gives():
    prior = gaussian.two_waves(LENGTH)
    spaced = process.make("cosine", 1000, "20")
    chosen = ddnm(spaced, pairs(20, 4, 2))
    denoise = gaussian.denoiser(prior, spaced)
    told = sampler.Known(jnp.zeros((3, 1, LENGTH, 1)), jnp.ones((3, 1, LENGTH, 1)))
    key = jax.random.key(1)
    whole = sampler.run(chosen, denoise, told, key)
    state = sampler.first(key, told.image.shape)
    noise = sampler.noise_of_key(key, told.image.shape)
    parts = sampler.parts(chosen.moves, 7)
    assert len({len(part["kind"]) for part in parts}) == 1
    for part in parts:
        state = sampler.part(chosen, denoise, told, state, part, noise)
    np.testing.assert_allclose(state.x, whole, atol=1e-6)


def test_the_network_is_traced_once():
    traced = []
    spaced = process.make("linear", 1000, "20")
    inner = gaussian.denoiser(gaussian.smooth(LENGTH), spaced)

    def denoise(x, level):
        traced.append(level)
        return inner(x, level)

    told = sampler.Known(jnp.zeros((1, 1, LENGTH, 1)), jnp.ones((1, 1, LENGTH, 1)))
    for chosen in (
        repaint(spaced, pairs(20, 4, 3)),
        lanpaint(spaced, 3),
        mmps(spaced, pairs(20), 3),
    ):
        traced.clear()
        run = functools.partial(sampler.run, chosen, denoise, told)
        jax.jit(run).trace(jax.random.key(0))
        assert len(traced) == 1


def test_mmps_steps_along_the_mean_given_the_known_pixels():
    # From the cleanest level a step leads to that mean itself.
    spaced = process.Process(np.array([0.7, 0.5]), np.array([0, 1]))
    prior = gaussian.smooth(LENGTH, reach=6.0)
    known = np.arange(LENGTH) % 8 < 4
    generator = np.random.default_rng(2)
    clean = gaussian.draw(prior, 3, generator)
    x = np.sqrt(0.3) * clean + np.sqrt(0.7) * generator.standard_normal(clean.shape)
    # Known pixels are seen without noise, and all of them through that of the level.
    seen = np.eye(LENGTH)[known]
    both = np.concatenate([seen, np.sqrt(0.3) * np.eye(LENGTH)])
    noise = np.diag([1e-4] * known.sum() + [0.7] * LENGTH)
    covariance = prior.covariances[0]
    gain = covariance @ both.T @ np.linalg.inv(both @ covariance @ both.T + noise)
    want = np.concatenate([clean[:, known], x], axis=1) @ gain.T

    def images(signals):
        return jnp.asarray(signals, jnp.float32)[:, None, :, None]

    told = sampler.Known(images(clean), images(np.tile(~known, (3, 1))))
    denoise = gaussian.denoiser(prior, spaced)
    state = sampler.State(images(x), images(np.zeros_like(x)))

    def mean(inner, told=told, state=state):
        chosen = mmps(spaced, pairs(2), inner)
        last = {k: v[1:] for k, v in sampler.numbered(chosen.moves).items()}
        noise = sampler.noise_of_key(jax.random.key(0), state.x.shape)
        result = sampler.part(chosen, denoise, told, state, last, noise)
        return np.asarray(result.x)[:, 0, :, 0]

    got = mean(8)
    np.testing.assert_allclose(got, want, atol=2e-3)
    assert np.abs(mean(1) - want).max() > 0.02
    alone = sampler.Known(*(a[1:2] for a in told))
    one = sampler.State(state.x[1:2], state.memory[1:2])
    np.testing.assert_allclose(mean(2, alone, one), mean(2)[1:2], atol=1e-5)


def test_few_levels_of_a_linear_schedule_lie_closer_to_the_clean_image():
    def timesteps(sampling, schedule):
        preset = method.Preset(5)
        spaced, _ = method._sampler(
            sampling, preset, schedule, 1000, start=None, eta=None, clip=True
        )
        return spaced.timesteps.tolist()

    even, quadratic = [0, 250, 500, 749, 999], [0, 62, 249, 561, 999]
    for sampling in ("lanpaint", "pigdm", "mmps"):
        assert timesteps(sampling, "linear") == quadratic
        assert timesteps(sampling, "cosine") == even
    for sampling in ("repaint", "ddnm"):
        assert timesteps(sampling, "linear") == even


def test_mmps_rests_where_the_matrix_bends_downwards():
    right = jnp.asarray([1.0, -2.0])[None, None, :, None]
    found = _solved(lambda x: -x, lambda x: x, right, jnp.float32(0), 3)
    assert not np.any(found)
    # Otherwise two steps are enough for two numbers.
    scale = jnp.asarray([2.0, 0.5])[None, None, :, None]
    found = _solved(lambda x: scale * x, lambda x: x, right, jnp.float32(0), 4)
    np.testing.assert_allclose(found, right, rtol=1e-5)


def test_the_posterior_of_a_gaussian_is_that_of_its_samples():
    # Against samples of the joint law, of which those near the known value are kept.
    prior = gaussian.two_waves(4)
    generator = np.random.default_rng(0)
    drawn = gaussian.draw(prior, 400_000, generator)
    known = np.array([False, True, False, False])
    near = drawn[np.abs(drawn[:, 1] - 0.4) < 0.02]
    mean, covariance = gaussian.moments(
        gaussian.conditional(prior, known, np.array([0.4]))
    )
    np.testing.assert_allclose(near[:, ~known].mean(axis=0), mean, atol=0.01)
    np.testing.assert_allclose(np.cov(near[:, ~known].T), covariance, atol=0.005)


def test_the_denoiser_is_the_mean_of_what_is_clean():
    prior = gaussian.two_waves(4)
    spaced = process.make("linear", 1000, "50")
    generator = np.random.default_rng(1)
    clean = gaussian.draw(prior, 500_000, generator)
    level = 20
    x = np.sqrt(spaced.abar[level]) * clean
    x = x + np.sqrt(1 - spaced.abar[level]) * generator.standard_normal(x.shape)
    place = np.array([0.2, 0.3, -0.1, 0.0])
    weight = np.exp(-0.5 * np.sum((x - place) ** 2, axis=1) / 0.15**2)
    want = weight @ clean / weight.sum()
    got = gaussian.denoiser(prior, spaced)(
        jnp.asarray(place, jnp.float32)[None, None, :, None], jnp.int32(level)
    )
    np.testing.assert_allclose(got.clean[0, 0, :, 0], want, atol=0.03)


def test_memory_does_not_grow_with_the_number_of_steps():
    def temporary(levels):
        spaced = process.make("linear", 1000, str(levels))
        steps = repaint(spaced, pairs(levels, 5, 3))
        told = sampler.Known(jnp.zeros((64, 1, 16, 1)), jnp.ones((64, 1, 16, 1)))
        denoise = gaussian.denoiser(gaussian.smooth(16), spaced)
        run = functools.partial(sampler.run, steps, denoise, told)
        compiled = jax.jit(run).lower(jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = temporary(10), temporary(100)
    assert few > 0
    assert many <= few + 4096


def test_the_first_move_that_is_not_finite_is_named():
    spaced = process.make("linear", 1000, "20")
    inner = gaussian.denoiser(gaussian.smooth(LENGTH), spaced)

    def denoise(x, level):
        found = inner(x, level)
        return found._replace(clean=jnp.where(level == 13, jnp.nan, found.clean))

    told = sampler.Known(jnp.zeros((1, 1, LENGTH, 1)), jnp.ones((1, 1, LENGTH, 1)))
    key = jax.random.key(0)
    steps = repaint(spaced, pairs(20))
    noise = sampler.noise_of_key(key, told.image.shape)
    state = sampler.first(key, told.image.shape)
    moves = sampler.numbered(steps.moves)
    assert sampler.part(steps, denoise, told, state, moves, noise).bad == 19 - 13
    assert sampler.part(steps, inner, told, state, moves, noise).bad == -1
