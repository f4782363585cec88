"""Where compiled programs are kept between runs."""

import os

import jax
import platformdirs


def enable_compilation_cache() -> None:
    """Caches programs compiled from now on in the user's cache folder, unless a folder is set.

    JAX_COMPILATION_CACHE_DIR or `jax.config` set one; an empty JAX_COMPILATION_CACHE_DIR turns the
    cache off.
    """
    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if chosen or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = platformdirs.user_cache_dir("m3dhmr_jax", appauthor=False)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
