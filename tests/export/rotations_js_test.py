"""Rotations in JavaScript against those in Python."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from m3dhmr_jax.fitting.terms import _left_jacobian
from m3dhmr_jax.hand.articulation import angle_axes, angle_rotations
from m3dhmr_jax.math3d import random_rotation, rotation_matrices


@pytest.mark.parametrize("angle_rad", [0.0, 1e-3, 0.5, 3.0])
def test_axis_angle_functions_match_python(modules, angle_rad):
    vector = angle_rad * np.array([0.6, -0.48, 0.64])
    body = """return [rotations.axisAngleRotation, rotations.leftJacobian].map(
        (write) => [...write(new Float64Array(9), ...argument)]);"""
    rotation, jacobian = modules(["rotations"], body, vector.tolist())
    single = np.float32(vector)
    np.testing.assert_allclose(
        rotation, rotation_matrices(jnp.asarray(single)[None]).ravel(), atol=1e-6
    )
    np.testing.assert_allclose(jacobian, _left_jacobian(jnp.asarray(single)).ravel(), atol=1e-6)


def test_joint_rotations_match_python(modules):
    angles_rad = np.random.default_rng(0).uniform(-1, 1, (1, 3)).astype(np.float32)
    body = """
        const rotation = new Float64Array(9), axes = new Float64Array(9);
        rotations.jointRotation(rotation, 0, axes, ...argument);
        return [[...rotation], [...axes]];
    """
    rotation, axes = modules(["rotations"], body, angles_rad[0].tolist())
    np.testing.assert_allclose(rotation, angle_rotations(angles_rad).ravel(), atol=1e-6)
    np.testing.assert_allclose(axes, angle_axes(angles_rad).ravel(), atol=1e-6)


@pytest.mark.parametrize("flatness", [1.0, 0.0])
def test_best_rotation_matches_scipy(modules, flatness):
    """Also of points in a plane, where a reflection fits as well."""
    rng = np.random.default_rng(0)
    before = rng.normal(size=(21, 3)) * [1, 1, flatness]
    after = before @ random_rotation(rng).T * 1.3 + 0.05 * rng.normal(size=(21, 3))
    moments = after.T @ before
    got = modules(
        ["rotations"], "return rotations.bestRotation(argument);", moments.ravel().tolist()
    )
    want = Rotation.align_vectors(after, before)[0].as_matrix()
    np.testing.assert_allclose(np.reshape(got["rotation"], (3, 3)), want, atol=1e-9)
    np.testing.assert_allclose(got["strength"], (want * moments).sum())
