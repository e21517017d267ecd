"""What README and docs show runs: Python blocks, and commands on small files."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxpaint.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{path.stem}-{number}")
    for path in PAGES
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)
    )
]


@pytest.mark.integration
@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "block", "exec"), {})


def test_links_to_files_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


# Commands


def commands(page: Path) -> list[list[str]]:
    """Returns the arguments of `jaxpaint` for the commands of a page.

    Those with a placeholder, a word in capitals or something in brackets, are patterns
    and no commands; nor are those that need files of others.
    """
    found = []
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S)
    for block in (text for language, text in blocks if not language):
        for line in block.replace("\\\n", " ").splitlines():
            text = re.sub(r"\s#.*", "", line)
            text = re.sub(r"^python (train|sample)\.py", r"jaxpaint \1", text)
            if not text.startswith("jaxpaint "):
                continue
            if re.search(r"\b[A-Z]{3,}|\[-|\.pth?\b", text):
                continue
            found.append(shlex.split(text)[1:])
    return found


SMALL = [
    *("options.width=4", "options.max_width=4", "steps=1", "data.batch_size=2"),
    *("eval.every=0", "checkpoint.best=", "log.samples_every=0"),
]
"""What makes a run of partial_conv_photos64 small."""

MEASURED = [
    *("--methods", "harmonic,patchmatch=mean_color", "--masks", "half"),
    *("--size", "24", "--limit", "2"),
]
"""What makes an evaluation small; a quick method stands in."""


def furnish(folder: Path) -> None:
    """Makes the files that the pages speak of."""
    rng = np.random.default_rng(0)
    hole = np.zeros((40, 48), np.uint8)
    hole[12:20, 16:28] = 255

    def save(name: str, pixels: np.ndarray) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    parts = ("photos", "photos/train", "photos/test", "places365_standard/train")
    names = ["photo", "data256x256/a", *(f"{p}/{n}" for p in parts for n in "ab")]
    for name in names:
        save(f"{name}.jpg", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    for name in ("mask", "logo", "masks/a", "masks/b"):
        save(f"{name}.png", hole)
    lines = np.zeros_like(hole)
    lines[16, 16:28] = 255
    save("lines.png", lines)
    cutout = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    save("cutout.png", np.dstack([cutout, 255 - hole]))


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Path:
    """A folder with all that the pages speak of, a finished run among it."""
    folder = tmp_path_factory.mktemp("shown")
    furnish(folder)
    (folder / "configs").symlink_to(ROOT / "configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = next(c for c in commands(ROOT / "README.md") if c[0] == "train")
        assert run(command + SMALL) == 0
    return folder


def run(arguments: list[str]) -> int:
    """Returns the exit code; training begins in a process of its own."""
    if arguments[0] != "train":
        return main(arguments)
    program = [sys.executable, str(ROOT / "train.py"), *arguments[1:]]
    return subprocess.run(program, check=False).returncode


@pytest.mark.integration
@pytest.mark.parametrize(
    "page", [p for p in PAGES if commands(p)], ids=lambda page: page.stem
)
def test_commands_run(page, shown, tmp_path, monkeypatch):
    shutil.copytree(shown, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for arguments in commands(page):
        if arguments[0] == "train":
            # The finished run is the README's; others would take hours.
            arguments += SMALL if page.stem == "README" else ["--print-config"]
        elif arguments[0] in ("sample", "export"):
            # Commands of a page may write the same file.
            arguments.append("--overwrite")
        elif "--methods" in arguments:
            arguments += MEASURED
        assert run(arguments) == 0, " ".join(arguments)
