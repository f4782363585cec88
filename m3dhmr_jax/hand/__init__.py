"""What a hand is: its surface, skeleton and regions, and how it is posed."""

from m3dhmr_jax.hand.builtin import HandDetails, load_builtin, load_details
from m3dhmr_jax.hand.model import REGIONS, CoarseLevel, HandModel
from m3dhmr_jax.hand.skinning import PosedHand, articulation, pose_hand, rotation_matrices

__all__ = [
    "REGIONS",
    "CoarseLevel",
    "HandDetails",
    "HandModel",
    "PosedHand",
    "articulation",
    "load_builtin",
    "load_details",
    "pose_hand",
    "rotation_matrices",
]
