"""The command line: flags, files, errors and exit codes.

Most tests put a quick stand-in in the place of `jaxpaint.inpainting`: they are about
what the command does with its files. The last one runs the real thing.
"""

import importlib
import inspect
import io
import json
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxpaint import methods
from jaxpaint.cli import catalogue, max_side, sample
from jaxpaint.cli.main import COMMANDS, main
from jaxpaint.cli.progress import Progress
from jaxpaint.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
RNG = np.random.default_rng(0)


@pytest.fixture
def calls(monkeypatch) -> list:
    """Puts a stand-in in the place of the core and returns the list of its calls."""
    calls = []

    def inpaint(image, mask, method, key, *, options, params, sketch, progress):
        calls.append(
            SimpleNamespace(image=image, mask=mask, options=options, sketch=sketch)
        )
        progress(1, 2)
        value = jax.random.randint(key, (), 0, 256)
        progress(2, 2)
        return np.where(
            mask[..., None] if image.ndim == 3 else mask, value, image
        ).astype(np.uint8)

    monkeypatch.setitem(
        sys.modules, "jaxpaint.inpainting", SimpleNamespace(inpaint=inpaint)
    )
    return calls


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty current folder, with a picture `a.png` and its mask `m.png`."""
    monkeypatch.chdir(tmp_path)
    picture("a.png")
    mask("m.png")
    return tmp_path


def picture(
    path: str, height: int = 12, width: int = 16, channels: int = 3
) -> np.ndarray:
    """Writes random pixels; returns them."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def mask(
    path: str, height: int = 12, width: int = 16, hole=np.s_[3:6, 4:9]
) -> np.ndarray:
    """Writes a mask with the hole in white; returns it as boolean."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((height, width), bool)
    values[hole] = True
    Image.fromarray(values.astype(np.uint8) * 255).save(path)
    return values


def write_bomb(path: str) -> None:
    """Writes a small PNG whose header claims 3600 megapixels."""
    picture(path)
    data = bytearray(Path(path).read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    Path(path).write_bytes(data)


def run(command: str) -> int:
    return main(["sample", "--method", "harmonic", *command.split()])


def read(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def tree() -> set[str]:
    """Returns the names of all files below the current folder."""
    return {str(p) for p in Path(".").rglob("*") if not p.is_dir()}


# Results


def test_known_pixels_are_the_same_bytes_and_the_hole_is_filled(folder, calls, capsys):
    before, hole = read("a.png"), read("m.png") > 0
    assert run("--image a.png --mask m.png --output out/b.png") == 0
    after = read("out/b.png")
    np.testing.assert_array_equal(after[~hole], before[~hole])
    assert (after[hole] == after[hole][0]).all()
    assert capsys.readouterr().out == "out/b.png\n"
    assert tree() == {"a.png", "m.png", "out/b.png"}


def test_grey_stays_grey_and_alpha_comes_back(folder, calls):
    grey, rgba = picture("grey.png", channels=1), picture("rgba.png", channels=4)
    assert run("--image grey.png --mask m.png") == 0
    assert run("--image rgba.png --mask m.png") == 0
    assert read("output/grey.png").shape == grey.shape
    np.testing.assert_array_equal(read("output/rgba.png")[..., 3], rgba[..., 3])
    assert [call.image.shape for call in calls] == [(12, 16), (12, 16, 3)]


def test_transparent_pixels_as_the_hole_become_opaque(folder, calls):
    pixels = picture("a.png", channels=4)
    pixels[..., 3] = 200
    pixels[2:5, 3:7, 3] = 0
    Image.fromarray(pixels).save("a.png")
    assert run("--image a.png --mask alpha") == 0
    after, hole = read("output/a.png"), pixels[..., 3] == 0
    np.testing.assert_array_equal(calls[0].mask, hole)
    np.testing.assert_array_equal(after[~hole], pixels[~hole])
    assert (after[hole][:, 3] == 255).all()


def test_invert_mask(folder, calls):
    assert run("--image a.png --mask m.png --invert-mask") == 0
    np.testing.assert_array_equal(calls[0].mask, read("m.png") == 0)


def test_resize_mask(folder, calls):
    big = mask("big.png", 24, 32)
    assert run("--image a.png --mask big.png") == 2
    assert run("--image a.png --mask big.png --resize-mask") == 0
    np.testing.assert_array_equal(calls[0].mask, big[1::2, 1::2])


def test_empty_mask_copies_the_input_with_a_warning(folder, calls, capsys):
    mask("none.png", hole=np.s_[:0])
    assert run("--image a.png --mask none.png") == 0
    assert "warning: none.png marks no hole" in capsys.readouterr().err
    np.testing.assert_array_equal(read("output/a.png"), read("a.png"))
    assert not calls


def test_large_hole_asks_whether_the_mask_is_inverted(folder, calls, capsys):
    mask("most.png", hole=np.s_[1:])
    assert run("--image a.png --mask most.png") == 0
    assert "most.png marks 92% of the picture" in (err := capsys.readouterr().err)
    assert err.count("inverted") == 1


def test_figures_show_the_hole_and_the_results_side_by_side(folder, calls):
    hole = read("m.png") > 0
    assert run("--image a.png --mask m.png --num-samples 2 --save masked,compare") == 0
    masked, compare = read("output/a_masked.png"), read("output/a_compare.png")
    np.testing.assert_array_equal(masked[~hole], read("a.png")[~hole])
    assert (masked[hole] == [255, 0, 255]).all()
    np.testing.assert_array_equal(compare[:, :16], masked)
    np.testing.assert_array_equal(compare[:, 24:40], read("output/a_00.png"))
    np.testing.assert_array_equal(compare[:, 48:], read("output/a_01.png"))


def test_the_deviation_of_samples_is_drawn(folder, calls):
    hole = read("m.png") > 0
    assert run("--image a.png --mask m.png --output s --num-samples 3") == 0
    samples = np.stack([read(f"s/a_{number:02d}.png") for number in range(3)])
    drawn = read("s/a_deviation.png").astype(np.float32)
    want = 2 * samples.std(axis=0).mean(axis=-1, keepdims=True)
    assert np.abs(drawn - np.minimum(want, 255)).max() <= 0.51
    assert drawn[hole].any()
    assert not drawn[~hole].any()
    assert run("--image a.png --mask m.png --output t") == 0
    assert not Path("t/a_deviation.png").exists()


def test_lossy_formats_say_so_once(folder, calls, capsys):
    picture("i/a.png")
    picture("i/b.png")
    assert run("--image i --mask m.png --format jpg --quality 30 --output o") == 0
    assert capsys.readouterr().err.count("change known pixels") == 1
    assert tree() >= {"o/a.jpg", "o/b.jpg"}


def test_pictures_are_turned_upright(folder, calls):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture("a.jpg", 16, 12)).save("a.jpg", exif=exif)
    assert run("--image a.jpg --mask m.png --format same") == 0
    with Image.open("output/a.jpg") as image:
        assert image.size == (16, 12)
        assert image.getexif().get(0x0112, 1) == 1


# Seeds


def test_same_seed_same_picture_whatever_else_is_in_the_folder(folder, calls):
    for name in "abc":
        picture(f"i/{name}.png")
    assert run("--image i --mask m.png --output many --seed 7") == 0
    assert run("--image i/b.png --mask m.png --output one --seed 7") == 0
    assert run("--image i/b.png --mask m.png --output other --seed 8") == 0
    assert (read("many/b.png") == read("one/b.png")).all()
    assert (read("many/b.png") != read("other/b.png")).any()


def test_samples_differ_and_the_first_is_that_of_a_single_run(folder, calls):
    assert run("--image a.png --mask m.png --output s --num-samples 3") == 0
    assert run("--image a.png --mask m.png --output s") == 0
    samples = [read(f"s/a_{number:02d}.png") for number in range(3)]
    assert (samples[0] != samples[1]).any()
    assert (samples[1] != samples[2]).any()
    assert (samples[0] == read("s/a.png")).all()


# Folders


def test_folder_with_a_folder_of_masks(folder, calls, capsys):
    for name in ("a.JPG", "b.webp"):
        picture(f"i/{name}")
    for name in ("a.png", "b_mask1.png", "b_mask2.png"):
        mask(f"m/{name}")
    assert run("--image i --mask m --output o --dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        "i/a.JPG\tm/a.png\to/a.png",
        "i/b.webp\tm/b_mask1.png\to/b_mask1.png",
        "i/b.webp\tm/b_mask2.png\to/b_mask2.png",
    ]
    assert not Path("o").exists()
    assert run("--image i --mask m --output o") == 0
    assert len(list(Path("o").iterdir())) == 3


def test_a_sketch_goes_with_its_picture(folder, calls, monkeypatch, capsys):
    for name in ("a", "b"):
        picture(f"i/{name}.png")
        mask(f"s/{name}.png", hole=np.s_[4, 2:9] if name == "a" else np.s_[5, 3])
    assert run("--image a.png --mask m.png --sketch s/a.png") == 2
    assert "method 'harmonic' takes no sketch" in one_error(capsys)
    harmonic = methods.make("harmonic")
    led = harmonic._replace(guided=lambda *inputs: inputs[1])
    monkeypatch.setattr(methods, "make", lambda *name, **options: led)
    assert run("--image i --mask m.png --sketch s") == 0
    assert [call.sketch.sum() for call in calls] == [7, 1]
    assert run("--image i --mask m.png --sketch s/b.png --overwrite") == 0
    assert [call.sketch.sum() for call in calls[2:]] == [1, 1]
    capsys.readouterr()
    mask("small.png", 4, 5)
    Path("s/b.png").unlink()
    for flags, words in (
        ("--image a.png --sketch small.png", "small.png is 5x4 but a.png is 16x12"),
        ("--image i --sketch s", "i/b.png has no sketch in s"),
        ("--image a.png --sketch none.png", "none.png does not exist"),
        ("--image a.png --sketch s/a.png --max-side 64", "exclude each other"),
    ):
        assert run(f"{flags} --mask m.png --output new") == 2
        assert words in one_error(capsys)
    assert len(calls) == 4


def test_a_sketch_finds_the_weights_that_lines_lead(folder):
    before = np.zeros((64, 64, 3), np.uint8) + np.uint8(60)
    before[32:] = 190
    Image.fromarray(before).save("a.png")
    hole = mask("m.png", 64, 64, np.s_[20:44, 20:44])
    mask("line.png", 64, 64, np.s_[26, 20:44])
    mask("none.png", 64, 64, np.s_[:0])
    given = ["sample", "--image", "a.png", "--mask", "m.png"]
    for name in ("line", "none"):
        flags = ["--sketch", f"{name}.png", "--output", f"o/{name}.png"]
        assert main([*given, *flags]) == 0
    led, free = (read(f"o/{name}.png").astype(int) for name in ("line", "none"))
    assert abs(led - free).max() > 10
    np.testing.assert_array_equal(led[~hole], before[~hole])


def test_bad_items_are_listed_and_the_rest_is_done(folder, calls, capsys):
    for name in ("good", "lone", "size", "cut", "full"):
        picture(f"i/{name}.png")
        mask(f"m/{name}.png")
    Path("m/lone.png").unlink()
    mask("m/size.png", 5, 5)
    mask("m/full.png", hole=np.s_[:])
    Path("i/cut.png").write_bytes(Path("i/cut.png").read_bytes()[:200])
    Path("i/empty.png").touch()
    mask("m/empty.png")
    mask("m/of_nothing.png")
    assert run("--image i --mask m --output o") == 3
    assert {p.name for p in Path("o").iterdir()} == {"good.png"}
    out, err = capsys.readouterr()
    assert out == "o/good.png\n"
    assert "warning: 1 masks belong to no picture: m/of_nothing.png" in err
    assert err[err.index("error:") :].splitlines() == [
        "error: 5 of 6 were not done:",
        "  i/lone.png has no mask in m",
        "  i/empty.png is empty (0 bytes); want a picture",
        "  m/size.png is 5x5 but i/size.png is 16x12; use --resize-mask",
        err.splitlines()[-2],
        "  m/full.png marks all of the picture as hole; white is hole, try "
        "--invert-mask if it means the opposite",
    ]
    assert err.splitlines()[-2].startswith("  i/cut.png is damaged or truncated")


def test_an_unexpected_error_in_a_folder_does_not_stop_it(folder, monkeypatch, capsys):
    def inpaint(image, *rest, **options):
        if image.shape[0] == 12:
            raise RuntimeError("out of memory\nand so on")
        return image

    monkeypatch.setitem(
        sys.modules, "jaxpaint.inpainting", SimpleNamespace(inpaint=inpaint)
    )
    picture("i/a.png")
    picture("i/b.png", 24, 32)
    assert run("--image i --mask m.png --resize-mask --output o") == 3
    assert "  i/a.png: RuntimeError: out of memory\n" in capsys.readouterr().err
    assert Path("o/b.png").exists()


def test_a_folder_in_which_nothing_can_be_done_is_an_input_error(folder, calls, capsys):
    for name in "ab":
        picture(f"i/{name}.png", 5, 5)
    assert run("--image i --mask m.png --output o") == 2
    assert "none of 2 can be done" in one_error(capsys)
    assert not Path("o").exists()


def test_skip_existing_writes_only_what_is_missing(folder, calls, capsys):
    for name in "abc":
        picture(f"i/{name}.png")
    command = "--image i --mask m.png --output o --num-samples 2"
    assert run(command) == 0
    Path("o/b_00.png").unlink()
    Path("o/a_01.png").unlink()
    mine = picture("o/a_01.png")
    calls.clear()
    assert run(command) == 2
    assert run(f"{command} --skip-existing") == 0
    assert len(calls) == 1
    assert Path("o/b_00.png").exists()
    assert run(f"{command} --skip-existing") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert run(f"{command} --skip-existing --save compare") == 0
    assert len(calls) == 1
    np.testing.assert_array_equal(read("o/a_01.png"), mine)
    np.testing.assert_array_equal(read("o/a_compare.png")[:, 48:], mine)
    assert run(f"{command} --overwrite") == 0
    assert (read("o/a_01.png") != mine).any()


# Errors


def one_error(capsys) -> str:
    """Returns the last line on stderr, checking that it is the only error."""
    err = capsys.readouterr().err
    assert err.count("error") == err.count("error: ") == 1, err
    assert "Traceback" not in err
    return err.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--image none.png --mask m.png", "none.png does not exist"),
        ("--image a.png --mask none.png", "none.png does not exist"),
        ("--image a.png", "--mask is missing"),
        ("--mask m.png", "--image is missing"),
        ("--image zero.png --mask m.png", "zero.png is empty (0 bytes)"),
        ("--image text.png --mask m.png", "text.png is not a picture"),
        ("--image cut.png --mask m.png", "cut.png is damaged or truncated"),
        ("--image bomb.png --mask m.png", "bomb.png is too large"),
        ("--image a.png --mask cut.png", "cut.png is damaged or truncated"),
        ("--image a.png --mask small.png", "small.png is 5x4 but a.png is 16x12; use"),
        ("--image a.png --mask full.png", "full.png marks all of the picture as hole"),
        ("--image a.png --mask alpha", "a.png has no transparency"),
        ("--image rgba.png --mask m.png --format jpg", "cannot hold the transparency"),
        ("--image a.png --mask m.png --output old.png", "old.png exists; use --overwr"),
        ("--image a.png --mask m.png --output a.png --overwrite", "a.png is an input"),
        ("--image a.png --mask m.png --output x.gif", "x.gif: cannot write .gif; want"),
        (
            "--image a.png --mask m.png --output text.txt/x",
            "cannot write to text.txt/x",
        ),
        (
            "--image a.png --mask m.png --output /proc/x/y.png",
            "cannot write to /proc/x",
        ),
        ("--image d --mask m.png --output x.png", "x.png is one file"),
        ("--image twins --mask m.png", "same stem"),
        ("--image d --mask empty", "empty holds no picture"),
        ("--image a.png --mask m.png --method harmnic", "did you mean 'harmonic'?"),
        ("--image a.png --mask m.png --option toleranc=1", "mean 'tolerance'?"),
        ("--image a.png --mask m.png --option tolerance=hi", "is 'hi'; want float"),
        ("--image a.png --mask m.png --option 3", "want NAME=VALUE"),
        ("--image a.png --mask m.png --overwrit", "did you mean '--overwrite'?"),
        ("--image a.png --mask m.png --output", "expected one argument"),
        ("--image a.png m.png", "unrecognized arguments: m.png"),
        ("--image a.png --mask m.png --seed 4294967296", "want a whole number from 0"),
        ("--image a.png --mask m.png --num-samples 0", "want a whole number from 1"),
        ("--image a.png --mask m.png --quality high", "want a whole number from 1 to"),
        ("--image a.png --mask m.png --format gif", "invalid choice: 'gif'"),
        ("--image a.png --mask m.png --save compar", "did you mean 'compare'?"),
        ("--image a.png --mask m.png --overwrite --skip-existing", "not allowed with"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder, calls, capsys, command, message
):
    picture("rgba.png", channels=4)
    picture("old.png")
    for name in ("d/a.png", "d/b.png", "twins/a.png", "twins/a.jpg"):
        picture(name)
    mask("small.png", 4, 5)
    mask("full.png", hole=np.s_[:])
    Path("empty").mkdir()
    Path("text.txt").write_text("some text")
    Path("text.png").write_text("some text")
    Path("zero.png").touch()
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:300])
    write_bomb("bomb.png")
    before = tree()
    assert run(command) == 2
    assert message in one_error(capsys)
    assert tree() == before
    assert not calls


@pytest.mark.parametrize(
    "argv", [["smaple"], ["--verson"], ["sample", "--methdo", "x"]]
)
def test_unknown_words_get_the_nearest_name(argv, capsys):
    assert main(argv) == 2
    assert "did you mean" in one_error(capsys)


def test_unexpected_error_is_one_line_with_a_hint(folder, monkeypatch, capsys):
    def inpaint(*arguments, **options):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setitem(
        sys.modules, "jaxpaint.inpainting", SimpleNamespace(inpaint=inpaint)
    )
    assert run("--image a.png --mask m.png --quiet") == 1
    expected = "error: RuntimeError: first line (unexpected; --debug shows where)\n"
    assert capsys.readouterr().err == expected
    assert run("--image a.png --mask m.png --debug") == 1
    assert "Traceback" in capsys.readouterr().err
    assert tree() == {"a.png", "m.png"}


def test_ctrl_c_is_130_and_leaves_nothing(folder, monkeypatch, capsys):
    def inpaint(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setitem(
        sys.modules, "jaxpaint.inpainting", SimpleNamespace(inpaint=inpaint)
    )
    assert run("--image a.png --mask m.png") == 130
    assert "Traceback" not in capsys.readouterr().err
    assert tree() == {"a.png", "m.png"}


def test_ctrl_c_is_heard_while_jax_computes(folder):
    script = """if True:
        import os, signal, sys, threading, types
        import jax
        from jaxpaint.cli.main import main

        # A shell that runs the tests in the background has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def inpaint(image, *rest, **options):
            interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)
            threading.Timer(0.5, interrupt).start()
            forever = jax.jit(lambda x: jax.lax.while_loop(lambda x: x < 1, abs, x))
            return forever(0.0).block_until_ready()

        sys.modules["jaxpaint.inpainting"] = types.SimpleNamespace(inpaint=inpaint)
        sys.argv[1:] = "sample --image a.png --mask m.png --method harmonic".split()
        sys.exit(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 130
    assert done.stderr.endswith("interrupted\n")
    assert tree() == {"a.png", "m.png"}


def test_a_write_that_fails_leaves_no_partial_file(folder, calls, monkeypatch):
    def save(self, file, *arguments, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    assert run("--image a.png --mask m.png") == 1
    assert tree() == {"a.png", "m.png"}


def test_errors_of_the_core_name_the_picture(folder, monkeypatch, capsys):
    def inpaint(*arguments, **options):
        raise InputError("the hole has no surroundings")

    monkeypatch.setitem(
        sys.modules, "jaxpaint.inpainting", SimpleNamespace(inpaint=inpaint)
    )
    assert run("--image a.png --mask m.png") == 2
    assert one_error(capsys) == "error: a.png: the hole has no surroundings"


def test_warnings_of_the_core_are_one_line(folder, monkeypatch, capsys):
    def inpaint(image, *arguments, **options):
        warnings.warn("something is odd", stacklevel=1)
        return image

    monkeypatch.setitem(
        sys.modules, "jaxpaint.inpainting", SimpleNamespace(inpaint=inpaint)
    )
    assert run("--image a.png --mask m.png --quiet") == 0
    assert capsys.readouterr().err == "warning: something is odd\n"


# Options of methods

TOY = '''"""A toy: the first line of its docstring.

More.
"""

def make(*, steps: int = 3, rate: float = 1e-4, name: str | None = None,
         size: tuple[int, int] = (1, 2), flip: bool = False, plain=4):
    pass
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "_private.py").touch()
    (tmp_path / "bare.py").write_text('"""Bare."""\n\ndef make():\n    pass\n')
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)


def test_methods_are_described_from_their_source(toy):
    assert catalogue.names() == ["bare", "toy"]
    assert catalogue.summary("toy") == "A toy: the first line of its docstring."
    assert catalogue.defaults("toy")["size"] == (1, 2)
    assert catalogue.describe_options("toy").startswith("steps: int = 3, rate: float")
    assert catalogue.options("bare") == {}


def test_options_are_python_literals_of_the_annotated_type(toy):
    settings = ["steps=5", "rate=1", "name=abc", "size=(3,4)", "flip=True", "plain=-1"]
    values = catalogue.parse_options("toy", settings)
    assert values == {
        "steps": 5,
        "rate": 1.0,
        "name": "abc",
        "size": (3, 4),
        "flip": True,
        "plain": -1,
    }
    assert type(values["rate"]) is float
    assert catalogue.parse_options("toy", ["name=None"]) == {"name": None}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps=1.5", r"option 'steps' of method 'toy' is 1.5; want int"),
        ("steps=True", "want int"),
        ("rate=fast", "is 'fast'; want float"),
        ("name=3", r"want str \| None"),
        ("size=3", r"want tuple\[int, int\]"),
        ("flip=1", "want bool"),
        ("plain=x", "want int"),
        ("step=1", "did you mean 'steps'"),
        ("steps", "want NAME=VALUE"),
    ],
)
def test_options_that_do_not_fit_are_refused(toy, setting, message):
    with pytest.raises(InputError, match=message):
        catalogue.parse_options("toy", [setting])


def test_odd_settings_are_refused(toy):
    with pytest.raises(InputError, match="given twice"):
        catalogue.parse_options("toy", ["steps=1", "steps=2"])
    with pytest.raises(InputError, match="'bare' has no options"):
        catalogue.parse_options("bare", ["steps=1"])


def test_the_catalogue_agrees_with_the_registered_methods():
    assert catalogue.names() == methods.names()
    for name in methods.names():
        signature = inspect.signature(
            importlib.import_module(f"jaxpaint.methods.{name}").make
        )
        of_sampling = [p for p in signature.parameters if p not in catalogue.TRAINING]
        assert list(catalogue.options(name)) == of_sampling
        assert catalogue.summary(name)
        methods.make(name, **catalogue.defaults(name))


def test_options_reach_the_core(folder, calls):
    assert run("--image a.png --mask m.png --option tolerance=1e-3") == 0
    assert calls[0].options == {"tolerance": 1e-3}


def test_config_is_printed_with_all_settings(folder, capsys):
    command = "--image a.png --mask m.png --option iterations=7 --seed 3 --print-config"
    assert run(command) == 0
    config = json.loads(capsys.readouterr().out)
    assert config["seed"] == 3
    assert config["image"] == "a.png"
    assert config["options"]["iterations"] == 7
    assert set(config["options"]) == set(catalogue.options("harmonic"))
    assert tree() == {"a.png", "m.png"}


def test_methods_are_listed(capsys):
    assert main(["sample", "--list-methods"]) == 0
    out = capsys.readouterr().out
    for name in methods.names():
        assert name in out
        assert catalogue.summary(name) in out


def test_info_names_methods_packages_licences_and_devices(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in methods.names())
    assert f"jax                     {jax.__version__:12}Apache-2.0" in out
    assert "cpu:7" in out


# The demonstration


def test_without_flags_the_shipped_photo_is_inpainted(
    folder, calls, capsys, monkeypatch
):
    monkeypatch.setattr(sample, "ASSETS", folder)
    picture("demo.jpg")
    mask("demo_mask.png")
    for _ in range(2):  # its own results may be replaced
        assert main(["sample", "--method", "harmonic"]) == 0
    results = {f"output/demo{end}.png" for end in ("", "_masked", "_compare")}
    assert {str(p) for p in Path("output").iterdir()} == results
    out = capsys.readouterr().out
    assert all(f" {path}\n" in out for path in (*results, folder / "demo.jpg"))


def test_without_flags_the_networks_that_come_with_it_are_shown(
    folder, calls, capsys, monkeypatch
):
    monkeypatch.setattr(sample, "ASSETS", folder)
    monkeypatch.setattr(sample, "WEIGHTS", folder)
    for name in ("demo.jpg", "comparison.png"):
        picture(name)
        mask(f"{name.split('.')[0]}_mask.png")
    assert main(["sample"]) == 0
    for name in sample.UNLEARNED:
        hole = read("comparison_mask.png") > 0
        result = read(f"output/networks/{name}.png")
        np.testing.assert_array_equal(result[~hole], read("comparison.png")[~hole])
    assert "output/networks.png" in capsys.readouterr().out
    # Four pictures in a row, enlarged 16 times, with their names above.
    assert read("output/networks.png").shape == (12 * 16 + 18, 4 * (256 + 8) - 8, 3)


# Large holes


def mean_fill(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    assert pixels.shape[:2] == hole.shape
    return np.where(hole[..., None], pixels[~hole].mean(0), pixels).astype(np.uint8)


def test_max_side_works_on_small_crops_and_pastes_only_the_hole():
    pixels = RNG.integers(0, 256, (400, 600, 3), dtype=np.uint8)
    hole = np.zeros((400, 600), bool)
    hole[10:20, 10:30] = True  # small: filled at full resolution
    hole[150:300, 300:500] = True
    sizes = []

    def fill(pixels, hole):
        sizes.append((hole.shape, hole.sum()))
        return mean_fill(pixels, hole)

    result = max_side.fill_within(pixels, hole, 100, fill)
    np.testing.assert_array_equal(result[~hole], pixels[~hole])
    assert (result[hole] != pixels[hole]).any(-1).mean() > 0.9
    assert sizes[0][0] == (88, 100)  # 350 x 400 with surroundings
    assert sizes[1] == ((400, 600), 200)


@pytest.mark.parametrize("channels", [1, 3])
def test_max_side_never_reads_the_hole(channels):
    shape = (200, 300, 3) if channels == 3 else (200, 300)
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    hole = np.zeros((200, 300), bool)
    hole[50:170, 90:201] = True
    hole[::9, ::4] = True
    other = pixels.copy()
    other[hole] = 255 - other[hole]

    def fill(pixels, hole):
        return np.where(
            hole[..., None] if pixels.ndim == 3 else hole, 7, pixels
        ).astype(np.uint8)

    first, second = (max_side.fill_within(p, hole, 64, fill) for p in (pixels, other))
    np.testing.assert_array_equal(
        first,
        np.where(hole.reshape(hole.shape + (1,) * (channels == 3)), second, pixels),
    )
    np.testing.assert_array_equal(first[hole], second[hole])


def test_max_side_leaves_thin_lines_solvable():
    pixels = np.full((300, 300, 3), 90, np.uint8)
    hole = np.zeros((300, 300), bool)
    hole[::4] = True  # at a tenth of the resolution every pixel has some hole
    pixels[hole] = 200
    result = max_side.fill_within(pixels, hole, 32, mean_fill)
    assert (result == 90).all()


def test_max_side_is_a_flag(folder, calls):
    picture("big.png", 200, 200)
    mask("big_mask.png", 200, 200, np.s_[40:160, 40:160])
    assert run("--image big.png --mask big_mask.png --max-side 50") == 0
    assert calls[0].image.shape == (50, 50, 3)
    hole = read("big_mask.png") > 0
    np.testing.assert_array_equal(read("output/big.png")[~hole], read("big.png")[~hole])


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_off_a_terminal_is_a_line_every_ten_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with Progress(4, stream=stream) as progress:
        for second in range(25):
            now[0] = float(second)
            progress.show(second / 25 * 4, f"part {second}")
    assert stream.getvalue() == "40% after 10 s: part 10\n80% after 20 s: part 20\n"


def test_progress_on_a_terminal_is_a_bar():
    stream, quiet = Terminal(), Terminal()
    with Progress(4, stream=stream) as progress:
        progress.show(2, "half")
        assert "50% |" in stream.getvalue()
        progress.note("a note")
    assert "a note\n" in stream.getvalue()
    with Progress(4, quiet=True, stream=quiet) as progress:
        progress.show(2, "half")
        progress.note("a note")
    assert quiet.getvalue() == ""


def test_first_lines_tell_device_method_sizes_and_compiling(folder, calls, capsys):
    assert run("--image a.png --mask m.png --num-samples 2") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "16x12, 2 samples each, method harmonic, on 8 x cpu"
    assert lines[1] == "compiling..."
    assert lines[2].startswith("compiled in ")
    assert run("--image a.png --mask m.png --output x --quiet") == 0
    assert capsys.readouterr().err == ""


# Start-up


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        ([], 0),
        (["--help"], 0),
        (["--version"], 0),
        *[([name, "--help"], 0) for name in COMMANDS],
        (["sample", "--list-methods"], 0),
        (["sample", "--image", "x.png", "--mask", "alpha"], 2),
        (["sample", "--method", "x"], 2),
        (["unknown"], 2),
    ],
)
def test_help_and_usage_errors_do_not_import_jax(argv, code):
    heavy = "{'jax', 'flax', 'scipy', 'tensorflow_datasets', 'grain'}"
    script = (
        "import sys; from jaxpaint.cli.main import main; "
        f"code = main({argv}); found = {heavy} & set(sys.modules); "
        "sys.exit(f'imported {found}' if found else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert done.stdout if code == 0 else done.stderr.startswith("error: ")


def test_scripts_are_thin_fronts(tmp_path):
    def script(*argv: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / argv[0]), *argv[1:]]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert "usage: jaxpaint sample" in script("sample.py", "--help").stdout
    assert script("sample.py", "--imag").stderr.startswith(
        "error: unknown flag '--imag'"
    )
    train = script("train.py")
    assert train.returncode == 2
    assert train.stderr.count("\n") == 1


@pytest.mark.integration
def test_the_real_thing(folder, capsys):
    hole = mask("most.png", hole=np.s_[:10])
    assert run("--image a.png --mask most.png --output out.png --save compare") == 0
    after = read("out.png")
    np.testing.assert_array_equal(after[~hole], read("a.png")[~hole])
    assert (after[hole] != read("a.png")[hole]).any()
    err = capsys.readouterr().err
    assert err.count("inverted") == 1
    assert "warning: most.png marks 83% of the picture as hole" in err
