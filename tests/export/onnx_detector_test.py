import json

import jax
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from m3dhmr_jax.export.check import drawn_hands  # noqa: E402
from m3dhmr_jax.export.onnx_detector import (  # noqa: E402
    IMAGES,
    LANDMARKS,
    PALMS,
    landmark_model,
    palm_model,
    write_detector,
)
from m3dhmr_jax.hand import load_builtin  # noqa: E402
from m3dhmr_jax.models.hand_detector import detect_palms, find_landmarks  # noqa: E402
from m3dhmr_jax.models.hand_detector_outputs import PALM_IMAGE_PX  # noqa: E402

# Of the largest value: rounding.
TOLERANCE = 1e-5


def upright_hands(n, side):
    """Hands with their fingers up, tilted more and more, the palm towards the camera."""
    upright = np.eye(3)[[2, 0, 1]]
    angles = 0.4 * np.arange(n)
    tilts = np.stack(
        [[[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]] for a in angles]
    )
    return drawn_hands(load_builtin(), tilts @ upright, side)


def outputs(model, images):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {IMAGES: images}), strict=True))


NETWORKS = {
    "palms": (palm_model, detect_palms, 192),
    "landmarks": (landmark_model, find_landmarks, 224),
}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_jax(detector_weights, name, half):
    make, network, side = NETWORKS[name]
    weights, images = getattr(detector_weights, name), upright_hands(3, side)
    model = make(weights, half=half)
    want = jax.jit(network)(weights, images)._asdict()
    for batch in (images, images[1:2]):
        got = outputs(model, batch)
        assert got.keys() == want.keys()
        for output, value in got.items():
            expected = np.asarray(want[output])[slice(None) if len(batch) == 3 else slice(1, 2)]
            scale = max(np.abs(expected).max(), 1)
            np.testing.assert_allclose(value, expected, atol=TOLERANCE * scale, err_msg=output)


def test_the_drawn_hands_are_seen(detector_weights):
    """Else the comparison would be one of backgrounds."""
    palms = outputs(palm_model(detector_weights.palms), upright_hands(3, 192))
    assert palms["logits"].shape == (3, 2016)
    assert (palms["logits"].max(axis=1) > 0).all()
    assert np.abs(palms["offsets_px"]).max() > 10
    hands = outputs(landmark_model(detector_weights.landmarks), upright_hands(3, 224))
    assert hands["presence"].shape == (3,)
    assert (hands["presence"] > 0.5).all()


def test_half_files_store_the_published_weights_exactly(detector_weights, tmp_path):
    write_detector(tmp_path / "full", *detector_weights)
    write_detector(tmp_path / "half", *detector_weights, half=True)
    for name in (PALMS, LANDMARKS):
        full, half = (onnx.load(tmp_path / folder / name) for folder in ("full", "half"))
        assert half.ByteSize() < 0.52 * full.ByteSize()
        for exact, stored in zip(full.graph.initializer, half.graph.initializer, strict=True):
            exact, stored = map(onnx.numpy_helper.to_array, (exact, stored))
            np.testing.assert_array_equal(stored.astype(exact.dtype), exact)


def test_metadata_says_where_the_cells_are(detector_weights):
    metadata = {x.key: x.value for x in palm_model(detector_weights.palms).metadata_props}
    assert "Apache-2.0" in metadata["origin"]
    grids = json.loads(metadata["grids"])
    assert [(PALM_IMAGE_PX / cells, n) for cells, n in grids] == [(8, 2), (16, 6)]
