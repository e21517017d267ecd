"""Settings of all tests, and the folders of fixtures that they may read."""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of recorded reference numbers; skips the test when there is none."""
    default = ROOT.parent / "shared" / "parity"
    folder = Path(os.environ.get("JAXPAINT_FIXTURES", default))
    if not folder.is_dir():
        pytest.skip(f"no parity fixtures at {folder}; set JAXPAINT_FIXTURES")
    return folder
