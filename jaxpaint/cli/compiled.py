"""Keeps compiled programs between runs of the command line."""

import os
import platform
import zlib
from pathlib import Path


def keep_compiled() -> None:
    """Lets jax store what it compiles in the user's cache folder, and find it there.

    A second run then starts in seconds. `JAX_COMPILATION_CACHE_DIR` names another
    folder, or none when it is empty; where nothing can be written, nothing is kept.
    Programs are kept apart by jax version and processor, for which they are made.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    made_for = f"jax-{jax.__version__}-{zlib.crc32(_processor().encode()):08x}"
    folder = Path(home) / "jaxpaint" / made_for
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _processor() -> str:
    """Returns what tells processors with different instructions apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((x for x in lines if x.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {platform.processor()} {features}"
