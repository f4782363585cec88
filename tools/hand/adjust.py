"""Corrects the first version of the built-in hand: its thumb's base, its width and how that varies.

    python tools/hand/adjust.py cc0_hand_v1.npz m3dhmr_jax/hand/cc0_hand.npz

Reads the file as first published (README.md next to this script describes how) and writes the
one that ships. Nothing is random, and results are rounded so that other builds of NumPy write the
same arrays.
Axes: v vertices, f faces, j = 16 skeleton joints in MANO order, n = 21 landmarks in FreiHAND order,
p = 10 shape directions. Lengths in metres; at rest the fingers point towards -x, the palm towards
-y and the thumb towards +z, with the wrist joint at the origin.
"""

import argparse
import hashlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.optimize

V1_SHA256 = "3b18c2be8933280a4d7ce130fd79a4d1c9d215b3611082a7eae9f999fe16127e"
VERSION = 2

WRIST, BASE, MIDDLE = 0, 13, 14  # Joints; the latter two are the thumb's.
LAST_JOINTS = (15, 3, 6, 12, 9)  # Thumb to little, as `tips`.
TIP_LANDMARKS = (4, 8, 12, 16, 20)
BASE_LANDMARK, MIDDLE_LANDMARK = 1, 2
PALM_LANDMARKS = [0, 5, 9, 17]  # Wrist and the bases of index, middle and little finger.

# The thumb's base joint in the palm's frame (`palm_frame`): along, across, out of the inner side.
THUMB_BASE_M = np.array([0.027, -0.0235, 0.0165])
# The base's skin weight rises between these fractions of its bone's length and falls off between
# these distances from the bone; then it is smoothed.
SHARE_ALONG, SHARE_BESIDE_M, SMOOTHINGS = (-0.6, 0.8), (0.012, 0.034), 4
# Where the thumb's other bones have more than this, as at the web, half of the old weight is kept,
# and only the last smoothing applies: the web folds less.
THUMB_ABOVE = 0.05
# Regressor rows are fitted over these rotations: the base's flexion and abduction, and the flexion
# of the second joint.
ROTATIONS_DEG = ((-25, 10, 45), (-28, 28), (-8, 50))
NEAR_BASE_M, NEAR_MIDDLE_M = 0.045, 0.03
RIDGE_M = 0.001  # Spreads a row over several vertices.
EXACTLY = 100.0  # Weight of equations that must hold exactly.
GIRTH_UNIT = 0.04  # One unit of the direction of width: everything is so much wider and thicker.
GIRTH_DIRECTION = 9  # It replaces the last, smallest of the principal components.
# The mean hand's palm and the bones next to it are widened by this; the outer ones are wide enough.
MEAN_GROWTH = np.where(np.isin(np.arange(16), [0, 1, 4, 7, 10, 13]), 0.015, 0.0)

Arrays = dict[str, np.ndarray]


def palm_frame(landmarks: np.ndarray) -> np.ndarray:
    """Rows: towards the middle finger, across to the little one, out of the inner side."""
    wrist, index, middle, little = landmarks[PALM_LANDMARKS]
    along = _unit(middle - wrist)
    inner = np.cross(index - wrist, little - wrist)
    inner = _unit(inner - inner @ along * along)
    return np.stack([along, np.cross(inner, along), inner])


def move_thumb_base(hand: Arrays) -> Arrays:
    """Joint 13 at `THUMB_BASE_M` with its axes and skin weights."""
    landmarks = hand["regressor"] @ hand["v_template"]
    hand = hand | {"J": hand["J"].copy(), "axes": hand["axes"].copy()}
    hand["J"][BASE] = landmarks[0] + THUMB_BASE_M @ palm_frame(landmarks)
    hand["axes"][BASE] = axes_along(hand["axes"][BASE], hand["J"][MIDDLE] - hand["J"][BASE])
    return hand | {"weights": thumb_weights(hand)}


def axes_along(axes: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """Flexion, abduction and twist axes for a new direction of the bone, flexion changed least."""
    twist = _unit(bone)
    flexion = _unit(axes[0] - axes[0] @ twist * twist)
    return np.stack([flexion, np.cross(twist, flexion), twist])


def thumb_weights(hand: Arrays) -> np.ndarray:
    """Skin weights, with those of wrist and thumb base redistributed between these two bones.

    The base's weight rises along its bone and falls off around it, and is then smoothed over the
    surface. Other bones and the fingers are unchanged.
    """
    weights, vertices, joints = hand["weights"].copy(), hand["v_template"], hand["J"]
    bone = joints[MIDDLE] - joints[BASE]
    along = (vertices - joints[BASE]) @ bone / (bone @ bone)
    beside_m = np.linalg.norm(vertices - joints[BASE] - along[:, None] * bone, axis=1)
    share = smooth_step(*SHARE_ALONG, along) * (1 - smooth_step(*SHARE_BESIDE_M, beside_m))
    both = weights[:, WRIST] + weights[:, BASE]
    before = weights[:, BASE] / np.maximum(both, 1e-9)
    fingers, thumb = hand["region"] > 1, weights[:, MIDDLE:].sum(1) > THUMB_ABOVE
    share = np.where(thumb, 0.5 * (before + share), share)
    neighbours = mean_of_neighbours(hand["faces"], len(vertices))
    for held in [thumb] * (SMOOTHINGS - 1) + [np.zeros_like(thumb)]:
        smoothed = 0.5 * (share + neighbours @ share)
        share = np.where(fingers, before, np.where(held, share, smoothed))
    share = np.where(share < 0.005, 0, share)
    weights[:, WRIST], weights[:, BASE] = both * (1 - share), both * share
    return weights


def smooth_step(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    share = np.clip((x - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def mean_of_neighbours(faces: np.ndarray, count: int) -> np.ndarray:
    """A matrix that takes values per vertex to the means over the vertices around each."""
    joined = np.zeros((count, count))
    for a, b in ((0, 1), (1, 2), (2, 0)):
        joined[faces[:, a], faces[:, b]] = joined[faces[:, b], faces[:, a]] = 1
    return joined / joined.sum(1, keepdims=True)


def base_row(hand: Arrays) -> np.ndarray:
    """Regressor row of the thumb's base: exact at rest, hardly moved when the thumb is posed."""
    chosen = _vertices_near(hand, BASE, NEAR_BASE_M)
    rest = hand["v_template"][chosen] - hand["J"][BASE]
    moved = [vertices - base for vertices, base, _ in _posed(hand, chosen, np.zeros((1, 10)))]
    return _non_negative_row(hand, chosen, [*moved, EXACTLY * rest])


def middle_row(hand: Arrays) -> np.ndarray:
    """Regressor row of the thumb's second joint, fitted over shapes and poses."""
    chosen = _vertices_near(hand, MIDDLE, NEAR_MIDDLE_M)
    shapes = np.concatenate([np.zeros((1, 10)), 2 * np.eye(10), -2 * np.eye(10)])
    moved = [vertices - middle for vertices, _, middle in _posed(hand, chosen, shapes)]
    return _non_negative_row(hand, chosen, moved)


def _vertices_near(hand: Arrays, joint: int, distance_m: float) -> np.ndarray:
    """Vertices near a joint that no long finger moves."""
    near = np.linalg.norm(hand["v_template"] - hand["J"][joint], axis=1) < distance_m
    return np.flatnonzero(near & (hand["weights"][:, 1:BASE].sum(1) < 0.02))


def _posed(hand: Arrays, chosen: np.ndarray, shapes: np.ndarray) -> Iterator[tuple]:
    """Some vertices, the thumb's base and its second joint, for each shape and all rotations."""
    shares = hand["weights"][chosen][:, [WRIST, BASE, MIDDLE]]
    shares = shares / shares.sum(1, keepdims=True)
    for shape, degrees in itertools.product(shapes, itertools.product(*ROTATIONS_DEG)):
        vertices = (hand["v_template"] + np.einsum("p,pva->va", shape, hand["shapedirs"]))[chosen]
        joints = hand["J"] + np.einsum("p,pja->ja", shape, hand["J_shapedirs"])
        base, middle = joints[[BASE, MIDDLE]]
        flexion, abduction, bend = np.radians(degrees)
        first = rotation(hand["axes"][BASE, 1], abduction) @ rotation(
            hand["axes"][BASE, 0], flexion
        )
        second = first @ rotation(hand["axes"][MIDDLE, 0], bend)
        placed = base + first @ (middle - base)
        by_bone = [
            vertices,
            base + (vertices - base) @ first.T,
            placed + (vertices - middle) @ second.T,
        ]
        yield np.einsum("vk,kva->va", shares, by_bone), base, placed


def _non_negative_row(hand: Arrays, chosen: np.ndarray, offsets: list[np.ndarray]) -> np.ndarray:
    """Weights of sum 1 on the chosen vertices whose mean offset from a joint is always small."""
    spread = RIDGE_M * np.sqrt(3 * len(offsets)) * np.eye(len(chosen))
    sum_to_one = EXACTLY * np.ones((1, len(chosen)))
    system = np.concatenate([np.concatenate(offsets, axis=1).T, spread, sum_to_one])
    values, _ = scipy.optimize.nnls(system, np.append(np.zeros(len(system) - 1), EXACTLY))
    row = np.zeros(len(hand["v_template"]))
    row[chosen] = values / values.sum()
    return row


def rotation(axis: np.ndarray, angle_rad: float) -> np.ndarray:
    """Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle_rad) * cross + (1 - np.cos(angle_rad)) * cross @ cross


def girth(hand: Arrays, growth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How vertices and joints move when each bone's part grows by `growth` across it, not along it.

    The palm grows across the line from the wrist to the middle finger and takes the fingers' bases
    with it; each finger grows around its own bones. Blended like a pose, by the skin weights.
    """
    joints, parents = hand["J"], hand["parents"].astype(int)
    ends = {j: joints[j + 1] for j in range(1, len(joints)) if j not in LAST_JOINTS}
    ends |= dict(
        zip(LAST_JOINTS, hand["regressor"][list(TIP_LANDMARKS)] @ hand["v_template"], strict=True)
    )
    along = np.stack([np.array([1.0, 0, 0])] + [_unit(ends[j] - joints[j]) for j in range(1, 16)])
    across = growth[:, None, None] * (np.eye(3) - along[:, :, None] * along[:, None])
    moved = np.zeros_like(joints)
    for joint in range(1, len(joints)):
        parent = parents[joint]
        moved[joint] = moved[parent] + across[parent] @ (joints[joint] - joints[parent])
    from_joint = hand["v_template"][:, None] - joints
    per_bone = moved + np.einsum("jab,vjb->vja", across, from_joint)
    return np.einsum("vj,vja->va", hand["weights"], per_bone), moved


def widen(hand: Arrays, growth: np.ndarray) -> Arrays:
    """The mean hand wider and thicker, of the same length."""
    vertices, joints = girth(hand, growth)
    tips = joints[list(LAST_JOINTS)]  # They lie on the bones, along which nothing grows.
    return hand | {
        "v_template": hand["v_template"] + vertices,
        "J": hand["J"] + joints,
        "tips": hand["tips"] + tips,
    }


def set_shapes(hand: Arrays) -> Arrays:
    """Shape directions: the first stays size, the last becomes width, the others lose theirs."""
    wider, wider_joints = girth(hand, np.full(16, GIRTH_UNIT))
    shapes, joints = hand["shapedirs"].copy(), hand["J_shapedirs"].copy()
    for p in range(1, GIRTH_DIRECTION):
        share = (shapes[p] * wider).sum() / (wider**2).sum()
        shapes[p] -= share * wider
        joints[p] -= share * wider_joints
    shapes[GIRTH_DIRECTION], joints[GIRTH_DIRECTION] = wider, wider_joints
    row, named_joints = hand["regressor"][BASE_LANDMARK], hand["named_J"].copy()
    joints[:, BASE] = np.einsum("v,pva->pa", row, shapes)
    named_joints[:, BASE] = np.einsum("v,pva->pa", row, hand["named"])
    return hand | {"shapedirs": shapes, "J_shapedirs": joints, "named_J": named_joints}


def adjust(first: Arrays) -> Arrays:
    """The arrays that ship, from those first published."""
    hand = {
        name: array.astype(np.float64) if array.dtype == np.float32 else array
        for name, array in first.items()
    }
    hand = move_thumb_base(widen(hand, MEAN_GROWTH))
    hand["regressor"] = hand["regressor"].copy()
    hand["regressor"][BASE_LANDMARK] = base_row(hand)
    hand = set_shapes(hand)
    hand["regressor"][MIDDLE_LANDMARK] = middle_row(hand)
    changed = ("v_template", "J", "tips", "weights", "axes", "regressor")
    changed += ("shapedirs", "J_shapedirs", "named_J")
    rounded = {name: np.round(hand[name], 7).astype(np.float32) for name in changed}
    return first | rounded | {"version": np.array(VERSION), "source_sha256": np.array(V1_SHA256)}


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def main(arguments: list[str]) -> int:
    """Writes the corrected file; 2 if the first argument is not the file as first published."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path, help="cc0_hand.npz as first published")
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    found = hashlib.sha256(options.first.read_bytes()).hexdigest()
    if found != V1_SHA256:
        print(f"error: {options.first} has SHA-256 {found}, expected {V1_SHA256}", file=sys.stderr)
        return 2
    with np.load(options.first) as archive:
        np.savez_compressed(options.out, **adjust(dict(archive)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
