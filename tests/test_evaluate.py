"""`jaxpaint evaluate`: what lies in its folder, what is refused, tables and studies."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from jaxpaint import weights
from jaxpaint.cli import evaluate, sample
from jaxpaint.cli.main import main
from jaxpaint.convert import template
from jaxpaint.distances import Interval
from jaxpaint.errors import InputError
from jaxpaint.evaluation import descriptions, filling, pairs, squares, tables
from jaxpaint.evaluation.scores import Figure, Network
from jaxpaint.evaluation.squares import Squares
from jaxpaint.features import efficientnet_lite0

SIZE = 24
KINDS = ("half", "expand")
LEARNED = {"levels": 2, "width": 4, "max_width": 4, "perceptual": 0.0, "style": 0.0}


def photo(path: Path, seed: int, height: int = 30, width: int = 26) -> None:
    """Writes a smooth random picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.save(path)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def contents(folder: Path) -> dict[str, bytes]:
    """Returns all files below a folder, by path."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def run(data: Path, output: Path, *flags: object) -> int:
    """Runs the command for small pictures."""
    given = [str(flag) for flag in flags]
    if "--masks" not in given:
        given += ["--masks", ",".join(KINDS)]
    folders = ["--data", str(data), "--output", str(output)]
    size = [] if "--size" in given else ["--size", str(SIZE)]
    return main(["evaluate", *folders, *size, "--quiet", *given])


def table(output: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    """Returns the figures by method, mask and metric."""
    with (output / "table.csv").open() as file:
        return {(r["method"], r["mask"], r["metric"]): r for r in csv.DictReader(file)}


def rows(output: Path) -> list[dict]:
    lines = (output / "rows.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module", autouse=True)
def alike() -> Iterator[None]:
    """Networks that happen to be installed are not taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet_lite0, "installed", lambda: None)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(9):  # one more than a batch on the eight devices of the tests
        photo(folder / "deeper" / f"{number}.png", number)
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """Weights of a small network that learned nothing."""
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.uniform(0.1, 0.2, leaf.shape).astype(leaf.dtype),
        template("partial_conv", LEARNED, SIZE),
    )
    weights.write(path, weights.Weights("partial_conv", LEARNED, params, SIZE))
    return path


@pytest.fixture(scope="module")
def whole(photos, learned, tmp_path_factory) -> Path:
    """An evaluation of three rows and two kinds of masks."""
    output = tmp_path_factory.mktemp("whole") / "eval"
    asked = ["--methods", "mean_color,harmonic", "--checkpoint", f"net={learned}"]
    assert run(photos, output, *asked) == 0
    return output


@pytest.fixture
def begun(whole, tmp_path) -> Path:
    """A copy of that evaluation."""
    return Path(shutil.copytree(whole, tmp_path / "eval"))


@pytest.fixture
def refused(capsys):
    """A command that must end with 2 and one line, which is returned."""

    def command(*arguments: object) -> str:
        capsys.readouterr()
        code = main(["evaluate", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return command


# What an evaluation holds


def test_every_row_has_a_figure_for_every_kind_of_masks(whole):
    found = table(whole)
    metrics = {"hole_l1", "l1", "psnr", "hole_psnr", "ssim", "hole_ssim"}
    labels = ("mean_color", "harmonic", "net")
    assert set(found) == set(itertools.product(labels, KINDS, metrics))
    assert {figure["pictures"] for figure in found.values()} == {"9"}
    assert len(rows(whole)) == len(labels) * len(KINDS) * 9
    text = (whole / "table.md").read_text()
    for label in labels:
        assert text.count(f"| `{label}` |") == 3  # tables, without that of features
    assert read(whole / "grid.png").ndim == 3


def test_intervals_contain_their_value(whole):
    for figure in table(whole).values():
        low, value, high = (float(figure[x]) for x in ("low", "value", "high"))
        assert low <= value <= high


def test_known_pixels_of_results_are_those_of_the_truth(whole):
    for path in whole.glob("results/*/*/*.png"):
        truth = read(whole / "truth" / path.name)
        hole = read(whole / "masks" / path.parent.name / path.name) > 0
        assert hole.any()
        np.testing.assert_array_equal(read(path)[~hole], truth[~hole])


ONE = ("net", "half")


def test_scores_are_those_of_the_files(whole):
    for row in rows(whole):
        name = f"{row['picture']}.png"
        result = read(whole / "results" / row["method"] / row["mask"] / name) / 255
        truth = read(whole / "truth" / name) / 255
        hole = read(whole / "masks" / row["mask"] / name) > 0
        difference = np.abs(result - truth)
        assert row["l1"] == pytest.approx(difference.mean(), rel=1e-4)
        assert row["hole_l1"] == pytest.approx(difference[hole].mean(), rel=1e-4)
        error = np.square(difference).mean()
        assert row["psnr"] == pytest.approx(-10 * np.log10(error), rel=1e-4)
    values = [r["psnr"] for r in rows(whole) if (r["method"], r["mask"]) == ONE]
    found = table(whole)[*ONE, "psnr"]
    assert float(found["value"]) == pytest.approx(np.mean(values), rel=1e-5)


def test_a_mask_depends_on_its_picture_alone():
    names = ["a", "b", "c", "d"]
    pixels = np.zeros((4, SIZE, SIZE, 3), np.uint8)

    def drawn(*chosen: str, kind: str = "boxes", seed: int = 0) -> list[np.ndarray]:
        few = Squares(list(chosen), pixels[: len(chosen)], [])
        return list(squares.holes(few, kind, seed))

    every = drawn(*names)
    np.testing.assert_array_equal(drawn("c", "a"), [every[2], every[0]])
    different = [*every, drawn("a", seed=1)[0], drawn("a", kind="glcic_box")[0]]
    for one, other in itertools.combinations(different, 2):
        assert (one != other).any()


def test_spaces_make_no_other_kind_of_masks():
    kinds = evaluate._split("sr2x, free_form(strokes=(2, 4)),free_form(strokes=(2,4))")
    assert kinds[:2] == ["sr2x", "free_form(strokes=(2, 4))"]
    found = [squares.kind(kind) for kind in kinds]
    assert found == ["super_resolve_2x", *2 * ["free_form(strokes=(2, 4))"]]
    folders = {squares.folder_of(kind) for kind in (*found, "free_form")}
    assert len(folders) == 3


# Going on


def test_two_runs_are_the_same_bytes_and_one_that_is_there_is_left_alone(
    whole, begun, photos, learned, tmp_path, monkeypatch
):
    asked = ["--methods", "mean_color,harmonic", "--checkpoint", f"net={learned}"]
    assert run(photos, tmp_path / "again", *asked) == 0
    timed = "seconds.json"
    first, second = contents(whole), contents(tmp_path / "again")
    assert first.pop(timed)
    assert second.pop(timed)
    assert first == second

    def fail(*arguments):
        raise AssertionError("nothing is to be filled")

    monkeypatch.setattr(filling.Filler, "__call__", fail)
    before = contents(begun)
    assert run(photos, begun, *asked) == 0
    assert contents(begun) == before


def test_an_interrupted_evaluation_goes_on_to_the_same_table(
    whole, photos, tmp_path, monkeypatch
):
    output, wrote = tmp_path / "eval", []
    real = filling.write_picture

    def write(path, picture):
        if len(wrote) == 3 + 9 + 9:
            raise KeyboardInterrupt
        wrote.append(path)
        real(path, picture)

    asked = ["--methods", "mean_color,harmonic"]
    with monkeypatch.context() as patch:
        patch.setattr(filling, "write_picture", write)
        assert run(photos, output, *asked) == 130
    assert not (output / "rows.jsonl").exists()
    kept = {path: path.stat().st_mtime_ns for path in wrote}
    assert run(photos, output, *asked) == 0
    assert {path: path.stat().st_mtime_ns for path in wrote} == kept
    others = [line for line in rows(whole) if line["method"] != "net"]
    assert rows(output) == others
    for path in output.glob("results/*/*/*.png"):
        same = whole / path.relative_to(output)
        assert path.read_bytes() == same.read_bytes()


def test_draws_do_not_depend_on_interruptions(tmp_path):
    """Nor do batches share them."""

    class Noise:
        size = 2

        def compile(self, side):
            pass

        def __call__(self, pixels, holes, key):
            found = jax.random.bits(key, pixels.shape, np.uint8)
            return np.where(holes[..., None], np.asarray(found), pixels)

    names = ["a", "b", "c", "d", "e"]
    pixels, holes = np.zeros((5, 8, 8, 3), np.uint8), np.ones((5, 8, 8), bool)

    def fill(folder: Path) -> list[np.ndarray]:
        noise: Any = Noise()
        key = jax.random.key(0)
        filling.fill(noise, names, pixels, holes, folder, key, lambda count: None)
        return [read(folder / f"{name}.png") for name in names]

    first = fill(tmp_path)
    for name in "bde":
        (tmp_path / f"{name}.png").unlink()
    np.testing.assert_array_equal(fill(tmp_path), first)
    for one, other in itertools.combinations(first, 2):
        assert (one != other).any()


def test_further_rows_and_masks_join(whole, begun, photos):
    before = contents(begun / "results")
    given = ["--methods", "color=mean_color", "--masks", "center"]
    assert run(photos, begun, *given) == 0
    found = {(method, mask) for method, mask, _ in table(begun)}
    # The new row has all masks; rows of before have those that they were asked for.
    assert {mask for method, mask in found if method == "color"} == {*KINDS, "center"}
    assert {mask for method, mask in found if method == "harmonic"} == set(KINDS)
    after = contents(begun / "results")
    assert {path: after[path] for path in before} == before
    for path in before:
        if path.startswith("mean_color"):
            assert after[path.replace("mean_color", "color")] == before[path]


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (["--size", 16], "size: 24 -> 16"),
        (["--seed", 3], "seed: 0 -> 3"),
        (["--limit", 5], "pictures: 9 -> 5, of which 4 of before are missing"),
        (["--methods", "harmonic=mean_color"], "harmonic.method: harmonic -> mean"),
        (
            ["--checkpoint", "net=NET", "--option", "net.normalize=True"],
            "net.options.normalize: None -> True",
        ),
    ],
)
def test_other_settings_are_refused_with_their_difference(
    begun, photos, learned, refused, flags, difference
):
    flags = [str(flag).replace("NET", str(learned)) for flag in flags]
    if "--methods" not in flags and "--checkpoint" not in flags:
        flags += ["--methods", "mean_color"]
    if "--size" not in flags:
        flags += ["--size", SIZE]
    before = contents(begun)
    error = refused("--data", photos, "--output", begun, *flags)
    assert difference in error
    assert "choose another --output" in error
    assert contents(begun) == before


def test_other_weights_and_pictures_are_refused(
    begun, photos, learned, tmp_path, refused
):
    before = contents(begun)
    changed = weights.read(learned)
    params = jax.tree.map(lambda x: x + 1, changed.params)
    weights.write(tmp_path / "b.safetensors", changed._replace(params=params))
    given = ["--output", begun, "--size", SIZE]
    other = f"net={tmp_path / 'b.safetensors'}"
    assert "net.weights: " in refused("--data", photos, *given, "--checkpoint", other)
    moved = shutil.copytree(photos, tmp_path / "moved")
    photo(moved / "deeper" / "3.png", seed=99)
    error = refused("--data", moved, *given, "--methods", "mean_color")
    assert "of which 1 of before are missing or different" in error
    assert contents(begun) == before


# Bad input


def test_unusable_pictures_are_named_and_the_others_measured(
    whole, photos, tmp_path, capsys
):
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    (data / "broken.png").write_bytes(b"no picture")
    photo(data / "small.png", 0, height=20)
    assert run(data, tmp_path / "eval", "--methods", "mean_color") == 3
    error = capsys.readouterr().err
    assert "error: 2 pictures or results are missing:\n" in error
    assert "broken.png" in error
    assert "small.png is 26x20; want at least 24 pixels a side" in error
    others = [row for row in rows(whole) if row["method"] == "mean_color"]
    assert rows(tmp_path / "eval") == others


GOOD = ["--data", "DATA", "--output", "OUT", "--size", SIZE, "--methods", "mean_color"]

LOW = [*GOOD, "--methods", "iterated_denoising", "--option"]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (GOOD[2:], "--data is missing"),
        (["--data", "DATA", "--methods", "harmonic"], "--output is missing"),
        (GOOD[:6], "nothing to measure"),
        ([*GOOD, "--data", "nowhere"], "nowhere does not exist"),
        ([*GOOD, "--size", 27], "none of 9 pictures can be used: "),
        ([*GOOD, "--size", 4], "--size is 4; want at least 8"),
        ([*GOOD, "--num-samples", 0], "--num-samples is 0; want at least 1"),
        ([*GOOD, "--methods", "harmonik"], "did you mean 'harmonic'?"),
        ([*GOOD, "--methods", "a/b=harmonic"], "'a/b' is no label"),
        ([*GOOD, "--methods", "harmonic,harmonic"], "has 'harmonic' twice"),
        ([*GOOD, "--masks", "wyde"], "did you mean 'wide'?"),
        ([*GOOD, "--masks", "free_form(a=1)"], "unknown option of mask kind"),
        ([*GOOD, "--masks", ""], "--masks is empty"),
        ([*GOOD, "--metrics", "psnrr"], "did you mean 'psnr'?"),
        ([*GOOD, "--checkpoint", "net"], "--checkpoint is 'net'; want LABEL=PATH"),
        ([*GOOD, "--checkpoint", "net=nowhere"], "nowhere"),
        ([*GOOD, *2 * ["--predictions", "a=DATA"]], "--predictions has 'a' twice"),
        ([*GOOD, "--option", "harmonik.a=1"], "unknown row in --option 'harmonik'"),
        ([*GOOD, "--option", "mean_color.a=1"], "has no options"),
        ([*LOW, "iterated_denoising.passes=0"], "passes is 0; want 1 or more"),
        ([*GOOD, "--predictions", "other=nowhere"], "nowhere is no folder"),
        ([*GOOD, "--predictions", "mean_color=DATA"], "a method and predictions"),
        ([*GOOD, "--features", "nowhere.npz"], "nowhere.npz does not exist"),
        ([*GOOD, "--lpips-trunk", "a.pth"], "LPIPS wants at least 32"),
        (["--output", "DATA/deeper/eval", *GOOD[:2], *GOOD[4:]], "lies in --data"),
        ([*GOOD, "--pairs", "mean_color,mean_color"], "want two rows, A,B"),
        ([*GOOD, "--pairs", "mean_color"], "want two rows, A,B"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_written(
    photos, tmp_path, refused, flags, why
):
    names = {"DATA": str(photos), "OUT": str(tmp_path / "eval")}
    given = list(map(str, flags))
    for short, name in names.items():
        given = [word.replace(short, name) for word in given]
    assert why in refused(*given)
    assert not (tmp_path / "eval").exists()


def test_a_learned_method_needs_weights(photos, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(sample, "WEIGHTS", tmp_path)
    out = tmp_path / "eval"
    flags = ["--data", photos, "--size", 24, "--output", out, "--masks", "half"]
    flags += ["--methods", "context_encoder"]
    assert "is learned and has no weights" in refused(*map(str, flags))
    assert not out.exists()


def test_dry_run_says_what_would_be_done_and_writes_nothing(photos, tmp_path, capsys):
    asked = ["--methods", "mean_color,harmonic", "--num-samples", 2, "--dry-run"]
    assert run(photos, tmp_path / "eval", *asked) == 0
    text = capsys.readouterr().out
    assert text == (
        "9 pictures of 24x24, 0 left out; masks: half, expand; "
        "rows: mean_color, harmonic; 72 results\n"
    )
    assert not (tmp_path / "eval").exists()


# Results of other programs, samples, features


def test_results_of_other_programs_score_as_our_own(begun, photos, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(begun / "results" / "harmonic", other)
    # What they make of known pixels is of no account.
    name = "deeper__4.png"
    spoiled, hole = read(other / "half" / name), read(begun / "masks/half" / name) > 0
    Image.fromarray(np.where(hole[..., None], spoiled, 7)).save(other / "half" / name)
    assert run(photos, begun, "--predictions", f"other={other}") == 0

    def scores_of(label: str) -> list[dict]:
        found = [row for row in rows(begun) if row.pop("method") == label]
        assert found
        return found

    assert scores_of("other") == scores_of("harmonic")
    # Missing and misshaped ones are named, the rest is measured.
    (other / "half" / "deeper__2.png").unlink()
    photo(other / "expand" / "deeper__5.png", 0, height=SIZE, width=25)
    capsys.readouterr()
    assert run(photos, begun, "--predictions", f"other={other}") == 3
    error = capsys.readouterr().err
    assert "error: 2 pictures or results are missing:\n" in error
    assert f"{other / 'half' / 'deeper__2.png'}" in error
    assert "deeper__5.png is 25x24; want 24x24" in error
    assert table(begun)["other", "half", "psnr"]["pictures"] == "8"


def test_samples_have_a_diversity(photos, tmp_path):
    output = tmp_path / "eval"
    asked = ["--methods", "mean_color", "--masks", "half", "--num-samples", 2]
    assert run(photos, output, *asked) == 0
    # A method without chance answers twice the same.
    assert float(table(output)["mean_color", "half", "diversity"]["value"]) == 0
    for path in output.glob("results/mean_color/half/sample_01/*.png"):
        hole = read(output / "masks" / "half" / path.name) > 0
        Image.fromarray(np.where(hole[..., None], np.uint8(0), read(path))).save(path)
        first = path.parent.parent / path.name
        Image.fromarray(np.where(hole[..., None], np.uint8(51), read(first))).save(
            first
        )
    # They count whatever is asked for next time, unless they are incomplete.
    assert run(photos, output, *asked[:4]) == 0
    found = table(output)["mean_color", "half", "diversity"]
    assert float(found["value"]) == pytest.approx(0.2, rel=1e-4)
    next(output.glob("results/mean_color/half/sample_01/*.png")).unlink()
    assert run(photos, output, *asked[:4]) == 0
    assert ("mean_color", "half", "diversity") not in table(output)


def test_features_are_computed_once(tmp_path):
    calls = []

    def describe(batch):
        calls.append(len(batch))
        return batch.reshape(len(batch), -1)[:, :5]

    pictures = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    network, kept = Network("n", "kd", "fd", True, "one", describe), tmp_path / "a.npz"
    first = descriptions.features(network, pictures[:18], kept)
    want = pictures[:18].reshape(18, -1)[:, :5] / 127.5 - 1
    np.testing.assert_allclose(first, want, atol=1e-6)
    known = len(calls)
    turned = descriptions.features(network, pictures[17::-1], kept)
    np.testing.assert_array_equal(turned, first[::-1])
    assert len(calls) == known
    more = descriptions.features(network, pictures, kept)
    np.testing.assert_array_equal(more[:18], first)
    assert len(calls) == known + 1
    # Not those of another network, and not out of a damaged file.
    descriptions.features(network._replace(checksum="other"), pictures[:1], kept)
    assert len(calls) == known + 2
    kept.write_bytes(b"PK damaged")
    descriptions.features(network, pictures[:1], kept)
    assert len(calls) == known + 3


# Tables


def figures(metric: str, values: dict[str, float]) -> list[Figure]:
    return [
        Figure(method, "half", metric, value, Interval(value - 1, value + 1), 4)
        for method, value in values.items()
    ]


def test_the_best_is_bold_and_the_second_underlined():
    values = {"a": 20.0, "b_c": 30.0, "d": 25.0}
    text = tables.markdown(figures("psnr", values), ["psnr"])
    assert "(higher is better)" in text
    assert "| `b_c` | **30.00** [29.00, 31.00] |" in text
    assert text.count("**") == 2
    latex = tables.latex(figures("psnr", values), ["psnr"])
    assert r"b\_c & \textbf{30.00} \\" in latex
    assert r"d & \underline{25.00} \\" in latex
    assert r"a & 20.00 \\" in latex
    lower = tables.latex(figures("hole_l1", values), ["hole_l1"])
    assert r"a & \textbf{20.0000} \\" in lower
    assert r"d & \underline{25.0000} \\" in lower


def test_comma_separated_figures_are_complete():
    text = tables.comma_separated(figures("psnr", {"a": 20.123456789}))
    assert text.splitlines() == [
        "method,mask,metric,value,low,high,pictures",
        "a,half,psnr,20.1235,19.1235,21.1235,4",
    ]


# User studies


def ballot(path: Path, study: str, votes: dict[str, str]) -> Path:
    path.write_text(json.dumps({"study": study, "votes": votes}))
    return path


def test_votes_for_one_row_are_counted_as_its_own(begun, capsys, tmp_path):
    assert main(["evaluate", "--output", str(begun), "--pairs", "harmonic,net"]) == 0
    study = begun / "study"
    key = json.loads((study / "key.json").read_text())
    assert len(key["pairs"]) == 2 * 9
    lefts = [pair["left"] for pair in key["pairs"].values()]
    assert 0 < lefts.count("harmonic") < len(lefts)
    masks = [pair["mask"] for pair in key["pairs"].values()]
    assert masks != sorted(masks)
    # The page shows what the key says: hole, left, right.
    for name, pair in key["pairs"].items():
        sheet = read(study / "pairs" / f"{name}.png")
        path = begun / "results" / pair["left"] / pair["mask"]
        shown = pairs._beside([read(path / f"{pair['picture']}.png")] * 3)
        side = (sheet.shape[1] - 16) // 3
        middle = np.s_[:, side + 8 : 2 * side + 8]
        np.testing.assert_array_equal(sheet[middle], shown[middle])
        assert name in (study / "study.html").read_text()
    assert key["study"] in (study / "study.html").read_text()
    assert "harmonic" not in (study / "study.html").read_text()

    sides = {
        name: "left" if pair["left"] == "harmonic" else "right"
        for name, pair in key["pairs"].items()
    }
    one = ballot(tmp_path / "one.json", key["study"], sides)
    (_, _), shares = pairs.count(study, [one])
    assert [(s.mask, s.first, s.votes) for s in shares] == [
        ("expand", 9, 9),
        ("half", 9, 9),
        ("all", 18, 18),
    ]
    assert all(s.interval.low < 1 and s.interval.high >= 1 - 1e-9 for s in shares)
    few = dict(itertools.islice(sides.items(), 4))
    turned = {k: {"left": "right", "right": "left"}[v] for k, v in few.items()}
    two = ballot(tmp_path / "two.json", key["study"], turned)
    capsys.readouterr()
    assert (
        main(["evaluate", "--output", str(begun), "--votes", str(one), str(two)]) == 0
    )
    text = capsys.readouterr().out
    assert "| masks | votes | harmonic rather than net | 95 % interval |" in text
    assert "| all | 22 | 81.8 % |" in text


@pytest.mark.parametrize(
    ("ballots", "why"),
    [
        ({"study": "other", "votes": {"0001": "left"}}, "belongs to study other"),
        ({"votes": {"0001": "up"}}, "has the vote 0001: up"),
        ({"votes": {"9999": "left"}}, "has the vote 9999: left"),
        ({"votes": {}}, "there are no votes"),
        ({"votes": ["left"]}, "has no votes"),
        ([], "holds no object"),
    ],
)
def test_votes_that_do_not_belong_are_refused(tmp_path, ballots, why):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pair = pairs.Pair("half", "a", pixels, pixels, pixels)
    pairs.write(tmp_path, ("x", "y"), [pair], seed=0)
    study = json.loads((tmp_path / "key.json").read_text())["study"]
    if isinstance(ballots, dict):
        ballots = {"study": study, **ballots}
    path = tmp_path / "votes.json"
    path.write_text(json.dumps(ballots))
    with pytest.raises(InputError, match=why):
        pairs.count(tmp_path, [path])


def test_a_study_wants_rows_that_are_there(begun, photos, tmp_path, refused):
    error = refused("--output", begun, "--pairs", "harmonic,nett")
    assert "unknown row in --pairs 'nett'; did you mean 'net'?" in error
    given = ["--data", photos, "--output", begun, "--size", SIZE, "--masks", "half"]
    error = refused(*given, "--methods", "color=mean_color", "--pairs", "color,nett")
    assert "unknown row in --pairs 'nett'; did you mean 'net'?" in error
    assert not (begun / "results" / "color").exists()
    error = refused("--output", tmp_path / "none", "--pairs", "harmonic,net")
    assert "holds no evaluation" in error
    error = refused("--output", begun, "--votes", tmp_path / "none.json")
    assert "key.json does not exist" in error


# The whole command


@pytest.mark.integration
def test_a_killed_evaluation_goes_on_to_the_same_table(photos, tmp_path):
    def command(output: Path) -> subprocess.Popen:
        program = "import sys; from jaxpaint.cli.main import main; sys.exit(main())"
        flags = ["--data", photos, "--output", output, "--size", SIZE]
        flags += ["--methods", "mean_color,harmonic", "--masks", ",".join(KINDS)]
        words = ["evaluate", *map(str, flags), "--batch-size", "1", "--quiet"]
        return subprocess.Popen(
            [sys.executable, "-c", program, *words],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
        )

    assert command(tmp_path / "whole").wait(300) == 0
    output = tmp_path / "killed"
    process = command(output)
    end = time.monotonic() + 300
    while not any(output.glob("results/*/*/*.png")) and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    kept = {p: p.stat().st_mtime_ns for p in output.glob("results/*/*/*.png")}
    assert 0 < len(kept) < 2 * len(KINDS) * 9
    assert not (output / "rows.jsonl").exists()
    assert command(output).wait(300) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for name in ("rows.jsonl", "table.csv", "table.md", "table.tex", "grid.png"):
        again = (output / name).read_bytes()
        assert again == (tmp_path / "whole" / name).read_bytes()
