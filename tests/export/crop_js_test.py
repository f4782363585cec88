"""Crops and reflections in JavaScript against those in NumPy."""

import numpy as np

from m3dhmr_jax.predict.cameras import mirrored_intrinsics
from m3dhmr_jax.predict.candidates import Candidates, Landmarks, mirrored
from m3dhmr_jax.predict.crops import crop_matrix
from m3dhmr_jax.predict.squares import Squares, crop_matrices, inverses, transform


def test_crop_matrices_match_python(modules):
    rng = np.random.default_rng(0)
    centres, sides = rng.uniform(0, 500, (5, 2)), rng.uniform(40, 300, 5)
    directions = rng.uniform(-3, 3, 5)
    rows = np.column_stack([centres, sides, directions, np.full(5, 128)]).tolist()
    got = modules(["crop"], "return argument.map((x) => crop.cropMatrix(...x));", rows)
    want = [
        crop_matrix(np.array([*(centre - side / 2), side, side]), 128, direction)
        for centre, side, direction in zip(centres, sides, directions, strict=True)
    ]
    np.testing.assert_allclose(np.reshape(got, (5, 2, 3)), want, atol=1e-9)
    got = modules(["crop"], "return argument.map((x) => crop.squareMatrix(...x));", rows)
    want = crop_matrices(Squares(centres, sides, directions), 128)
    np.testing.assert_allclose(np.reshape(got, (5, 2, 3)), want, atol=1e-9)


def test_affine_maps_match_python(modules):
    rng = np.random.default_rng(0)
    matrix, points = rng.normal(size=(2, 3)), rng.normal(size=(7, 2))
    body = """
        const inverse = crop.invertAffine(argument.matrix);
        return { inverse, mapped: [...crop.applyAffine(inverse, argument.points)] };
    """
    flat = {"matrix": matrix.ravel().tolist(), "points": points.ravel().tolist()}
    got = modules(["crop"], body, flat)
    (inverse,) = inverses(matrix[None])
    np.testing.assert_allclose(got["inverse"], inverse.ravel(), atol=1e-9)
    mapped = transform(inverse[None], points[None])
    np.testing.assert_allclose(got["mapped"], mapped.ravel(), atol=1e-9)


def test_left_hands_are_mirrored_as_in_python(modules):
    rng, width = np.random.default_rng(0), 640
    landmarks = Landmarks(
        rng.uniform(0, 600, (1, 21, 2)), rng.normal(size=(1, 21, 3)), np.zeros((1, 21))
    )
    k = np.array([[500.0, 0.4, 300], [0, 510, 200], [0, 0, 1]])
    one = np.ones(1)
    candidates = Candidates(np.ones((1, 4)), one, ("left",), one, one, landmarks)
    want = mirrored(candidates, np.array([True]), width).landmarks
    body = """
        const { landmarks, joints, k, width } = argument;
        return {
          landmarks: [...crop.mirroredLandmarks(landmarks, width)],
          joints: [...crop.mirroredPoints(Float64Array.from(joints))],
          k: crop.mirroredIntrinsics(k, width),
        };
    """
    given = (landmarks.landmarks_px, landmarks.joints_rel_m, k)
    flat = dict(zip(("landmarks", "joints", "k"), (x.ravel().tolist() for x in given), strict=True))
    got = modules(["crop"], body, flat | {"width": width})
    np.testing.assert_allclose(got["landmarks"], want.landmarks_px.ravel())
    np.testing.assert_allclose(got["joints"], want.joints_rel_m.ravel())
    np.testing.assert_allclose(got["k"], mirrored_intrinsics(k, width).ravel())
