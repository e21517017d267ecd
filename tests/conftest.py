"""Settings of all tests, and the folders of fixtures that they may read."""

import gc
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# Programs of tests run once: compiling them takes longer than running them. Commands
# that tests start inherit both.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
if version("jaxlib").startswith("0.10."):  # A flag that jaxlib does not know is fatal.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Nothing is written to the cache of whoever runs the tests.
_CACHE = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = _CACHE.name

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of recorded reference numbers.

    Without JAXPAINT_FIXTURES a sibling of the project is tried and the test skipped
    when there is none; with it, a missing folder fails.
    """
    named = os.environ.get("JAXPAINT_FIXTURES")
    folder = Path(named) if named else ROOT.parent / "shared" / "parity"
    if not folder.is_dir():
        if named:
            pytest.fail(f"JAXPAINT_FIXTURES names {folder}, which is no folder")
        pytest.skip("no recorded reference numbers; JAXPAINT_FIXTURES names a folder")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait for other processes come first: they would be the last to end."""
    items.sort(key=lambda item: "test_training_runs" not in item.nodeid)


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_file() -> Iterator[None]:
    """Compiled programs go with the file that needed them: thousands in one process
    slow the compiler down, and in the end it crashes."""
    yield
    jax.clear_caches()
    gc.collect()


def pytest_terminal_summary(terminalreporter) -> None:
    """Says how many comparisons with recorded reference numbers passed."""
    passed = terminalreporter.stats.get("passed", [])
    count = sum("parity" in report.keywords for report in passed)
    terminalreporter.write_line(f"parity tests passed: {count}")
