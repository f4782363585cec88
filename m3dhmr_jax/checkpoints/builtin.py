"""The built-in network: a weights file in half precision, with its config, within the package."""

from pathlib import Path

from m3dhmr_jax.errors import UserError

BUILTIN_NETWORK = Path(__file__).parents[1] / "networks" / "small.safetensors"


def builtin_network() -> Path:
    """The weights file of the built-in network.

    Raises:
        UserError: if this copy of the package does not have it.
    """
    if not BUILTIN_NETWORK.is_file():
        raise UserError(
            f"{BUILTIN_NETWORK}: no such file, so there is no built-in network in this copy of "
            "m3dhmr_jax: install it again, or use a network of your own with --checkpoint"
        )
    return BUILTIN_NETWORK
