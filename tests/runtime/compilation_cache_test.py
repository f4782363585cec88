import jax
import pytest

from m3dhmr_jax.runtime.compilation_cache import enable_compilation_cache


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """No folder of compiled programs is set; the user's cache is elsewhere."""
    before = jax.config.jax_compilation_cache_dir
    least_s = jax.config.jax_persistent_cache_min_compile_time_secs
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least_s)


def test_programs_are_kept_in_the_users_cache(unset):
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(unset / "m3dhmr_jax")


def test_a_folder_that_is_set_stays(unset):
    jax.config.update("jax_compilation_cache_dir", "/mine")
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == "/mine"


def test_an_empty_variable_turns_it_off(unset, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
