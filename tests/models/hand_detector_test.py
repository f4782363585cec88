from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.models.hand_detector import (
    depthwise_native,
    depthwise_sums,
    detect_palms,
    find_landmarks,
)

# Outputs of the published graph, run operation by operation, for `pattern`.
STORED = Path(__file__).with_name("hand_detector_outputs.npz")


def pattern(side):
    """Smooth stripes of three colours."""
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(20 * x + 3 * y), np.sin(7 * x * y), np.cos(30 * y - 5 * x)]
    return np.round(127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)[None]


@pytest.mark.parametrize(("side", "size", "stride"), [(6, 5, 1), (8, 3, 2), (8, 5, 2), (7, 5, 2)])
def test_depthwise_sums_equal_native_convolution(side, size, stride):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, side, side, 4)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, 4)), jnp.float32)
    np.testing.assert_allclose(
        depthwise_sums(x, kernel, stride), depthwise_native(x, kernel, stride), atol=1e-5
    )


def test_palm_detector_matches_stored_outputs(detector_weights):
    found = jax.jit(detect_palms)(detector_weights.palms, pattern(192))
    stored = np.load(STORED)
    assert found.logits.shape == (1, 2016)
    np.testing.assert_allclose(found.logits[0, ::16], stored["logits"], atol=2e-4)
    np.testing.assert_allclose(found.offsets_px[0, ::16], stored["offsets_px"], atol=2e-4)


def test_landmark_network_matches_stored_outputs(detector_weights):
    found = jax.jit(find_landmarks)(detector_weights.landmarks, pattern(224))
    stored = np.load(STORED)
    for name, value in found._asdict().items():
        np.testing.assert_allclose(value[0], stored[name], atol=2e-4, err_msg=name)
