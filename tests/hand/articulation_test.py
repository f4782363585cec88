import importlib.util
from pathlib import Path

import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.hand.articulation import (
    angle_axes,
    angle_rotations,
    angles_of_rotations,
    joint_frames,
    load_pose_prior,
)
from m3dhmr_jax.math3d import axis_rotation

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def fresh_angles():
    """Angles of draws that the shipped file was not made from."""
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools/hand/pose_prior.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.sample_angles(seed=1, draws=600)


def test_pose_prior_is_that_of_the_sampler(fresh_angles):
    path = ROOT / "m3dhmr_jax/hand/pose_prior.npz"
    shipped = np.load(path)
    std = np.sqrt(np.diag(shipped["covariance_rad2"]))
    drawn = std > np.radians(0.5)  # The sampler leaves the others alone.
    error = np.abs(fresh_angles.mean(0) - shipped["mean_rad"])
    assert (error[drawn] < 4 * std[drawn] / np.sqrt(600)).all()
    np.testing.assert_allclose(fresh_angles.std(0)[drawn], std[drawn], rtol=0.15)
    got = np.corrcoef(fresh_angles[:, drawn].T)
    want = shipped["covariance_rad2"][np.ix_(drawn, drawn)] / np.outer(std[drawn], std[drawn])
    np.testing.assert_allclose(got, want, atol=0.2)


def test_fresh_poses_keep_within_limits(fresh_angles):
    prior = load_pose_prior()
    inside = (fresh_angles > prior.low_rad - 1e-6) & (fresh_angles < prior.high_rad + 1e-6)
    assert inside.mean() > 0.995


def test_pose_prior_is_positive_definite():
    assert np.linalg.eigvalsh(load_pose_prior().covariance_rad2).min() > np.radians(1) ** 2


def test_angles_of_rotations_inverts_angle_rotations():
    angles = np.random.default_rng(0).uniform(-0.6, 0.6, (15, 3)).astype(np.float32)
    angles[:, 1] = np.linspace(-0.5, 2.0, 15)  # Beyond 90 degrees too.
    frames = joint_frames(load_builtin())
    own = frames.before @ np.asarray(angle_rotations(angles)) @ frames.after
    np.testing.assert_allclose(angles_of_rotations(own[None])[0], angles.reshape(-1), atol=1e-5)


def test_single_angles_rotate_about_the_rigs_axes():
    frames, axes = joint_frames(load_builtin()), load_details().axes
    for column, axis in enumerate((1, 0, 2)):  # Abduction, flexion, twist.
        angles = np.zeros((15, 3), np.float32)
        angles[:, column] = 0.4
        own = frames.before @ np.asarray(angle_rotations(angles)) @ frames.after
        for joint in range(15):
            want = axis_rotation(axes[joint + 1, axis], 0.4)
            np.testing.assert_allclose(own[joint], want, atol=1e-6)


def test_angle_axes_are_derivatives():
    angles = np.random.default_rng(1).uniform(-1, 1, (15, 3)).astype(np.float32)
    axes, step = np.asarray(angle_axes(angles)), 0.05 * np.eye(3, dtype=np.float32)
    for column in range(3):
        after, before = (
            np.asarray(angle_rotations(angles + s * step[None, column])) for s in (1, -1)
        )
        change = after @ np.swapaxes(before, 1, 2)  # A rotation by 0.1 about the axis.
        axis = np.stack([change[:, 2, 1], change[:, 0, 2], change[:, 1, 0]], axis=1)
        axis -= np.stack([change[:, 1, 2], change[:, 2, 0], change[:, 0, 1]], axis=1)
        np.testing.assert_allclose(axis / (2 * np.sin(0.1)), axes[:, :, column], atol=2e-3)
