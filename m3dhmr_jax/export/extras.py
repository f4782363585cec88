"""The optional packages that files for other runtimes need."""

import importlib.util

from m3dhmr_jax.errors import UserError


def require_extra(extra: str, *packages: str) -> None:
    """Raises UserError if a package of an extra is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'{" and ".join(missing)} not installed: pip install "m3dhmr_jax[{extra}]"')
