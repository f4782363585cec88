"""The fit of a hand model to landmarks, as other packages use it."""

from m3dhmr_jax.fitting.fit import make_fit
from m3dhmr_jax.fitting.observation import (
    COMMON,
    SHAPE_STD,
    FittedHand,
    Observation,
    landmark_std,
    reliability,
)
from m3dhmr_jax.fitting.terms import OWN_CONVENTION, FitWeights

__all__ = [
    "COMMON",
    "OWN_CONVENTION",
    "SHAPE_STD",
    "FitWeights",
    "FittedHand",
    "Observation",
    "landmark_std",
    "make_fit",
    "reliability",
]
