"""The command line's cache of compiled programs."""

import jax
import pytest

from jaxpaint.cli import compiled


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """What `keep_compiled` sets, with the user's cache in a folder of the test."""
    updates = {}
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return updates


def test_programs_are_kept_in_the_cache_of_the_user(settings, tmp_path):
    compiled.keep_compiled()
    folder = settings["jax_compilation_cache_dir"]
    assert folder.startswith(str(tmp_path / "jaxpaint" / f"jax-{jax.__version__}"))


def test_another_processor_has_another_folder(settings, monkeypatch):
    compiled.keep_compiled()
    here = settings["jax_compilation_cache_dir"]
    monkeypatch.setattr(compiled, "_processor", lambda: "another")
    compiled.keep_compiled()
    assert settings["jax_compilation_cache_dir"] != here


def test_a_folder_named_by_the_user_is_left_alone(settings, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    compiled.keep_compiled()
    assert not settings


def test_a_cache_that_cannot_be_made_is_done_without(settings, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    compiled.keep_compiled()
    assert not settings
