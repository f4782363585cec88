"""Hand models: surface, skeleton and regions, and how to pose them."""

from m3dhmr_jax.hand.builtin import HandDetails, load_builtin, load_details
from m3dhmr_jax.hand.mano import load_mano
from m3dhmr_jax.hand.model import REGIONS, CoarseLevel, HandModel, hand_id
from m3dhmr_jax.hand.skinning import PosedHand, pose_hand, rotations_from_pose

__all__ = [
    "REGIONS",
    "CoarseLevel",
    "HandDetails",
    "HandModel",
    "PosedHand",
    "hand_id",
    "load_builtin",
    "load_details",
    "load_mano",
    "pose_hand",
    "rotations_from_pose",
]
