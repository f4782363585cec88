"""Where compiled programs are kept from one start to the next."""

import os
import sys
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keeps what is compiled from now on in the user's cache folder, unless a folder is set.

    JAX_COMPILATION_CACHE_DIR or `jax.config` set one; an empty one turns this off.
    """
    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if chosen or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    jax.config.update("jax_compilation_cache_dir", str(user_cache() / "m3dhmr_jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def user_cache() -> Path:
    """Where this system keeps what can be made again."""
    if sys.platform == "win32" and "LOCALAPPDATA" in os.environ:
        return Path(os.environ["LOCALAPPDATA"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
