"""Hand models: surface, skeleton and regions; `hand.skinning` poses them."""

from m3dhmr_jax.hand.builtin import HandDetails, load_builtin, load_details
from m3dhmr_jax.hand.mano import load_mano
from m3dhmr_jax.hand.model import REGIONS, CoarseLevel, HandModel, hand_id

__all__ = [
    "REGIONS",
    "CoarseLevel",
    "HandDetails",
    "HandModel",
    "hand_id",
    "load_builtin",
    "load_details",
    "load_mano",
]
