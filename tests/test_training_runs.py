"""Whole training runs as their user starts them: processes that are killed, signalled,
multiplied and starved."""

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxpaint import config as configs
from jaxpaint.training import checkpoints, programs

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent

CONFIG = """
from jaxpaint.config import *


def config():
    return Config(
        method="partial_conv",
        steps=120,
        options=dict(levels=2, width=4, perceptual=0.0, style=0.0),
        data=Data(
            train="synthetic:30", image_size=16, load_size=20, min_crop=0.8,
            batch_size=4, masks=("boxes",), workers=1,
        ),
        optim=Optim(ema_decay=0.99),
        log=Log(every=1, samples_every=0),
        checkpoint=Checkpoint(every=7),
    )
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    path.write_text(CONFIG)
    return path


def start(config_file, workdir, *words, **options):
    command = [sys.executable, "train.py", str(config_file), "--workdir", str(workdir)]
    # The simulated devices of the tests do not reach other processes.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [*command, *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def finish(process, code=0):
    told = process.communicate(timeout=600)[0]
    assert process.returncode == code, told
    return told


def steps_written(workdir):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return sum('"grad_norm' in line for line in lines)


def wait_for_step(process, workdir, step):
    deadline = time.monotonic() + 240
    while steps_written(workdir) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


def state(workdir, step):
    config = checkpoints.read_config(workdir)
    program = programs.build(config, jax.devices()[:1])
    return checkpoints.restore_on_host(workdir, step, program.state)


def assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def undisturbed(config_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    finish(start(config_file, workdir))
    return workdir


def test_five_kills_lose_nothing(config_file, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    chance = random.Random(0)
    for kill in range(5):
        process = start(config_file, workdir)
        wait_for_step(process, workdir, min(20 * kill + chance.randint(1, 20), 110))
        time.sleep(chance.random() * 0.05)
        process.kill()
        process.wait()
    told = finish(start(config_file, workdir))
    assert "going on after step" in told
    assert_equal(state(undisturbed, 120), state(workdir, 120))
    lines = [
        json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    assert [x["step"] for x in lines if "loss/total" in x] == list(range(1, 121))


PHASES = """
from jaxpaint.config import *


def config():
    return Config(
        method="glcic",
        steps=60,
        options=dict(
            image_size=16, width=4, dilations=(2,), discriminator_width=4,
            discriminator_features=8, completion_steps=20, discriminator_steps=20,
        ),
        data=Data(
            train="synthetic:30", image_size=16, batch_size=4, masks=("glcic_box",),
            workers=1,
        ),
        optim=Optim(lr=1.0, ema_decay=0.99),
        log=Log(every=1, samples_every=0),
        checkpoint=Checkpoint(every=7),
    )
"""


def test_a_kill_in_each_phase_loses_nothing(tmp_path):
    config_file = tmp_path / "phases.py"
    config_file.write_text(PHASES)
    finish(start(config_file, tmp_path / "whole"))
    workdir = tmp_path / "run"
    # Going on inside each of the phases: after steps 7, 21 and 42.
    for step in (9, 23, 43):
        process = start(config_file, workdir)
        wait_for_step(process, workdir, step)
        process.kill()
        process.wait()
    assert "going on after step" in finish(start(config_file, workdir))
    whole, killed = (state(tmp_path / name, 60) for name in ("whole", "run"))
    assert_equal(whole, killed)
    assert whole.inner.step == 60
    lines = [
        json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    trained = [
        tuple(line[f"grad_norm/{name}"] > 0 for name in ("gen", "disc"))
        for line in lines
        if "grad_norm/gen" in line
    ]
    phases = [(True, False), (False, True), (True, True)]
    assert trained == [phase for phase in phases for _ in range(20)]


def test_sigterm_saves_and_exits_with_0(config_file, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    process = start(config_file, workdir)
    wait_for_step(process, workdir, 9)
    process.send_signal(signal.SIGTERM)
    told = finish(process, 0)
    assert "stopped by SIGTERM" in told
    step = checkpoints.steps(workdir)[-1]
    assert 9 <= step < 120
    assert step == max(
        json.loads(x)["step"]
        for x in (workdir / "metrics.jsonl").read_text().splitlines()
    )
    finish(start(config_file, workdir))
    assert_equal(state(undisturbed, 120), state(workdir, 120))


def test_ctrl_c_saves_and_exits_with_130(config_file, tmp_path):
    workdir = tmp_path / "run"
    process = start(config_file, workdir)
    wait_for_step(process, workdir, 3)
    process.send_signal(signal.SIGINT)
    assert "stopped by SIGINT" in finish(process, 130)
    assert checkpoints.steps(workdir)[-1] >= 3


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes_equal_one(config_file, tmp_path):
    settings = ["steps=2", "checkpoint.every=1", "checkpoint.keep=5"]
    finish(start(config_file, tmp_path / "one", *settings))
    address = f"127.0.0.1:{free_port()}"
    processes = [
        start(
            config_file,
            tmp_path / "two",
            *(*settings, "--coordinator", address),
            *("--num-processes", "2", "--process-id", str(i)),
        )
        for i in range(2)
    ]
    told = [finish(process) for process in processes]
    assert "2 cpu (2 processes)" in told[0]
    # Gloo reports its connection by itself.
    own = [line for line in told[1].splitlines() if "[Gloo]" not in line]
    assert own == [], "only process 0 talks"
    lines = [
        [
            json.loads(x)
            for x in (tmp_path / name / "metrics.jsonl").read_text().split("\n")[:2]
        ]
        for name in ("one", "two")
    ]
    for one, two in zip(*lines, strict=True):
        for name in [n for n in one if n.startswith(("loss/", "grad"))]:
            assert two[name] == pytest.approx(one[name], rel=1e-5), name
    # After one step Adam's first moments are the gradients, times 0.1.
    one, two = (
        state(tmp_path / name, 1).inner.network.opt_state for name in ("one", "two")
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        scale = np.abs(a).max() + 1e-12
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-5)


def test_a_run_of_two_processes_goes_on_with_one(config_file, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    processes = [
        start(
            config_file,
            tmp_path / "run",
            *("steps=3", "--coordinator", address),
            *("--num-processes", "2", "--process-id", str(i)),
        )
        for i in range(2)
    ]
    for process in processes:
        finish(process)
    told = finish(start(config_file, tmp_path / "run", "steps=4"))
    assert "going on after step 3 of 4" in told


def test_a_full_disk_is_one_line_and_loses_nothing(config_file, tmp_path):
    workdir = tmp_path / "run"
    finish(start(config_file, workdir, "steps=3"))

    def starve():
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))

    told = finish(start(config_file, workdir, "steps=12", preexec_fn=starve), 2)
    errors = [line for line in told.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "earlier checkpoints are unharmed" in errors[0]
    assert "Traceback" not in told
    assert checkpoints.steps(workdir) == [3]
    assert "going on after step 3" in finish(start(config_file, workdir, "steps=5"))


def test_a_folder_of_photographs_trains_and_bad_files_are_named(config_file, tmp_path):
    photos = tmp_path / "photos" / "nested"
    photos.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 256, (40 + i, 30, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{i:02}.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    told = finish(
        start(
            config_file,
            tmp_path / "run",
            *("steps=6", f"data.train={tmp_path / 'photos'}"),
            *(f"data.validation={tmp_path / 'photos'}", "eval.every=3"),
            *("eval.images=5", "eval.batch_size=5", "eval.masks=center"),
            *("log.samples_every=6", "eval.baselines=('mean_color',)"),
        )
    )
    assert "broken.jpg" in told
    assert "mean_color: center/hole_l1" in told
    with Image.open(tmp_path / "run" / "samples" / "step_000006.png") as image:
        assert image.size == (3 * 16, 5 * 16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.lrr=1"], "did you mean 'optim.lr'?"),
        (["data.train=/nowhere"], "/nowhere does not exist"),
        (["--coordinator", "a:1"], "come together"),
        (["options.levelz=3"], "did you mean 'levels'?"),
        (["init_from=/nowhere.safetensors"], "/nowhere.safetensors"),
    ],
)
def test_mistakes_are_one_line(config_file, tmp_path, words, message):
    told = finish(start(config_file, tmp_path / "run", *words), 2)
    errors = told.splitlines()
    assert errors[-1].startswith("error: ")
    assert message in errors[-1]
    assert "Traceback" not in told


def test_print_config_shows_what_is_overridden(config_file):
    command = [sys.executable, "train.py", str(config_file), "--print-config"]
    told = subprocess.run(
        [*command, "optim.lr=0.5"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    config = configs.from_json(told)
    assert config.optim.lr == 0.5
    assert config.options["levels"] == 2
    assert "max_width" in config.options, "defaults of the method are spelled out"


def test_dry_run_tells_costs_and_shardings_and_leaves_nothing(config_file, tmp_path):
    told = finish(start(config_file, tmp_path / "run", "--dry-run"))
    for word in ("parameters", "FLOPs", "memory", "replicated", "batch", "loss/total"):
        assert word in told
    assert not (tmp_path / "run").exists()
