"""Benchmarks start, and those that need no other library run."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(
    path.name
    for path in (ROOT / "benchmarks").glob("*.py")
    if not path.name.startswith("torch_")
)


def run(script, *words):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_or_what_is_missing(script):
    told = run(script, "--help")
    if told.returncode:
        [line] = told.stderr.splitlines()
        assert "pip install" in line
    else:
        assert told.stdout.startswith(f"usage: {script}")


def test_attention_in_chunks_and_whole():
    words = ["--what", "attention", "--size", "64", "--width", "4", "--rounds", "1"]
    told = run("gan.py", *words)
    assert told.returncode == 0, told.stderr
    assert "in chunks / whole:" in told.stdout


def test_the_input_pipeline(tmp_path):
    for i in range(4):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(tmp_path / f"{i}.png")
    words = ["--workers", "1", "--sizes", "16", "--batch-size", "2", "--seconds", "0.1"]
    told = run("input_pipeline.py", "--data", str(tmp_path), *words)
    assert told.returncode == 0, told.stderr
    assert "16" in told.stdout
