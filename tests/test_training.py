"""The training step and loop in one process, on simulated devices."""

import dataclasses
import io
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint import config as configs
from jaxpaint.cli.progress import Progress
from jaxpaint.config import Checkpoint, Compute, Config, Data, Eval, Log, Mesh, Optim
from jaxpaint.data import loader
from jaxpaint.data.synthetic import SyntheticSource
from jaxpaint.errors import InputError
from jaxpaint.optimization import Network
from jaxpaint.training import checkpoints, loop, programs, reports
from jaxpaint.training import mesh as meshes

ONE = jax.devices()[:1]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Equal programs of different tests are compiled once."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    old = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (folder, 0.1), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, old, strict=True):
        jax.config.update(name, value)


TINY = {
    "partial_conv": {"levels": 2, "width": 8, "perceptual": 0.0, "style": 0.0},
    "context_encoder": {
        "image_size": 16,
        "encoder_width": 8,
        "decoder_width": 8,
        "discriminator_width": 8,
        "bottleneck": 32,
        "overlap": 1,
    },
}


def tiny(method="partial_conv", masks=("boxes",), **changes):
    config = Config(
        method=method,
        steps=4,
        options=TINY[method],
        data=Data(
            train="synthetic:40",
            validation="synthetic:9",
            image_size=16,
            batch_size=16,
            masks=masks,
        ),
        eval=Eval(every=2, images=9, batch_size=8, masks=("center",), baselines=()),
        log=Log(every=1, samples_every=4, samples=2),
        checkpoint=Checkpoint(every=2),
    )
    return dataclasses.replace(config, **changes)


def train(config, workdir, devices=ONE, **options):
    stream = io.StringIO()
    with Progress(config.steps, stream=stream) as progress:
        code = loop.run(config, workdir, progress, devices=devices, **options)
    return code, stream.getvalue()


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def final_state(config, workdir, step=None):
    program = programs.build(config)
    step = config.steps if step is None else step
    return checkpoints.restore_on_host(workdir, step, program.state)


def after_one_step(config, devices=None):
    """Returns the program, the state and the metrics after a step."""
    program = programs.build(config, devices)
    batch = next(loader.batches(SyntheticSource(40), config.data, seed=0))
    images = jax.device_put(batch, program.images.sharding)
    state, tally, _ = program.advance(program.initialize(), program.new_tally(), images)
    return program, jax.device_get(state), jax.device_get(tally.sums)


def moments(state):
    """Returns Adam's first moments: after one step the gradients, times 1 - b1."""
    nodes = jax.tree.leaves(state.inner, is_leaf=lambda x: isinstance(x, Network))
    return [n.opt_state for n in nodes if isinstance(n, Network)]


def assert_same_step(one, other):
    """Losses and gradients agree to 1e-5, relative to the largest of each array."""
    for name in one[2]:
        np.testing.assert_allclose(one[2][name], other[2][name], rtol=1e-5)
    mine, theirs = (jax.tree.leaves(moments(x[1])) for x in (one, other))
    assert len(mine) > 10
    for a, b in zip(mine, theirs, strict=True):
        scale = np.abs(a).max() + 1e-12
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-5)


@pytest.mark.parametrize("method", TINY)
def test_eight_devices_equal_one_and_fsdp_equals_none(method):
    config = tiny(method)
    alone = after_one_step(config, jax.devices()[:1])
    assert_same_step(alone, after_one_step(config))
    sharded = dataclasses.replace(config, mesh=Mesh(fsdp=4))
    assert_same_step(alone, after_one_step(sharded))


_COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)


def collectives(program):
    """Returns `(kind, elements of each operand)` of the compiled step."""
    text = programs.lower(program).compile().as_text()
    return [
        (kind, [math.prod(map(int, filter(None, dims.split(",")))) for dims in shapes])
        for types, kind in _COLLECTIVE.findall(text)
        if (shapes := re.findall(r"\w+\[([\d,]*)\]", types))
    ]


def parameters(program):
    nodes = jax.tree.leaves(
        program.state.inner, is_leaf=lambda x: isinstance(x, Network)
    )
    return [
        [math.prod(leaf.shape) for leaf in jax.tree.leaves(node.params)]
        for node in nodes
        if isinstance(node, Network)
    ]


@pytest.mark.parametrize(
    ("method", "uses"), [("partial_conv", 1), ("context_encoder", 2)]
)
def test_the_compiled_step_reduces_each_gradient_and_nothing_larger(method, uses):
    # The discriminator of a pair sees true and predicted pictures: two gradients, which
    # the CPU compiler reduces one by one.
    program = programs.build(tiny(method))
    found = collectives(program)
    assert {kind for kind, _ in found} == {"all-reduce"}
    moved = [size for _, sizes in found for size in sizes]
    sizes = parameters(program)
    assert max(moved) <= max(map(max, sizes))
    gradients = sum(sizes[0]) + uses * sum(map(sum, sizes[1:]))
    # On CPUs some layers compute with kernels of another form, with somewhat more
    # entries, which are summed over the devices before they are brought back.
    assert 0.95 * gradients <= sum(moved) <= 1.3 * gradients


def test_sharded_parameters_are_gathered_and_activations_stay():
    config = tiny(mesh=Mesh(fsdp=4))
    program = programs.build(config)
    kernels = {size for sizes in parameters(program) for size in sizes}
    for kind, sizes in collectives(program):
        assert kind in ("all-reduce", "all-gather", "reduce-scatter")
        if kind == "all-gather":
            assert set(sizes) <= kernels
    cut = [x for x in jax.tree.leaves(program.state) if any(x.sharding.spec)]
    held = sum(math.prod(x.sharding.shard_shape(x.shape)) for x in cut)
    assert 4 * held == sum(math.prod(x.shape) for x in cut)
    assert sum(math.prod(x.shape) for x in cut) > 0.9 * sum(
        math.prod(x.shape) for x in jax.tree.leaves(program.state)
    )


def test_sharding_rules_apply_in_order():
    rules = (("enc1/", "replicate"), ("params/.*kernel", "fsdp"))
    program = programs.build(tiny(mesh=Mesh(fsdp=2, rules=rules)))
    leaves, _ = jax.tree_util.tree_flatten_with_path(program.state)
    cut = {meshes.path_name(path) for path, x in leaves if any(x.sharding.spec)}
    assert cut
    assert all("params/" in name and "kernel" in name for name in cut)
    assert not any("enc1/" in name for name in cut)


def test_state_is_donated():
    program = programs.build(tiny())
    state, tally = program.initialize(), program.new_tally()
    images = jax.device_put(
        np.zeros(program.images.shape, np.uint8), program.images.sharding
    )
    program.advance(state, tally, images)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.inner))


def test_the_step_is_traced_once(tmp_path, monkeypatch):
    from jaxpaint.methods import partial_conv

    make, traces = partial_conv.make, []

    def counting(**options):
        method = make(**options)

        def train_step(state, batch, key):
            traces.append(1)
            return method.train_step(state, batch, key)

        return method._replace(train_step=train_step)

    counting.__signature__ = __import__("inspect").signature(make)
    monkeypatch.setattr(partial_conv, "make", counting)
    config = tiny(steps=6, eval=Eval(every=0), log=Log(every=1, samples_every=0))
    train(config, tmp_path / "run")
    # Once for the names and shapes of the metrics, once for the program.
    assert len(traces) <= 2


def test_microbatches_add_up_to_the_whole_batch():
    # Without batch statistics the parts give exactly the gradient of the whole.
    from jaxpaint import optimization

    def loss(params, stats, batch, key):
        error = batch["x"] @ params["w"] - batch["y"]
        return jnp.mean(error**2), (stats, {"loss": jnp.mean(error**2)})

    rng = np.random.default_rng(0)
    batch = {
        "x": jnp.asarray(rng.normal(size=(12, 5)), jnp.float32),
        "y": jnp.asarray(rng.normal(size=(12, 1)), jnp.float32),
    }
    network = Network({"w": jnp.ones((5, 1))}, {}, ())
    key = jax.random.key(0)
    whole, _, metrics = optimization.gradients(loss, network, batch, key)
    for parts in (2, 3, 4):
        grads, _, parted = optimization.gradients(
            loss, network, batch, key, microbatches=parts
        )
        np.testing.assert_allclose(grads["w"], whole["w"], rtol=1e-5)
        np.testing.assert_allclose(parted["loss"], metrics["loss"], rtol=1e-5)


def test_microbatches_stay_on_their_devices():
    config = tiny(optim=Optim(microbatches=2))
    found = collectives(programs.build(config))
    assert {kind for kind, _ in found} == {"all-reduce"}


def test_gradients_are_clipped_by_their_global_norm():
    from jaxpaint import optimization

    transformation = optimization.optimizer(Optim(clip_norm=1.0))
    params = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    grads = {"a": jnp.full(3, 30.0), "b": jnp.full(4, 40.0)}
    state = transformation.init(params)
    _, state = transformation.update(grads, state, params)
    moments = [x for x in jax.tree.leaves(state) if x.shape in ((3,), (4,))][:2]
    norm = np.sqrt(sum(float(jnp.sum(jnp.square(m))) for m in moments)) / (1 - 0.9)
    assert norm == pytest.approx(1.0, rel=1e-5)


def test_the_learning_rate_rises_and_falls():
    from jaxpaint import optimization

    rate = optimization.schedule(
        Optim(lr=1.0, warmup_steps=10, decay_steps=110, final_lr=0.1), 2.0
    )
    assert float(rate(0)) == 0
    assert float(rate(5)) == pytest.approx(1.0)
    assert float(rate(10)) == pytest.approx(2.0)
    assert float(rate(60)) == pytest.approx(1.1)
    assert float(rate(500)) == pytest.approx(0.2)


def test_the_moving_average_ends_at_its_decay():
    from jaxpaint import optimization

    def average(step):
        return float(
            optimization.moving_average(
                jnp.zeros(()), jnp.ones(()), 0.99, jnp.asarray(step)
            )
        )

    assert average(0) == pytest.approx(0.9)
    assert average(10**6) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("method", TINY)
def test_bfloat16_activations_leave_parameters_and_losses_in_float32(method):
    config = tiny(method, compute=Compute(dtype="bfloat16", remat=True))
    program = programs.build(config)
    for leaf in jax.tree.leaves(program.state):
        assert leaf.dtype in (jnp.float32, jnp.int32)
    text = programs.lower(program).as_text()
    assert "bf16" in text
    shapes = jax.eval_shape(
        program.advance, program.state, program.new_tally(), program.images
    )
    assert all(x.dtype == jnp.float32 for x in shapes[1].sums.values())


def test_a_run_leaves_everything_a_person_looks_for(tmp_path):
    config = tiny(checkpoint=Checkpoint(every=2, best="eval/center/hole_l1"))
    workdir = tmp_path / "run"
    code, told = train(config, workdir)
    assert code == 0
    for word in ("1 cpu", "partial_conv", "16x16x16x3", "parameters", "compiling"):
        assert word in told
    assert configs.from_json((workdir / "config.json").read_text()) == config
    found = lines(workdir)
    steps = [line["step"] for line in found if "loss/total" in line]
    assert steps == [1, 2, 3, 4]
    speed = found[-2]
    assert {"speed/step_ms", "speed/images_per_s", "speed/mfu"} <= set(speed)
    scores = [line for line in found if "eval/center/hole_l1" in line]
    assert [line["step"] for line in scores] == [2, 4]
    assert {"eval/center/psnr", "eval/center/ssim"} <= set(scores[0])
    assert (workdir / "samples" / "step_000004.png").exists()
    assert checkpoints.steps(workdir)[-1] == 4
    best = checkpoints.best_step(workdir, config.checkpoint)
    assert best == min(scores, key=lambda line: line["eval/center/hole_l1"])["step"]
    code, told = train(config, workdir)
    assert "nothing to do" in told


def test_the_newest_checkpoint_survives_a_better_older_one(tmp_path):
    workdir = tmp_path / "run"
    settings = Checkpoint(keep=1, best="eval/a", best_is="highest")
    scores = {1: 5.0, 2: 9.0, 3: 7.0, 4: None}
    with checkpoints.Checkpoints(workdir, settings) as saved:
        for step, score in scores.items():
            saved.save(step, {"x": jnp.full(3, step)}, score)
            saved.wait()
        assert saved.latest() == 4
        assert not saved.is_best(8.0)
        assert saved.is_best(9.5)
    assert checkpoints.steps(workdir) == [2, 4]
    assert checkpoints.best_step(workdir, settings) == 2
    with checkpoints.Checkpoints(workdir, settings) as saved:
        assert not saved.is_best(8.0)


def test_resuming_equals_never_having_stopped(tmp_path):
    whole = tiny(steps=5, optim=Optim(ema_decay=0.9))
    train(whole, tmp_path / "whole")
    part = dataclasses.replace(whole, steps=3)
    train(part, tmp_path / "parts")
    train(whole, tmp_path / "parts")
    for a, b in zip(
        jax.tree.leaves(final_state(whole, tmp_path / "whole")),
        jax.tree.leaves(final_state(whole, tmp_path / "parts")),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    steps = [x["step"] for x in lines(tmp_path / "parts") if "loss/total" in x]
    assert steps == [1, 2, 3, 4, 5]


def test_lines_that_a_killed_run_left_are_written_again(tmp_path):
    workdir = tmp_path / "run"
    train(tiny(steps=2), workdir)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss/total": 1}\n{"step": 4, "lo')
    train(tiny(steps=4), workdir)
    found = [x for x in lines(workdir) if "loss/total" in x]
    assert [x["step"] for x in found] == [1, 2, 3, 4]
    assert found[2]["loss/total"] != 1


def test_a_changed_configuration_is_refused_with_the_difference(tmp_path):
    workdir = tmp_path / "run"
    train(tiny(steps=2), workdir)
    changed = tiny(optim=Optim(lr=1e-5))
    with pytest.raises(InputError, match=r"optim\.lr: 0\.0002 -> 1e-05"):
        train(changed, workdir)
    code, told = train(changed, workdir, allow_config_change=True)
    assert code == 0
    assert "after step 2" in told


def test_another_network_is_refused_and_nothing_is_lost(tmp_path):
    workdir = tmp_path / "run"
    config = tiny(steps=2)
    train(config, workdir)
    wider = tiny(options={**TINY["partial_conv"], "width": 16})
    with pytest.raises(InputError, match="cannot be read"):
        train(wider, workdir, allow_config_change=True)
    assert checkpoints.steps(workdir) == [2]


def test_checkpoints_open_on_other_devices(tmp_path):
    config = tiny(steps=2)
    train(config, tmp_path / "run", devices=None)  # on all 8
    one = programs.build(config, jax.devices()[:1])
    with checkpoints.Checkpoints(tmp_path / "run", config.checkpoint) as saved:
        state = saved.restore(2, one.state)
        assert {d for x in jax.tree.leaves(state) for d in x.devices()} == {
            jax.devices()[0]
        }
    with checkpoints.Checkpoints(tmp_path / "one", config.checkpoint) as saved:
        saved.save(2, state, None)
    eight = programs.build(dataclasses.replace(config, mesh=Mesh(fsdp=4)))
    with checkpoints.Checkpoints(tmp_path / "one", config.checkpoint) as saved:
        again = saved.restore(2, eight.state)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_nan_stops_the_run_with_step_and_metric_and_keeps_the_last_good_one(
    tmp_path, monkeypatch
):
    from jaxpaint.methods import partial_conv

    make = partial_conv.make

    def failing(**options):
        method = make(**options)

        def train_step(state, batch, key):
            state, metrics = method.train_step(state, batch, key)
            bad = jnp.where(state.step == 5, jnp.nan, 1.0)
            return state, {**metrics, "loss/hole": metrics["loss/hole"] * bad}

        return method._replace(train_step=train_step)

    failing.__signature__ = __import__("inspect").signature(make)
    monkeypatch.setattr(partial_conv, "make", failing)
    config = tiny(steps=8, log=Log(every=50, samples_every=0), eval=Eval(every=0))
    with pytest.raises(reports.Diverged, match=r"metric 'loss/hole'.*step 5; step 4"):
        train(config, tmp_path / "run")
    assert checkpoints.steps(tmp_path / "run") == [4]


def test_a_state_with_nan_is_not_saved(tmp_path, monkeypatch):
    from jaxpaint.methods import partial_conv

    make = partial_conv.make

    def failing(**options):
        method = make(**options)

        def train_step(state, batch, key):
            state, metrics = method.train_step(state, batch, key)
            bad = jnp.where(state.step == 4, jnp.nan, 1.0)
            params = jax.tree.map(lambda x: x * bad, state.network.params)
            network = state.network._replace(params=params)
            return state._replace(network=network), metrics

        return method._replace(train_step=train_step)

    failing.__signature__ = __import__("inspect").signature(make)
    monkeypatch.setattr(partial_conv, "make", failing)
    config = tiny(log=Log(every=50, samples_every=0), eval=Eval(every=0))
    with pytest.raises(reports.Diverged, match="a parameter"):
        train(config, tmp_path / "run")
    assert checkpoints.steps(tmp_path / "run") == [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "harmonic", "options": {}}, "nothing to train; want one of"),
        ({"method": "partial_convs"}, "did you mean 'partial_conv'"),
        ({"options": {"levelz": 3}}, "did you mean 'levels'"),
        ({"options": {"optim": 3}}, r"set optim\.KEY"),
        ({"mesh": Mesh(fsdp=3)}, "does not divide the 8 devices"),
        ({"mesh": Mesh(rules=(("(", "fsdp"),))}, r"mesh\.rules"),
        ({"data": Data(train="x", batch_size=12)}, "multiple, such as 16"),
        ({"data": Data(train="", batch_size=16)}, r"set data\.train"),
        ({"data": Data(train="/nowhere", batch_size=16)}, "/nowhere does not exist"),
        ({"data": Data(train="x", masks=("centre",))}, "did you mean 'center'"),
    ],
)
def test_what_cannot_be_run_is_one_clear_line_and_leaves_no_folder(
    tmp_path, changes, message
):
    config = dataclasses.replace(tiny(), **changes)
    with pytest.raises(InputError, match=message) as error:
        train(config, tmp_path / "run", devices=None)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_two_runs_cannot_write_in_one_folder(tmp_path):
    with (
        loop._owned(tmp_path),
        pytest.raises(InputError, match="another run is writing"),
    ):
        train(tiny(), tmp_path)


def test_a_best_metric_that_is_not_measured_is_refused(tmp_path):
    config = tiny(checkpoint=Checkpoint(best="eval/center/hole_l2"))
    with pytest.raises(InputError, match="did you mean 'eval/center/hole_l1'"):
        train(config, tmp_path / "run")
