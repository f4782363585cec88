"""Monocular 3D hand mesh recovery in JAX: a photo of a hand in, a 778-vertex mesh in metres out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3dhmr_jax.predict.predictor import HandMeshPredictor

__all__ = ["HandMeshPredictor"]


def __getattr__(name: str) -> Any:
    """Loads the predictor when it is asked for: the network itself needs much less."""
    if name == "HandMeshPredictor":
        from m3dhmr_jax.predict.predictor import HandMeshPredictor

        return HandMeshPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
