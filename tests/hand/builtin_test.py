"""Facts about the built-in hand that the rest of the program relies on."""

from collections import Counter

import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.mesh.spirals import ordered_one_rings

SIZES = (778, 389, 195, 98, 49)
TIPS = [4, 8, 12, 16, 20]


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
    mano = [0, 13, 14, 15, 1, 2, 3, 4, 5, 6, 10, 11, 12, 7, 8, 9]
    joints = [i for i in range(21) if i not in TIPS]
    assert np.linalg.norm(landmarks[joints] - hand.rest_joints[mano], axis=1).max() < 0.003
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
