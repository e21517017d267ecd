"""Weights go from a training run into a file and from there into a picture."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpaint
from jaxpaint import config as configs
from jaxpaint import files, safetensors, weights
from jaxpaint.cli import sample
from jaxpaint.cli.main import main
from jaxpaint.config import Config, Data
from jaxpaint.convert.coverage import leaves
from jaxpaint.errors import InputError
from jaxpaint.training import checkpoints, programs
from jaxpaint.training import step as steps

SIZE = 16
OPTIONS = {
    **{"image_size": SIZE, "encoder_width": 2, "decoder_width": 2},
    **{"discriminator_width": 2, "bottleneck": 3, "overlap": 1},
}
CONFIG = Config(
    method="context_encoder",
    steps=3,
    options=OPTIONS,
    data=Data(train="synthetic:4", image_size=SIZE),
    checkpoint=configs.Checkpoint(keep=3, best="eval/l1"),
)


@pytest.fixture(scope="module")
def state() -> steps.TrainState:
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(steps.initial(programs.method_of(CONFIG), SIZE, seed=0))
    return jax.tree.map(
        lambda x: jnp.asarray(generator.uniform(0.01, 0.1, x.shape), x.dtype), shapes
    )


@pytest.fixture(scope="module")
def run(state: steps.TrainState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints 1 to 3, of which 2 is the best; values are its number."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    folder.mkdir()
    checkpoints.write_config(folder, CONFIG)
    with checkpoints.Checkpoints(folder, CONFIG.checkpoint) as saved:
        for step, score in [(1, 0.5), (2, 0.3), (3, 0.4)]:
            numbered = jax.tree.map(lambda x, step=step: jnp.full_like(x, step), state)
            saved.save(step, numbered, score)
    return folder


@pytest.fixture
def drawn(state: steps.TrainState, tmp_path: Path) -> Path:
    """A file with the weights of the initial state."""
    path = tmp_path / "drawn.safetensors"
    params = programs.method_of(CONFIG).eval_params(state.inner)
    weights.write(path, weights.Weights(CONFIG.method, OPTIONS, params, SIZE))
    return path


def numbers(loaded: weights.Weights) -> set[float]:
    return {float(x) for _, array in leaves(loaded.params) for x in array.ravel()}


def exported(run: Path, folder: Path, *flags: str) -> weights.Weights:
    path = folder / "out" / "params.safetensors"
    assert main(["export", str(run), "--output", str(path), *flags, "--overwrite"]) == 0
    return weights.read(path)


def refused(capsys: pytest.CaptureFixture, *command: object) -> str:
    """Runs a command that must end in one line on stderr; returns it."""
    capsys.readouterr()
    assert main([str(word) for word in command]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def changed(path: Path, change) -> Path:
    arrays, metadata = safetensors.read(path)
    arrays = {name: np.array(array) for name, array in arrays.items()}
    change(arrays, metadata)
    target = path.with_name("changed.safetensors")
    safetensors.write(target, arrays, metadata)
    return target


def test_export_takes_the_best_checkpoint_the_latest_or_any(
    run: Path, tmp_path: Path
) -> None:
    for flags, step in [
        ([], 2),
        (["--step", "best"], 2),
        (["--step", "latest"], 3),
        (["--step", "1"], 1),
    ]:
        loaded = exported(run, tmp_path, *flags)
        assert numbers(loaded) == {step}
        assert loaded.about["step"] == str(step)


@pytest.mark.parametrize("path", sorted(sample.WEIGHTS.glob("*.safetensors")), ids=str)
def test_the_weights_that_come_with_the_package_fit_their_method(path: Path) -> None:
    loaded = weights.read(path)
    assert loaded.method == path.stem.removesuffix("_guided")
    guided = bool(loaded.options.get("guided"))
    assert guided == path.stem.endswith("_guided")
    assert int(loaded.about["step"]) > 0
    card = (path.parent / "README.md").read_text()
    assert f"## {path.name}" in card
    assert "photos/" in loaded.about["config"]


def test_a_network_for_any_size_may_be_used_at_another() -> None:
    loaded = weights.read(sample.WEIGHTS / "repaint.safetensors")
    larger = loaded._replace(options=loaded.options | {"image_size": 64})
    for (name, array), (other, same) in zip(
        leaves(weights.fitting(larger).params), leaves(loaded.params), strict=True
    ):
        assert name == other
        np.testing.assert_array_equal(array, same)


def test_half_precision_is_half_the_size_and_reads_as_float32(
    run: Path, tmp_path: Path
) -> None:
    loaded = exported(run, tmp_path)
    path = tmp_path / "out" / "params.safetensors"
    size = path.stat().st_size
    half = exported(run, tmp_path, "--half")
    assert path.stat().st_size < 0.8 * size
    assert {x.dtype for x in jax.tree.leaves(half.params)} == {np.dtype(np.float32)}
    jax.tree.map(np.testing.assert_array_equal, half.params, loaded.params)


def test_half_precision_refuses_what_it_cannot_hold() -> None:
    given = weights.Weights("harmonic", {}, {"a": np.float32([1e5])}, 8)
    with pytest.raises(InputError, match="65504"):
        weights.halved(given)


def test_the_file_tells_all_of_the_run(run: Path, tmp_path: Path) -> None:
    loaded = exported(run, tmp_path)
    assert loaded.method == CONFIG.method
    assert loaded.options == OPTIONS
    assert loaded.image_size == SIZE
    assert configs.from_json(loaded.about["config"]) == CONFIG
    _, metadata = safetensors.read(tmp_path / "out" / "params.safetensors")
    assert metadata["jaxpaint_version"] == jaxpaint.__version__
    assert json.loads(metadata["options"]) == OPTIONS


def test_only_what_inference_needs_is_exported(
    run: Path, state: steps.TrainState, tmp_path: Path
) -> None:
    params = programs.method_of(CONFIG).eval_params(state.inner)
    loaded = exported(run, tmp_path)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(params)


def test_runs_and_their_checkpoints_are_read_without_export(run: Path) -> None:
    assert numbers(weights.read(run)) == {2}
    assert numbers(weights.read(run / "checkpoints" / "3")) == {3}


def test_a_run_without_evaluation_gives_its_latest(
    state: steps.TrainState, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoints.write_config(tmp_path, CONFIG)
    output = tmp_path / "a.safetensors"
    error = refused(capsys, "export", tmp_path, "--output", output)
    assert "has no checkpoint yet" in error
    with checkpoints.Checkpoints(tmp_path, CONFIG.checkpoint) as saved:
        for step in (1, 2):
            saved.save(step, state, None)
    assert weights.read(tmp_path).about["step"] == "2"
    error = refused(capsys, "export", tmp_path, "--output", output, "--step", "best")
    assert "has no best checkpoint" in error
    assert not output.exists()


def test_wrong_exports_end_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "a.safetensors"
    assert "it has 1, 2, 3" in refused(
        capsys, "export", run, "--output", output, "--step", 7
    )
    assert "is no run of training" in refused(
        capsys, "export", tmp_path, "--output", output
    )
    assert "ends in .safetensors" in refused(
        capsys, "export", run, "--output", tmp_path / "a.npz"
    )
    output.write_bytes(b"mine")
    assert "use --overwrite" in refused(capsys, "export", run, "--output", output)
    assert output.read_bytes() == b"mine"


def test_sample_paints_what_the_library_paints(drawn: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (24, 20, 3), np.uint8)
    hole = np.zeros((24, 20), bool)
    hole[8:14, 6:12] = True
    files.write_picture(tmp_path / "a.png", files.Picture(pixels))
    files.write_picture(tmp_path / "m.png", files.Picture(hole.astype(np.uint8) * 255))
    command = ["sample", "--image", tmp_path / "a.png", "--mask", tmp_path / "m.png"]
    output = tmp_path / "out.png"
    flags = ["--checkpoint", drawn, "--output", output, "--quiet"]
    assert main([str(word) for word in (*command, *flags)]) == 0
    loaded = weights.load(drawn)
    key = jax.random.fold_in(jax.random.key(0), 0)
    expected = jaxpaint.inpaint(
        pixels, hole, loaded.method, key, options=loaded.options, params=loaded.params
    )
    result = files.read_picture(output).pixels
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(result[~hole], pixels[~hole])
    assert (result[hole] != pixels[hole]).any()


def test_the_method_of_the_file_is_taken(
    drawn: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ("--checkpoint", drawn, "--print-config")
    for more in ([], ["--method", "context_encoder"]):
        assert main(["sample", *map(str, flags), *more]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["method"] == "context_encoder"
        assert printed["options"]["bottleneck"] == OPTIONS["bottleneck"]
    error = refused(capsys, "sample", *flags, "--method", "harmonic")
    assert "holds weights of 'context_encoder'; drop --method" in error


def test_options_may_change_as_long_as_the_weights_fit(
    drawn: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ("--checkpoint", drawn, "--print-config")
    assert main(["sample", *map(str, flags), "--option", "overlap=2"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["overlap"] == 2
    error = refused(capsys, "sample", *flags, "--option", "encoder_width=4")
    assert "misshaped" in error
    assert str(drawn) in error


def test_a_learned_method_needs_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sample, "WEIGHTS", tmp_path)
    error = refused(capsys, "sample", "--method", "context_encoder", "--quiet")
    assert not (tmp_path / "output").exists()
    assert "give --checkpoint" in error


def test_weights_that_do_not_fit_are_listed(drawn: Path) -> None:
    shapes = {name: array.shape for name, array in safetensors.read(drawn)[0].items()}
    kernel = next(name for name in shapes if name.endswith("kernel"))
    scale = next(name for name in shapes if name.endswith("scale"))
    want = list(shapes[kernel])

    def damage(arrays: dict, metadata: dict) -> None:
        del arrays[scale]
        arrays[kernel] = arrays[kernel][..., :1]
        arrays["params.extra"] = np.zeros(1, np.float32)

    path = changed(drawn, damage)
    with pytest.raises(InputError) as raised:
        weights.read(path)
    message = str(raised.value)
    assert message.startswith(str(path))
    assert f"1 missing: {scale};" in message
    assert "1 unexpected: params.extra" in message
    assert f"1 misshaped: {kernel} is {[*want[:3], 1]}, want {want}" in message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "context_encodr"}, "did you mean 'context_encoder'"),
        ({"options": '{"widht": 3}'}, "option of method"),
        ({"options": "{"}, "metadata is incomplete"),
        ({"options": "[]"}, "metadata is incomplete"),
        ({"image_size": "big"}, "metadata is incomplete"),
        ({"format_version": "2"}, "update jaxpaint"),
        ({"format": "other"}, "no method knows these weights"),
    ],
)
def test_files_that_tell_something_else(drawn: Path, changes: dict, says: str) -> None:
    path = changed(drawn, lambda arrays, metadata: metadata.update(changes))
    with pytest.raises(InputError, match=says) as raised:
        weights.read(path)
    assert str(raised.value).startswith(str(path))


def test_half_precision_is_widened(drawn: Path) -> None:
    def halve(arrays: dict, metadata: dict) -> None:
        for name, array in arrays.items():
            arrays[name] = array.astype(jnp.bfloat16)

    halved = weights.read(changed(drawn, halve))
    for (name, array), (_, full) in zip(
        leaves(halved.params), leaves(weights.read(drawn).params), strict=True
    ):
        assert array.dtype == np.float32, name
        np.testing.assert_allclose(array, full, rtol=2**-8)


def test_options_that_are_tuples_come_back_as_tuples(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    options = {"steps": 3, "sizes": (1, (2, 3))}
    weights.write(path, weights.Weights("harmonic", options, {}, SIZE))
    metadata = safetensors.read(path)[1]
    assert weights._described({}, metadata).options == options
