"""Facts about the built-in hand that the rest of the program relies on."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.hand.skinning import pose_hand
from m3dhmr_jax.math3d import rotation_matrices
from m3dhmr_jax.mesh.spirals import ordered_one_rings

SIZES = (778, 389, 195, 98, 49)
TIPS = [4, 8, 12, 16, 20]
NOT_TIPS = [i for i in range(21) if i not in TIPS]
MANO_ORDER = [0, 13, 14, 15, 1, 2, 3, 4, 5, 6, 10, 11, 12, 7, 8, 9]  # Joints of those landmarks.
THUMB_BASE, WIDTH = 13, 9  # Joint; shape direction.


def surfaces():
    hand = load_builtin()
    yield hand.verts_m, hand.faces
    vertices = hand.verts_m
    for level in hand.levels:
        vertices = vertices[level.kept]
        yield vertices, level.faces


def border(faces):
    """From each border vertex to the next one along the border."""
    sides = {
        (a, b) for face in faces.tolist() for a, b in zip(face, face[1:] + face[:1], strict=True)
    }
    return {a: b for a, b in sides if (b, a) not in sides}


def test_sizes_are_those_of_mano():
    assert tuple(len(vertices) for vertices, _ in surfaces()) == SIZES
    assert load_builtin().faces.shape == (1538, 3)


@pytest.mark.parametrize("level", range(len(SIZES)))
def test_level_is_one_disk_with_consistent_orientation(level):
    vertices, faces = list(surfaces())[level]
    ordered_one_rings(faces, len(vertices))  # Raises on an edge or a vertex that is not manifold.
    edges = {frozenset(pair) for a, b, c in faces.tolist() for pair in ((a, b), (b, c), (c, a))}
    assert len(vertices) - len(edges) + len(faces) == 1
    following = border(faces)
    walk = [min(following)]
    while following[walk[-1]] != walk[0]:
        walk.append(following[walk[-1]])
    assert len(walk) == len(following)


def test_wrist_loop_has_sixteen_vertices():
    assert len(border(load_builtin().faces)) == 16


def test_faces_look_outwards():
    hand = load_builtin()
    wrist = hand.verts_m[list(border(hand.faces))].mean(axis=0, dtype=float)
    corners = hand.verts_m[hand.faces] - wrist  # The open wrist then adds next to nothing.
    volume_ml = np.linalg.det(corners).sum() / 6 * 1e6
    assert 100 < volume_ml < 600


@pytest.mark.parametrize("level", range(len(SIZES) - 1))
def test_upsampling_is_barycentric_and_reproduces_survivors(level):
    step = load_builtin().levels[level]
    fine = list(surfaces())[level][0]
    assert (np.diff(step.kept) > 0).all()
    np.testing.assert_allclose(step.up_weights.sum(1), 1, atol=1e-6)
    assert step.up_weights.min() >= 0
    placed = np.einsum("vk,vkx->vx", step.up_weights, fine[step.kept][step.up_indices])
    np.testing.assert_allclose(placed[step.kept], fine[step.kept], atol=1e-7)
    assert np.linalg.norm(placed - fine, axis=1).max() < 0.010


def test_landmarks_are_convex_combinations_of_vertices():
    regressor = load_builtin().joint_regressor
    assert regressor.min() >= 0
    np.testing.assert_allclose(regressor.sum(1), 1, atol=1e-5)


def test_landmarks_lie_in_freihand_order():
    hand = load_builtin()
    landmarks = hand.joint_regressor @ hand.verts_m
    assert np.linalg.norm(landmarks[NOT_TIPS] - hand.rest_joints[MANO_ORDER], axis=1).max() < 0.003
    nearest = np.linalg.norm(landmarks[TIPS][:, None] - hand.verts_m, axis=2).argmin(1)
    assert hand.regions[nearest].tolist() == [1, 2, 3, 4, 5]


def test_regions_agree_with_the_joint_that_moves_them():
    hand = load_builtin()
    finger_of_joint = np.array([0] + [2] * 3 + [3] * 3 + [5] * 3 + [4] * 3 + [1] * 3)
    moved_by = finger_of_joint[hand.skin_weights.argmax(1)]
    assert Counter(hand.regions.tolist()).keys() == set(range(6))
    fingers = hand.regions > 0
    assert (moved_by[fingers] == hand.regions[fingers]).mean() > 0.99


def test_joints_bend_about_unit_axes():
    axes = load_details().axes
    np.testing.assert_allclose(np.linalg.norm(axes, axis=2), 1, atol=1e-5)


def posed(rotation_by_joint, shape=None):
    """The built-in hand with some joints rotated: {joint: axis-angle vector}."""
    axis_angle = np.zeros((16, 3))
    for joint, vector in rotation_by_joint.items():
        axis_angle[joint] = vector
    rotations = rotation_matrices(jnp.asarray(axis_angle))
    with jax.numpy_rank_promotion("allow"):
        return pose_hand(
            load_builtin(), rotations, jnp.asarray(np.zeros(10) if shape is None else shape)
        )


def palm_frame(landmarks):
    """Rows: towards the middle finger, across to the little one, out of the inner side."""
    wrist, index, middle, little = landmarks[[0, 5, 9, 17]]
    along = (middle - wrist) / np.linalg.norm(middle - wrist)
    inner = np.cross(index - wrist, little - wrist)
    inner -= inner @ along * along
    inner /= np.linalg.norm(inner)
    return np.stack([along, np.cross(inner, along), inner])


def test_thumb_base_lies_in_the_ball_of_the_thumb():
    # A landmark network puts it at (26..29, -23, 17..19) mm (medians over 71 and 290 photos);
    # the first version of this hand had it at (37, -24, 4).
    hand = load_builtin()
    landmarks = hand.joint_regressor @ hand.verts_m
    for point in (hand.rest_joints[THUMB_BASE], landmarks[1]):
        place_mm = palm_frame(landmarks) @ (point - landmarks[0]) * 1000
        np.testing.assert_allclose(place_mm, [27.5, -23, 17], atol=2.5)


def test_thumb_base_axes_are_orthonormal_and_twist_is_about_the_bone():
    hand, axes = load_builtin(), load_details().axes[THUMB_BASE]
    bone = hand.rest_joints[THUMB_BASE + 1] - hand.rest_joints[THUMB_BASE]
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(axes), 1, atol=1e-5)
    np.testing.assert_allclose(axes[2], bone / np.linalg.norm(bone), atol=1e-4)


def test_landmarks_follow_the_joints_in_random_poses_and_shapes():
    rng, errors_m = np.random.default_rng(0), []
    axes = load_details().axes
    for _ in range(60):
        bends = np.radians(rng.uniform(-5, 80, 16))
        bends[THUMB_BASE:] = np.radians(rng.uniform([-25, -8, -12], [45, 50, 65]))
        rotations = {joint: axes[joint, 0] * bends[joint] for joint in range(1, 16)}
        rotations[THUMB_BASE] = rotations[THUMB_BASE] + axes[THUMB_BASE, 1] * rng.uniform(-0.5, 0.5)
        hand = posed(rotations, np.clip(rng.normal(size=10), -2, 2))
        landmarks, joints = (
            np.asarray(hand.joints_m)[NOT_TIPS],
            np.asarray(hand.skeleton_m)[MANO_ORDER],
        )
        errors_m.append(np.linalg.norm(landmarks - joints, axis=1))
    errors_mm = 1000 * np.array(errors_m)
    assert errors_mm.mean() < 0.45
    assert errors_mm.max() < 2.5
    assert errors_mm[:, 1].mean() < 0.3  # The thumb's base.
    assert errors_mm[:, 1].max() < 0.8


def test_rotating_the_thumb_base_moves_the_thumb_rigidly_and_no_finger():
    hand, axes = load_builtin(), load_details().axes[THUMB_BASE]
    vector = np.radians(30) * axes[0]
    moved = posed({THUMB_BASE: vector}).verts_m
    fingers = hand.regions > 1
    np.testing.assert_allclose(moved[fingers], hand.verts_m[fingers], atol=1e-3)
    tip = hand.skin_weights[:, THUMB_BASE + 1 :].sum(1) > 0.99
    rotation = np.asarray(rotation_matrices(jnp.asarray(vector)[None]))[0]
    base = hand.rest_joints[THUMB_BASE]
    assert tip.sum() > 40
    np.testing.assert_allclose(
        moved[tip], base + (hand.verts_m[tip] - base) @ rotation.T, atol=1e-3
    )


@pytest.mark.parametrize("flexion", [-25, 0])
def test_lifting_the_thumb_from_the_palm_neither_folds_nor_tears_its_ball(flexion):
    hand, axes = load_builtin(), load_details().axes[THUMB_BASE]
    vector = np.radians(flexion) * axes[0] + np.radians(28) * axes[1]
    moved = np.asarray(posed({THUMB_BASE: vector}).verts_m)
    sides = np.concatenate([hand.faces[:, [0, 1]], hand.faces[:, [1, 2]], hand.faces[:, [2, 0]]])
    before, after = (
        np.linalg.norm(points[sides[:, 0]] - points[sides[:, 1]], axis=1)
        for points in (hand.verts_m, moved)
    )
    assert (after / before).min() > 0.7  # In the first version one edge shrank to 0.5.
    assert (after / before).max() < 3.3  # And one grew 3.4 times.


def breadth_and_length_m(shape):
    """Across the four knuckles, and from the wrist joint along the middle finger to its tip."""
    hand, seen = load_builtin(), posed({}, shape)
    near = (np.abs(hand.verts_m[:, 0] + 0.087) < 0.009) & (hand.regions != 1)
    length = sum(
        np.linalg.norm(seen.joints_m[b] - seen.joints_m[a])
        for a, b in ((0, 9), (9, 10), (10, 11), (11, 12))
    )
    return np.ptp(np.asarray(seen.verts_m)[near, 2]), length


def test_mean_hand_has_the_breadth_of_people():
    # About 78 mm of 181 for women and 88 mm of 193 for men (tools/hand/README.md).
    breadth_m, length_m = breadth_and_length_m(np.zeros(10))
    assert length_m == pytest.approx(0.1896, abs=0.001)
    assert 0.43 < breadth_m / length_m < 0.47


def test_width_direction_widens_palm_and_fingers_by_four_percent_and_keeps_the_length():
    hand, wider = load_builtin(), 2 * np.eye(10)[WIDTH]
    breadth_m, length_m = breadth_and_length_m(np.zeros(10))
    broad_m, long_m = breadth_and_length_m(wider)
    assert broad_m / breadth_m == pytest.approx(
        1.075, abs=0.006
    )  # Fingers widen across themselves.
    assert long_m / length_m == pytest.approx(1, abs=0.001)
    seen = posed({}, wider)
    for joint in (2, 5, 8, 11, 14):  # Skin that a middle bone moves nearly alone.
        skin = hand.skin_weights[:, joint] > 0.9
        around_m = [
            np.linalg.norm(np.cross(vertices[skin] - joints[joint], bone), axis=1).mean()
            for vertices, joints, bone in (
                (hand.verts_m, hand.rest_joints, unit_bone(hand.rest_joints, joint)),
                (
                    np.asarray(seen.verts_m),
                    np.asarray(seen.skeleton_m),
                    unit_bone(seen.skeleton_m, joint),
                ),
            )
        ]
        assert around_m[1] / around_m[0] == pytest.approx(1.08, abs=0.01)


def unit_bone(joints, joint):
    bone = np.asarray(joints[joint + 1] - joints[joint])
    return bone / np.linalg.norm(bone)


def test_thumb_base_follows_every_shape():
    hand = load_builtin()
    want = np.einsum("v,pva->pa", hand.joint_regressor[1], hand.shape_basis)
    np.testing.assert_allclose(hand.joint_shape_basis[:, THUMB_BASE], want, atol=1e-6)
    assert (
        np.abs(np.einsum("pva,va->p", hand.shape_basis[1:9], hand.shape_basis[WIDTH])).max() < 1e-5
    )
