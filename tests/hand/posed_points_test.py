import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.hand.articulation import angle_rotations
from m3dhmr_jax.hand.posed_points import (
    build_point_table,
    own_rotations,
    point_derivatives,
    pose_points,
)
from m3dhmr_jax.hand.skinning import pose_hand
from m3dhmr_jax.math3d import random_rotation, rotation_matrices

N_POINTS = 37


@pytest.fixture(scope="module")
def pose():
    rng = np.random.default_rng(0)
    arrays = random_rotation(rng), rng.normal(0, 0.4, 45), rng.normal(size=10)
    return tuple(jnp.asarray(each, jnp.float32) for each in arrays)


def with_pose_basis(hand):
    """A hand with pose correctives as MANO's."""
    basis = 1e-3 * np.random.default_rng(1).normal(size=(135, 778, 3)).astype(np.float32)
    return dataclasses.replace(hand, pose_basis=basis)


@pytest.mark.parametrize("change", [lambda hand: hand, with_pose_basis])
def test_points_are_those_of_the_skinned_mesh(pose, change):
    hand = change(load_builtin())
    table, (rotation, angles, shape) = build_point_table(hand), pose
    turns = angle_rotations(angles.reshape(-1, 3))
    own = jnp.concatenate([rotation[None], own_rotations(table, turns)])
    mesh = pose_hand(hand, own, shape)
    want = np.concatenate([mesh.joints_m, mesh.skeleton_m]) - np.asarray(mesh.skeleton_m[0])
    points = jax.jit(functools.partial(pose_points, table))(*pose).points_m
    np.testing.assert_allclose(points.T, want, atol=1e-6)


def test_point_derivatives_match_autodiff(pose):
    table, (rotation, angles, shape) = build_point_table(load_builtin()), pose

    def points(spin, angles, shape):
        return pose_points(
            table, rotation_matrices(spin[None])[0] @ rotation, angles, shape
        ).points_m

    columns = jax.jit(jax.jacfwd(points, (0, 1, 2)))(jnp.zeros(3), angles, shape)
    want = np.moveaxis(np.concatenate(columns, axis=2), 2, 0)
    got = point_derivatives(table, pose_points(table, *pose), N_POINTS)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_shifts_move_only_finger_bases_and_fingertips_along_their_bones(pose):
    plain, shifted = (
        np.asarray(pose_points(build_point_table(load_builtin(), *shifts), *pose).points_m)
        for shifts in ((0.0, 0.0), (0.1, 0.2))
    )
    bases, tips = [5, 9, 13, 17], np.array([4, 8, 12, 16, 20])
    want = plain.copy()
    want[:, bases] += 0.1 * (plain[:, :1] - plain[:, bases])
    want[:, tips] += 0.2 * (plain[:, tips - 1] - plain[:, tips])
    np.testing.assert_allclose(shifted, want, atol=1e-6)


def test_another_skeleton_is_rejected():
    hand = load_builtin()
    parents = hand.parents.copy()
    parents[2] = 0
    with pytest.raises(ValueError, match="five fingers"):
        build_point_table(dataclasses.replace(hand, parents=parents))
