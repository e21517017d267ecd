"""The engine of the converters leaves no array and no parameter over."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxpaint import convert, methods, safetensors, torch_file
from jaxpaint.cli.main import main
from jaxpaint.convert import coverage
from jaxpaint.errors import InputError

DATA = Path(__file__).parent / "data"

CONVERTER = """
from jaxpaint.convert import Converted
from jaxpaint.convert.coverage import assemble, batch_norm, conv, conv_transposed
from jaxpaint.convert.coverage import Source, dense
import numpy as np

def recognizes(arrays):
    return "2.weight" in arrays

def convert(arrays):
    f = lambda *shape: np.empty(shape, np.float32)
    template = {
        "params": {
            "conv": {"kernel": f(5, 4, 2, 3), "bias": f(3)},
            "norm": {"scale": f(3), "bias": f(3)},
            "up": {"kernel": f(2, 3, 3, 2)},
            "dense": {"kernel": f(4, 6), "bias": f(6)},
        },
        "batch_stats": {"norm": {"mean": f(3), "var": f(3)}},
    }
    sources = {
        "params.conv.kernel": conv("0.weight"),
        "params.conv.bias": Source("0.bias"),
        **batch_norm("norm", "1"),
        "params.up.kernel": conv_transposed("2.weight"),
        "params.dense.kernel": dense("3.weight"),
        "params.dense.bias": Source("3.bias"),
    }
    params = assemble(template, arrays, sources, [r"num_batches_tracked$"])
    return Converted("tiny", {}, params, 8)
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter `tiny` for tests/data/state_dict.pth, found as all others are."""
    folder = tmp_path / "converters"
    folder.mkdir()
    (folder / "tiny.py").write_text(CONVERTER)
    monkeypatch.setattr(convert, "__path__", [str(folder)])
    monkeypatch.delitem(sys.modules, "jaxpaint.convert.tiny", raising=False)


def template() -> dict:
    ones = np.ones((2, 3), np.float32)
    return {"params": {"a": {"kernel": ones}, "b": ones[0]}, "stats": {"c": ones}}


SOURCES = {
    "params.a.kernel": coverage.dense("a.weight"),
    "params.b": coverage.Source("b"),
    "stats.c": coverage.Source("c"),
}


def arrays() -> dict[str, np.ndarray]:
    return {
        "a.weight": np.arange(6.0).reshape(3, 2),
        "b": np.arange(3),
        "c": np.full((2, 3), 7, np.float16),
        "counter": np.array(3),
    }


def test_every_kind_of_layer_gets_our_layout(tiny: None) -> None:
    found = torch_file.load(DATA / "state_dict.pth")["state_dict"]
    params = convert.convert(DATA / "state_dict.pth").params
    kernel = params["params"]["conv"]["kernel"]
    theirs = found["module.0.weight"]
    assert kernel[4, 3, 1, 2] == theirs[2, 1, 4, 3]
    up, theirs = params["params"]["up"]["kernel"], found["module.2.weight"]
    assert up[1, 2, 2, 0] == theirs[2, 0, 1, 2]
    dense, theirs = params["params"]["dense"]["kernel"], found["module.3.weight"]
    assert dense[3, 5] == theirs[5, 3]
    for name, key in [("mean", "running_mean"), ("var", "running_var")]:
        assert (params["batch_stats"]["norm"][name] == found[f"module.1.{key}"]).all()
    for name, key in [("scale", "weight"), ("bias", "bias")]:
        assert (params["params"]["norm"][name] == found[f"module.1.{key}"]).all()


def test_the_tree_has_the_order_shapes_and_dtypes_of_the_template() -> None:
    filled = coverage.assemble(template(), arrays(), SOURCES, ["^counter$"])
    got, want = list(coverage.leaves(filled)), list(coverage.leaves(template()))
    assert [path for path, _ in got] == [path for path, _ in want]
    for (_, array), (_, leaf) in zip(got, want, strict=True):
        assert (array.shape, array.dtype) == (leaf.shape, leaf.dtype)
        assert array.flags.c_contiguous
    assert filled["params"]["a"]["kernel"].tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a, s: a.pop("b"), "1 missing: b (for params.b)"),
        (lambda a, s: s.pop("params.b"), "1 missing: params.b; 1 unexpected: b"),
        (lambda a, s: a.update(d=a["b"]), "1 unexpected: d"),
        (
            lambda a, s: a.update(b=np.ones(4)),
            "1 misshaped: b is [4], want [3] (for params.b)",
        ),
        (
            lambda a, s: a.update({"a.weight": np.ones(6)}),
            "1 misshaped: a.weight is [6], want [2, 3] (for params.a.kernel)",
        ),
        (
            lambda a, s: a.update({f"x{i}": a["b"] for i in range(7)}),
            "7 unexpected: x0, x1, x2, x3, x4, ...",
        ),
        (
            lambda a, s: (
                s.update({"params.new": coverage.Source("counter2")})
                or a.update(counter2=a["b"])
            ),
            "1 unexpected: counter2",
        ),
    ],
)
def test_whatever_is_left_over_is_listed(change, says: str) -> None:
    found, sources = arrays(), dict(SOURCES)
    change(found, sources)
    with pytest.raises(InputError, match=re.escape(says) + "$"):
        coverage.assemble(template(), found, sources, ["^counter$"])


def test_all_complaints_come_in_one_line() -> None:
    found = arrays() | {"b": np.ones(4), "d": np.ones(1)}
    del found["c"]
    with pytest.raises(InputError) as raised:
        coverage.assemble(template(), found, SOURCES)
    assert str(raised.value) == (
        "the weights do not fit; 1 missing: c (for stats.c); 2 unexpected: counter, d; "
        "1 misshaped: b is [4], want [3] (for params.b)"
    )


def test_trees_and_dotted_names() -> None:
    flat = dict(coverage.leaves(template()))
    assert list(flat) == ["params.a.kernel", "params.b", "stats.c"]
    assert dict(coverage.leaves(coverage.nest(flat))).keys() == flat.keys()
    assert coverage.nest(flat)["params"]["a"]["kernel"] is flat["params.a.kernel"]
    for paths in (["a", "a.b"], ["a.b", "a"]):
        with pytest.raises(InputError, match=r"'a(\.b)?'"):
            coverage.nest(dict.fromkeys(paths, np.ones(1)))


@pytest.mark.parametrize(
    "loaded",
    [
        arrays(),
        {"epoch": 3, "state_dict": arrays()},
        {"n_iter": 3, "model": arrays(), "optimizer": {"state": {}}},
        {"model": {"state_dict": arrays()}},
        {"state_dict": {f"module.{key}": value for key, value in arrays().items()}},
        {"generator": arrays(), "discriminator": {"d": np.ones(1)}},
    ],
)
def test_containers_are_unwrapped(loaded: dict) -> None:
    found = convert.state_dict(loaded)
    assert found.keys() == arrays().keys()


@pytest.mark.parametrize("loaded", [{}, [1], None, {"epoch": 3}, {"model": {"a": 1}}])
def test_files_without_arrays(loaded: object) -> None:
    with pytest.raises(InputError, match="no state dict found"):
        convert.state_dict(loaded)


def test_other_things_among_arrays_are_refused() -> None:
    with pytest.raises(InputError, match="'note' is of type str among arrays"):
        convert.state_dict(arrays() | {"note": "text"})


def test_within_takes_one_network_out() -> None:
    found = {"generator.a": np.ones(1), "disc.a": np.zeros(1), "generator": np.ones(2)}
    assert list(convert.within(found, "generator.")) == ["a"]


def test_the_converter_is_found_by_name_or_by_the_arrays(tiny: None) -> None:
    assert convert.names() == ["tiny"]
    for method in (None, "tiny"):
        assert convert.convert(DATA / "state_dict.pth", method).method == "tiny"
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        convert.convert(DATA / "state_dict.pth", "tinny")
    with pytest.raises(InputError, match=r"views\.pth: no method knows"):
        convert.convert(DATA / "views.pth")
    with pytest.raises(InputError, match=r"views\.pth: the weights do not fit"):
        convert.convert(DATA / "views.pth", "tiny")


def test_the_command_writes_what_the_function_returns(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "new" / "a.safetensors"
    source = str(DATA / "state_dict.pth")
    assert main(["convert", source, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    stored, metadata = safetensors.read(output)
    want = dict(coverage.leaves(convert.convert(source).params))
    assert stored.keys() == want.keys()
    assert all((stored[name] == want[name]).all() for name in want)
    assert metadata["method"] == "tiny"
    assert metadata["source"] == "state_dict.pth"
    # A safetensors file of the other project's names does as well.
    arrays = torch_file.load(source)["state_dict"]
    safetensors.write(tmp_path / "theirs.safetensors", arrays)
    assert convert.convert(tmp_path / "theirs.safetensors").method == "tiny"


def test_every_converter_is_of_a_method() -> None:
    assert set(convert.names()) <= set(methods.names())


def test_templates_cost_nothing() -> None:
    assert convert.template("harmonic", {}, 2**20) == {}


@pytest.mark.parity
def test_recorded_networks_are_converted_or_refused_in_one_line(fixtures: Path) -> None:
    converted = set()
    for path in sorted(fixtures.glob("*/weights.pth")):
        try:
            converted.add(convert.convert(path).method)
        except InputError as error:
            message = str(error)
            assert message.startswith(f"{path}: "), message
            assert "\n" not in message
    assert converted == set(convert.names())
