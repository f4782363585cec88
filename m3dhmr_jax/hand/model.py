"""The hand model: all that the rest of the package knows about a hand.

Axes: v vertices, f faces, j = 16 skeleton joints in MANO order (wrist; index, middle, little, ring,
thumb, three each), n = 21 joints in FreiHAND order, p shape directions.
"""

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.types import N_JOINTS

REGIONS = ("palm", "thumb", "index", "middle", "ring", "little")


@dataclasses.dataclass(frozen=True, eq=False)
class CoarseLevel:
    """A decimated surface whose vertices are a subset of the next finer level's.

    Fine values are `sum_k up_weights[:, k] * coarse[up_indices[:, k]]`.
    """

    # Index in the finer level of each remaining vertex.
    kept: Int[np.ndarray, " v_coarse"]
    faces: Int[np.ndarray, "f_coarse 3"]
    up_indices: Int[np.ndarray, "v_fine 3"]
    up_weights: Float[np.ndarray, "v_fine 3"]


@dataclasses.dataclass(frozen=True, eq=False)
class HandModel:
    """A right hand at rest, in metres; all arrays are checked on construction.

    Attributes:
        verts_m: rest surface, faces counter-clockwise from outside, open at the wrist.
        rest_joints, joint_shape_basis: skeleton joints and their displacement with shape.
        parents: -1 for the wrist, else a smaller joint index.
        skin_weights: each row sums to 1.
        joint_regressor: joints in FreiHAND order from posed vertices.
        regions: index into REGIONS for each vertex.
        pose_basis: vertex corrections by the entries of (R - I) of joints 1..15, or None.
        pose_mean: axis-angle added to the pose parameters, radians.
        levels: coarser surfaces that ship with the hand, finest first; may be empty.

    Raises:
        ValueError: if shapes disagree, an index is out of range or weights do not sum to 1.
    """

    verts_m: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    rest_joints: Float[np.ndarray, "j 3"]
    parents: Int[np.ndarray, " j"]
    skin_weights: Float[np.ndarray, "v j"]
    joint_regressor: Float[np.ndarray, "n v"]
    regions: Int[np.ndarray, " v"]
    shape_basis: Float[np.ndarray, "p v 3"]
    joint_shape_basis: Float[np.ndarray, "p j 3"]
    pose_basis: Float[np.ndarray, "q v 3"] | None
    pose_mean: Float[np.ndarray, "j-1 3"]
    levels: tuple[CoarseLevel, ...] = ()

    def __post_init__(self):
        self._check_shapes()
        v, j = len(self.verts_m), len(self.rest_joints)
        if self.faces.min() < 0 or self.faces.max() >= v:
            raise ValueError(
                f"HandModel.faces contains vertices {self.faces.min()}..{self.faces.max()}, "
                f"expected 0..{v - 1}"
            )
        if self.parents[0] != -1 or any(self.parents[i] not in range(i) for i in range(1, j)):
            raise ValueError(
                f"HandModel.parents={self.parents.tolist()} must start with -1 and then "
                "refer to earlier joints: skinning traverses the tree in this order"
            )
        worst = float(np.abs(self.skin_weights.sum(1) - 1).max())
        if not worst <= 1e-3:  # Also rejects NaN.
            raise ValueError(
                f"HandModel.skin_weights rows must sum to 1, the largest error is {worst:.3g}: "
                "a posed surface would shrink towards the origin or grow away from it"
            )
        if not set(np.unique(self.regions)) <= set(range(len(REGIONS))):
            raise ValueError(
                f"HandModel.regions contains {np.unique(self.regions).tolist()}, "
                f"expected 0..{len(REGIONS) - 1}, indices into {REGIONS}"
            )

    def _check_shapes(self) -> None:
        v, j, p = len(self.verts_m), len(self.rest_joints), len(self.shape_basis)
        expected = {
            "verts_m": (v, 3),
            "faces": (len(self.faces), 3),
            "rest_joints": (j, 3),
            "parents": (j,),
            "skin_weights": (v, j),
            "joint_regressor": (N_JOINTS, v),
            "regions": (v,),
            "shape_basis": (p, v, 3),
            "joint_shape_basis": (p, j, 3),
            "pose_mean": (j - 1, 3),
        }
        if self.pose_basis is not None:
            expected["pose_basis"] = (9 * (j - 1), v, 3)
        for name, shape in expected.items():
            actual = getattr(self, name).shape
            if actual != shape:
                raise ValueError(
                    f"HandModel.{name} has shape {actual}, expected {shape} "
                    f"for {v} vertices, {j} joints and {p} shape directions"
                )


def hand_id(hand: HandModel) -> str:
    """A hash of the faces and the rest surface."""
    content = np.ascontiguousarray(hand.faces, np.int32).tobytes()
    content += np.ascontiguousarray(hand.verts_m, np.float32).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
