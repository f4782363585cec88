import jax
import platformdirs
import pytest

from m3dhmr_jax.runtime.compilation_cache import enable_compilation_cache


@pytest.fixture
def user_cache(monkeypatch, tmp_path):
    """The user's cache folder, elsewhere; no folder is set for compiled programs."""
    folder = jax.config.jax_compilation_cache_dir
    min_time_s = jax.config.jax_persistent_cache_min_compile_time_secs
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name, **_: str(tmp_path / name))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", min_time_s)


def test_compilation_cache_is_in_user_cache(user_cache):
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(user_cache / "m3dhmr_jax")


def test_compilation_cache_keeps_configured_folder(user_cache):
    jax.config.update("jax_compilation_cache_dir", "/mine")
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == "/mine"


def test_compilation_cache_is_off_if_variable_is_empty(user_cache, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
