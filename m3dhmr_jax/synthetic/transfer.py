"""Transfer of the renderer's details (joint axes, skin masks) from one hand model to another.

Bones correspond by index. Each bone of the known hand is rotated, scaled and moved onto the
other's, its skin follows, and masks are interpolated from the nearest vertices.

Axes: j = 16 skeleton joints in MANO order, v vertices.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from m3dhmr_jax.hand import HandDetails, HandModel
from m3dhmr_jax.math3d import shortest_rotation, unit

INDEX, MIDDLE, LITTLE = 1, 4, 7
TIP_LANDMARKS = {3: 8, 6: 12, 9: 20, 12: 16, 15: 4}  # Last joint of each finger: its landmark.
NEAREST = 4
CLOSEST_M = 1e-4  # Distances below this count as this.


def transfer_details(hand: HandModel, like: HandModel, known: HandDetails) -> HandDetails:
    """Joint axes, relaxed pose and skin masks of `hand`, from the details `known` of `like`."""
    ours, theirs = _bones(hand), _bones(like)
    aligned = _palm_frame(hand) @ _palm_frame(like).T
    rotations = np.stack(
        [aligned]
        + [
            shortest_rotation(aligned @ before, after) @ aligned
            for before, after in zip(theirs[1:], ours[1:], strict=True)
        ]
    )
    stretch = np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    moved_m = _move_skin(like, hand, rotations * stretch[:, None, None])
    weights = _nearest_weights(hand, like, moved_m)
    back = aligned @ rotations.transpose(
        0, 2, 1
    )  # From rest to the bone directions of `like` at rest.
    relaxed = np.stack([back[0]] + [back[hand.parents[j]].T @ back[j] for j in range(1, len(back))])
    return HandDetails(
        axes=np.einsum("jab,jcb->jca", rotations, known.axes),
        relaxed=relaxed @ known.relaxed,
        palmar=weights @ known.palmar,
        nail=weights @ known.nail,
        knuckle=weights @ known.knuckle,
        crease=weights @ known.crease,
        tip=weights @ known.tip,
    )


def _bones(hand: HandModel) -> Float[np.ndarray, "j 3"]:
    """From each joint to the next of its finger or to its tip; the palm's to the middle finger."""
    joints = hand.rest_joints.astype(np.float64)
    landmarks = (hand.joint_regressor @ hand.verts_m).astype(np.float64)
    ends = [landmarks[TIP_LANDMARKS[j]] if j in TIP_LANDMARKS else joints[j + 1] for j in range(16)]
    ends[0] = joints[MIDDLE]
    return np.stack(ends) - joints


def _palm_frame(hand: HandModel) -> Float[np.ndarray, "3 3"]:
    """Columns: along the palm to the fingers, across it to the index, and out of its back."""
    joints = hand.rest_joints.astype(np.float64)
    along = unit(joints[MIDDLE] - joints[0])
    back = unit(np.cross(joints[INDEX] - joints[LITTLE], along))
    return np.stack([along, np.cross(along, back), back], axis=1)


def _move_skin(
    like: HandModel, hand: HandModel, maps: Float[np.ndarray, "j 3 3"]
) -> Float[np.ndarray, "v 3"]:
    """The vertices of `like` after mapping each of its bones onto that of `hand`."""
    from_joint = like.verts_m[:, None] - like.rest_joints[None]
    placed = np.einsum("jab,vjb->vja", maps, from_joint) + hand.rest_joints
    return np.einsum("vj,vja->va", like.skin_weights, placed)


def _nearest_weights(
    hand: HandModel, like: HandModel, moved_m: Float[np.ndarray, "v 3"]
) -> Float[np.ndarray, "v v"]:
    """Rows: weights of the nearest vertices of `like` in the same region, for those of `hand`."""
    weights = np.zeros((len(hand.verts_m), len(moved_m)))
    for region in np.unique(hand.regions):
        rows, columns = (
            np.flatnonzero(hand.regions == region),
            np.flatnonzero(like.regions == region),
        )
        tree = KDTree(moved_m[columns])
        distance_m, nearest = tree.query(hand.verts_m[rows], k=NEAREST)
        near = 1 / np.maximum(distance_m, CLOSEST_M) ** 2
        weights[rows[:, None], columns[nearest]] = near / near.sum(axis=1, keepdims=True)
    return weights
