"""What a hand is: its surface, skeleton and regions, and how it is posed."""

from m3dhmr_jax.hand.builtin import HandDetails, load_builtin, load_details
from m3dhmr_jax.hand.mano import load_mano
from m3dhmr_jax.hand.model import REGIONS, CoarseLevel, HandModel, hand_id
from m3dhmr_jax.hand.skinning import PosedHand, articulation, pose_hand, rotation_matrices

__all__ = [
    "REGIONS",
    "CoarseLevel",
    "HandDetails",
    "HandModel",
    "PosedHand",
    "articulation",
    "hand_id",
    "load_builtin",
    "load_details",
    "load_mano",
    "pose_hand",
    "rotation_matrices",
]
