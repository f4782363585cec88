"""Predictors travel between processes and are copied: what they compute with, nothing compiled."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.detector import HandDetector
from m3dhmr_jax.predict.fit_method import FitMethod
from m3dhmr_jax.predict.jax_networks import JaxDetector
from m3dhmr_jax.predict.predictor import HandMeshPredictor

BOX = [180, 90, 150, 170]


@pytest.fixture
def image():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)


def in_spawned_process(predictor, *args):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(predictor, *args).result()


def assert_same(got, want, atol_m):
    assert got.handedness == want.handedness
    np.testing.assert_allclose(got.verts_m, want.verts_m, atol=atol_m)
    np.testing.assert_allclose(got.landmarks_px, want.landmarks_px, atol=0.05)
    np.testing.assert_array_equal(got.faces, want.faces)


@pytest.mark.parametrize(
    "again",
    [
        lambda predictor: pickle.loads(pickle.dumps(predictor)),
        pytest.param(copy.deepcopy, marks=pytest.mark.long),
    ],
)
def test_copies_of_a_network_predict_the_same(predictor, image, again):
    copied = again(predictor)
    assert copied.weights_sha256 == predictor.weights_sha256
    assert_same(copied(image, BOX), predictor(image, BOX), atol_m=0)


@pytest.mark.long
def test_a_network_predicts_the_same_in_a_spawned_process(predictor, image):
    args = image, BOX, "left"
    assert_same(in_spawned_process(predictor, *args), predictor(*args), atol_m=1e-6)


@pytest.mark.long
def test_the_default_predictor_predicts_the_same_in_a_spawned_process(detector_weights, image):
    predictor = HandMeshPredictor(
        FitMethod(load_builtin()), HandDetector(JaxDetector(detector_weights))
    )
    assert pickle.loads(pickle.dumps(predictor)).weights_sha256 == predictor.weights_sha256
    assert_same(in_spawned_process(predictor, image, BOX), predictor(image, BOX), atol_m=1e-6)
