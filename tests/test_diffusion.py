"""Processes, schedules, steps and losses of diffusion models."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint import safetensors, torch_file
from jaxpaint.convert import repaint as converter
from jaxpaint.diffusion import (
    denoiser,
    importance,
    losses,
    process,
    resampling,
    sampler,
    solvers,
)
from jaxpaint.diffusion.repaint import repaint, repaint_pasted_after
from jaxpaint.diffusion.resampling import Resampling
from jaxpaint.errors import InputError

PRECISE = functools.partial(jax.default_matmul_precision, "highest")


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, -3, -1), jnp.float32)


def cases(fixtures, pattern):
    found = sorted(fixtures.glob(pattern))
    assert found
    for folder in found:
        yield (
            folder,
            json.loads((folder / "meta.json").read_text()),
            np.load(folder / "io.npz"),
        )


def close(got, want, tolerance):
    np.testing.assert_allclose(
        np.moveaxis(np.asarray(got), -1, -3),
        want,
        atol=tolerance["atol"],
        rtol=tolerance["rtol"],
    )


def trained(folder, meta):
    """Returns the network's `(params, images, timesteps) -> output`, and params."""
    path = folder / meta["weights_from"]
    if path.suffix == ".safetensors":
        arrays, config = safetensors.read(path)[0], path.parent / "config.json"
        converted = converter.convert(arrays, json.loads(config.read_text()))
    else:
        constructor = json.loads((path.parent / "meta.json").read_text())["constructor"]
        arrays = {k: np.float32(v) for k, v in torch_file.load(path).items()}
        converted = converter.convert(arrays)
        heads = constructor["num_head_channels"]
        converted.options["head_channels"] = max(heads, 0)
    unet = converter.unet(converted.options)
    return unet.apply, jax.tree.map(jnp.asarray, converted.params)


@pytest.mark.parity
def test_tables_equal_the_reference(fixtures):
    names = {
        "timestep_map": "timesteps",
        "betas": "betas",
        "alphas_cumprod": "abar",
        "alphas_cumprod_prev": "abar_before",
        "posterior_variance": "posterior_variance",
        "posterior_log_variance_clipped": "posterior_log_variance",
        "posterior_mean_coef1": "posterior_clean",
        "posterior_mean_coef2": "posterior_noisy",
    }
    compared = 0
    for _, meta, arrays in cases(fixtures, "repaint_tables*"):
        for case in meta["cases"]:
            made = process.make(case["schedule"], case["steps"], case["respacing"])
            assert len(made) == case["n"]
            for theirs, ours in names.items():
                if case["tag"] + theirs in arrays:
                    np.testing.assert_allclose(
                        getattr(made, ours),
                        arrays[case["tag"] + theirs],
                        rtol=meta["tolerance"]["rtol"],
                        atol=meta["tolerance"]["atol"],
                    )
                    compared += 1
    assert compared > 30


@pytest.mark.parity
def test_schedules_equal_the_reference(fixtures):
    for folder in fixtures.glob("repaint_schedules*"):
        for case in json.loads((folder / "schedules.json").read_text()):
            args = case["args"]
            inner = [
                (args.get(f"jump{n}_length", 1), args.get(f"jump{n}_n_sample", 1))
                for n in (2, 3)
            ]
            made = Resampling(
                args["jump_length"],
                args["jump_n_sample"],
                tuple(inner),
                args["n_sample"],
                args.get("start_resampling", resampling.NEVER),
            )
            levels = resampling.levels(args["t_T"], made)
            assert levels == case["times"]
            calls = resampling.network_calls(resampling.stepwise(levels))
            assert calls == case["network_evaluations"]
            assert resampling.network_calls(resampling.folded(levels)) == calls


def test_folded_moves_visit_the_same_levels():
    levels = resampling.levels(20, Resampling(4, 3, ((2, 2),)))
    moves = resampling.folded(levels)
    assert (moves[1:, 0] == moves[:-1, 1]).all()
    climbs = moves[:, 1] > moves[:, 0]
    assert not (climbs[1:] & climbs[:-1]).any()
    down = [tuple(m) for m in resampling.stepwise(levels) if m[1] < m[0]]
    assert [tuple(m) for m in moves[~climbs]] == down


def test_quadratic_respacing_is_denser_near_the_clean_image():
    assert process.kept_steps(1000, "quad5") == [0, 62, 249, 561, 999]
    # Where the places would be closer than steps are, each step is kept once.
    kept = process.kept_steps(1000, "quad200")
    assert len(kept) == len(set(kept)) == 200
    assert kept == sorted(kept)
    assert kept[:8] == list(range(8))
    assert kept[-1] == 999
    assert process.kept_steps(30, "quad30") == list(range(30))


@pytest.mark.parametrize(
    "text",
    [
        "ddim999",
        "1001",
        "500,600",
        "many",
        "-3",
        "quad",
        "quad1",
        "quad1001",
        "quad5,5",
        "ddimquad5",
    ],
)
def test_bad_respacings_are_refused(text):
    with pytest.raises(InputError):
        process.kept_steps(1000, text)


def test_moves_must_start_at_the_noisiest_level():
    made = process.make("linear", 100, "20")
    with pytest.raises(InputError, match="respace it to 10"):
        repaint(made, resampling.folded(resampling.levels(10)))


@pytest.mark.parity
def test_steps_equal_the_reference(fixtures):
    for folder, meta, arrays in cases(fixtures, "repaint_steps*"):
        network, params = trained(folder, meta)
        made = process.make(
            meta["betas"], meta["diffusion_steps"], meta["timestep_respacing"]
        )
        known = sampler.Known(
            nhwc(arrays["gt"]), 1 - nhwc(arrays["gt_keep_mask"])[..., :1]
        )

        def denoise(clip, network=network, params=params, made=made):
            bound = functools.partial(network, params)
            return denoiser.of_network(bound, made, clip=clip)

        @jax.jit
        def predict(x, t, denoise=denoise):
            return [denoise(clip)(x, t) for clip in (False, True)]

        @jax.jit
        def merge(x, t, z, eps, made=made, known=known, denoise=denoise):
            moves = {"level": t, "paste": True}
            down = repaint(made, np.array([[len(made) - 1, len(made) - 2]])).down
            state = sampler.State(x, x)
            return down(denoise(True), known, state, moves, (z, eps).__getitem__).x

        with PRECISE():
            for t in arrays["t"]:
                case = {
                    k.removeprefix(f"t{t}."): v
                    for k, v in arrays.items()
                    if k.startswith(f"t{t}.")
                }
                level = jnp.int32(t)
                x = process.diffuse(made, known.image, level, nhwc(case["q_noise"]))
                close(x, case["x_t"], meta["tolerance"])
                for clip, prediction in enumerate(predict(x, level)):
                    close(
                        prediction.clean,
                        case[f"clip{clip}.pred_xstart"],
                        meta["tolerance"],
                    )
                    close(
                        prediction.log_variance,
                        case[f"clip{clip}.log_variance"],
                        meta["tolerance"],
                    )
                first = solvers.ancestral(
                    made, x, level, predict(x, level)[1], nhwc(case["first.noise"])
                )
                close(first, case["first.sample"], meta["tolerance"])
                noise = nhwc(case["merge.noise"]), nhwc(case["merge.gt_noise"])
                close(merge(x, level, *noise), case["merge.sample"], meta["tolerance"])
                if "undo.noise" in case and t + 1 < len(made):
                    pair = np.array([[len(made) - 1, t], [t, t + 1]])
                    moves = sampler.moves_of(made, pair)
                    climbed = sampler.climb(
                        sampler.State(x, x),
                        {name: value[1] for name, value in moves.items()},
                        lambda _, case=case: nhwc(case["undo.noise"]),
                    )
                    close(climbed.x, case["undo.out"], meta["tolerance"])


def recorded(*draws):
    """Returns noise by move: draw i of move n is `draws[i][n]`."""
    return lambda number: lambda draw: jnp.asarray(draws[draw])[number]


@functools.partial(jax.jit, static_argnames=("steps", "made", "network", "variance"))
def loop(params, x, known, draws, *, steps, made, network, variance=None):
    """Returns what the sampler in `steps()` makes of `x`."""
    bound = functools.partial(network, params)
    denoise = denoiser.of_network(bound, made, variance=variance)
    state, key = sampler.State(x, x), jax.random.key(0)
    noise = recorded(*draws)
    return sampler.run(steps(), denoise, known, key, state=state, noise=noise)


@pytest.mark.parity
def test_a_whole_loop_equals_the_reference(fixtures):
    for folder, meta, arrays in cases(fixtures, "repaint_loop*"):
        network, params = trained(folder, meta)
        made = process.make(meta["betas"], 1000, meta["timestep_respacing"])
        asked = meta["schedule_jump_params"]
        levels = resampling.levels(
            asked["t_T"], Resampling(asked["jump_length"], asked["jump_n_sample"])
        )
        np.testing.assert_array_equal(levels, arrays["times"])
        steps = repaint(made, resampling.stepwise(levels))
        up = arrays["kind"] == 1
        shape = (len(up), *nhwc(arrays["x_T"]).shape)
        first, second = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        first[up] = nhwc(arrays["noise_undo"])
        first[~up] = nhwc(arrays["noise_z"])
        second[~up] = nhwc(arrays["noise_gt"])
        known = sampler.Known(
            nhwc(arrays["gt"]), 1 - nhwc(arrays["gt_keep_mask"])[..., :1]
        )
        with PRECISE():
            got = loop(
                params,
                nhwc(arrays["x_T"]),
                known,
                (first, second),
                steps=lambda steps=steps: steps,
                made=made,
                network=network,
            )
        close(got, arrays["final"], meta["tolerance"])


@pytest.mark.parity
def test_ddim_equals_the_reference(fixtures):
    for folder, meta, arrays in cases(fixtures, "repaint_ddim*"):
        network, params = trained(folder, meta)
        everything = jnp.ones((*nhwc(arrays["x_T"]).shape[:3], 1))
        known = sampler.Known(jnp.zeros_like(nhwc(arrays["x_T"])), everything)
        for case in meta["cases"]:
            tag = case["tag"]
            made = process.make(case["schedule"], 1000, case["respacing"])
            np.testing.assert_array_equal(made.timesteps, arrays[f"{tag}timestep_map"])
            pairs = resampling.stepwise(resampling.levels(len(made)))
            steps = repaint(made, pairs, solvers.ddim(case["eta"]))
            want = arrays[f"{tag}x"]
            noise = jnp.zeros((len(made), *everything.shape[:3], 3))
            if f"{tag}noise" in arrays:
                noise = nhwc(arrays[f"{tag}noise"])

            with PRECISE():
                got = loop(
                    params,
                    nhwc(arrays["x_T"]),
                    known,
                    (noise, noise),
                    steps=lambda steps=steps: steps,
                    made=made,
                    network=network,
                )
            close(got, want[-1], meta["tolerance"])


@pytest.mark.parity
def test_the_scheduler_of_diffusers_is_reproduced(fixtures):
    for folder, meta, arrays in cases(fixtures, "repaint_diffusers_loop*"):
        network, params = trained(folder, meta)
        known = sampler.Known(nhwc(arrays["gt"]), 1 - nhwc(arrays["mask"]))
        for case in meta["cases"]:
            tag, steps = case["tag"], case["num_inference_steps"]
            total, stride = case["num_train_timesteps"], case["stride"]
            betas = np.linspace(case["beta_start"], case["beta_end"], total)
            kept = np.arange(0, total, stride)
            abar = np.cumprod(1 - betas)[kept]
            made = process.Process(1 - abar / np.append(1.0, abar[:-1]), kept)
            levels = resampling.levels(
                steps, Resampling(case["jump_length"], case["jump_n_sample"])
            )
            # It steps where it arrives, the official code where it leaves.
            pairs = resampling.stepwise([levels[0], *(t - 1 for t in levels[:-1])])
            chosen = repaint_pasted_after(made, pairs, case["eta"])
            # Its climb goes in small steps, whose betas begin one step too early.
            up = pairs[:, 1] > pairs[:, 0]
            noise = np.zeros((len(up), *known.image.shape), np.float32)
            noise[~up] = nhwc(arrays[f"{tag}noise_step"])
            keep, add = np.ones(len(up), np.float32), np.ones(len(up), np.float32)
            for number, inner in zip(
                np.flatnonzero(up), nhwc(arrays[f"{tag}noise_undo"]), strict=True
            ):
                first = (pairs[number, 0] + 1) * stride
                beta = betas[first : first + stride]
                after = np.append(np.cumprod((1 - beta)[::-1])[::-1][1:], 1.0)
                factor = np.sqrt(beta * after)[:, None, None, None, None]
                noise[number] = np.sum(factor * inner, axis=0)
                keep[number] = np.sqrt(np.prod(1 - beta))
            chosen = chosen._replace(moves={**chosen.moves, "keep": keep, "add": add})

            with PRECISE():
                got = loop(
                    params,
                    nhwc(arrays[f"{tag}x_T"]),
                    known,
                    (noise,),
                    steps=lambda chosen=chosen: chosen,
                    made=made,
                    network=network,
                    variance="small",
                )
            close(got, arrays[f"{tag}final"], meta["tolerance"])


@pytest.mark.parity
def test_training_losses_and_gradients_equal_the_reference(fixtures):
    options = {
        "MSE": lambda n: {"simple": 1.0, "bound": 1.0},
        "RESCALED_MSE": lambda n: {"simple": 1.0, "bound": n / 1000},
        "RESCALED_KL": lambda n: {"simple": 0.0, "bound": float(n)},
    }
    targets = {"EPSILON": "noise", "START_X": "clean"}
    for folder, meta, arrays in cases(fixtures, "repaint_train_loss*"):
        network, params = trained(folder, meta)
        clean = nhwc(arrays["x_start"])
        for case in meta["configs"]:
            tag = case["tag"]
            made = process.make(case["schedule"], 1000, case["respacing"])
            level, noise = arrays[f"{tag}t"], nhwc(arrays[f"{tag}noise"])
            x = process.diffuse(made, clean, jnp.asarray(level), noise)

            compute = functools.partial(
                losses.terms,
                made,
                clean=clean,
                x=x,
                level=jnp.asarray(level),
                noise=noise,
                target=targets[case["mean_type"]],
                **options[case["loss_type"]](len(made)),
            )
            timesteps = jnp.asarray(made.timesteps)[level]

            def loss(params, x=x, t=timesteps, network=network, compute=compute):
                found = compute(network(params, x, t))
                return jnp.mean(found["total"]), found

            with PRECISE():
                (_, found), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(
                    params
                )
            names = {"loss": "total", "mse": "simple", "vb": "bound"}
            scale = options[case["loss_type"]](len(made))["bound"]
            tolerance = meta["tolerance"]["terms"]
            for term in case["terms"]:
                got = found[names[term]] * (scale if term == "vb" else 1)
                want = arrays[f"{tag}{term}"]
                np.testing.assert_allclose(got, want, **tolerance)
            want = arrays.get(f"{tag}grad.out.2.weight")
            if want is not None:
                got = grad["params"]["output"]["kernel"].transpose(3, 2, 0, 1)
                error = np.abs(got - want).max() / np.abs(want).max()
                assert error <= meta["tolerance"]["grad"]["max_abs_diff_over_max_abs"]


def test_levels_with_larger_losses_are_drawn_more_often():
    history = importance.empty(4)
    chance = importance.probabilities(history)
    np.testing.assert_allclose(chance, 0.25)
    level = jnp.tile(jnp.arange(4), 10)
    history = importance.remember(history, level, level.astype(jnp.float32))
    chance = importance.probabilities(history)
    np.testing.assert_allclose(chance[1:], np.arange(1, 4) / 6, rtol=2e-3)
    assert 0 < chance[0] < 1e-3
    drawn, weights = importance.draw(history, 4000, jax.random.key(0))
    # The weighted mean over draws is the mean over levels.
    np.testing.assert_allclose(
        jnp.mean(weights * drawn.astype(jnp.float32)), 1.5, rtol=0.05
    )
