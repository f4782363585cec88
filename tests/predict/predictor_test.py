import warnings

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import m3dhmr_jax
from m3dhmr_jax import HandMeshPredictor, inference
from m3dhmr_jax.camera.pinhole import apply_affine, project, rotate_about_optical_axis
from m3dhmr_jax.checkpoints.run_config import config_text
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.cameras import assumed_intrinsics
from m3dhmr_jax.predict.candidates import Candidates
from m3dhmr_jax.predict.crops import crop_matrix, crops_around
from m3dhmr_jax.predict.jax_networks import JaxNetwork
from m3dhmr_jax.predict.methods import NetworkMethod
from m3dhmr_jax.types import MESH_UNIT_M, ROOT, Prediction
from m3dhmr_jax.visualize.overlay import scale_intrinsics

K = np.array([[520.0, 0.0, 330.0], [0.0, 515.0, 236.0], [0.0, 0.0, 1.0]])
BOX = np.array([180.0, 90.0, 150.0, 170.0])


@pytest.fixture
def image():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)


def shapes_of(hands):
    return {
        name: value.shape
        for name, value in hands._asdict().items()
        if isinstance(value, np.ndarray)
    }


def mirrored(hands, width):
    """The same hands in the mirrored image."""
    flip = np.array([-1, 1, 1], np.float32)
    landmarks_px = hands.landmarks_px.copy()
    landmarks_px[..., 0] = width - 1 - landmarks_px[..., 0]
    return hands._replace(
        verts_m=hands.verts_m * flip,
        joints_m=hands.joints_m * flip,
        root_m=hands.root_m * flip,
        root_covariance_m2=hands.root_covariance_m2 * flip[None, :, None] * flip[None, None],
        landmarks_px=landmarks_px,
        faces=hands.faces[..., ::-1],
    )


@pytest.fixture
def oracle(tiny_network, monkeypatch):
    """A function that creates a predictor whose network returns the true hand at this crop."""
    hand = load_builtin()

    def make(verts_m, k, box_px, noise_px=0.0, direction_rad=0.0):
        root_m = (hand.joint_regressor @ verts_m)[ROOT]
        landmarks_px = project(
            (hand.joint_regressor @ verts_m).astype(np.float32), k.astype(np.float32)
        )
        noise = np.random.default_rng(0).normal(size=landmarks_px.shape).astype(np.float32)
        landmarks_px += np.float32(noise_px) * noise
        crop_px = crops_around(box_px[None])[0]
        matrix = crop_matrix(crop_px, tiny_network.image_size, direction_rad)
        landmarks_01 = (
            apply_affine(landmarks_px, matrix.astype(np.float32)) / tiny_network.image_size
        )
        verts = ((verts_m - root_m) / MESH_UNIT_M).astype(np.float32)
        verts = rotate_about_optical_axis(verts, np.array(-direction_rad, np.float32))

        def predict(graphdef, params, stats, image):
            b = len(image)
            return Prediction(jnp.stack([verts] * b), jnp.stack([landmarks_01] * b))

        monkeypatch.setattr(inference, "predict", predict)
        net = tiny_network
        return HandMeshPredictor(NetworkMethod(JaxNetwork(net, hand, net.params, net.stats)))

    return make


def at(box_px, side="right", direction_rad=0.0):
    """One candidate."""
    one = np.ones(1)
    crops_px = crops_around(np.asarray(box_px, float).reshape(1, 4))
    return Candidates(crops_px, direction_rad * one, (side,), np.nan * one, one, None)


@pytest.fixture
def hand_m():
    hand = load_builtin()
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    rotation[0] *= np.linalg.det(rotation)
    centred = hand.verts_m - hand.verts_m.mean(axis=0)
    return (centred @ rotation + [-0.06, -0.05, 0.55]).astype(np.float32)


def test_predictor_returns_one_hand_per_box(predictor, image):
    hands = predictor(image, np.stack([BOX, BOX + 5, BOX - 9]), ["right", "left", "right"], K)
    assert shapes_of(hands) == {
        "verts_m": (3, 778, 3),
        "joints_m": (3, 21, 3),
        "landmarks_px": (3, 21, 2),
        "root_m": (3, 3),
        "root_covariance_m2": (3, 3, 3),
        "noise_px": (3,),
        "faces": (3, 1538, 3),
        "handedness_probability": (3,),
        "score": (3,),
        "is_unsure": (3,),
        "crop_px": (3, 4),
        "direction_rad": (3,),
        "track": (3,),
        "intrinsics": (3, 3),
    }
    assert hands.handedness == ("right", "left", "right")
    np.testing.assert_array_equal(hands.faces[1], hands.faces[0][:, ::-1])
    np.testing.assert_array_equal(hands.root_m, hands.joints_m[:, ROOT])
    regressor = load_builtin().joint_regressor
    np.testing.assert_allclose(
        np.einsum("nv,kvc->knc", regressor, hands.verts_m), hands.joints_m, atol=2e-5
    )


@pytest.mark.parametrize("direction_rad", [0.0, 0.7, -2.5])
def test_predictor_recovers_a_true_right_hand(oracle, hand_m, image, direction_rad):
    predictor = oracle(hand_m, K, BOX, direction_rad=direction_rad)
    hands = predictor.predict(image, at(BOX, direction_rad=direction_rad), K)
    np.testing.assert_allclose(hands.verts_m[0], hand_m, atol=2e-4)
    seen_px = project(hands.joints_m[0], K.astype(np.float32))
    np.testing.assert_allclose(seen_px, hands.landmarks_px[0], atol=0.02)


@pytest.mark.parametrize("direction_rad", [0.0, 0.7])
def test_predictor_recovers_a_true_left_hand(oracle, hand_m, image, direction_rad):
    """The network gets the mirrored image, K and box."""
    k, box_px = K.copy(), BOX.copy()
    k[0, 2], box_px[0] = 639 - K[0, 2], 640 - BOX[0] - BOX[2]
    predictor = oracle(hand_m, K, BOX, direction_rad=direction_rad)
    hands = predictor.predict(image, at(box_px, "left", -direction_rad), k)
    np.testing.assert_allclose(hands.verts_m[0], hand_m * [-1, 1, 1], atol=2e-4)
    seen_px = project(hands.joints_m[0], k.astype(np.float32))
    np.testing.assert_allclose(seen_px, hands.landmarks_px[0], atol=0.02)


@pytest.mark.parametrize("box", [BOX, 3.2 * BOX])
def test_left_hand_equals_the_mirrored_right_hand(predictor, image, box):
    right = predictor(image, box, "right", K)
    k, box_px = K.copy(), np.array([640 - box[0] - box[2], *box[1:]])
    k[0, 2] = 639 - K[0, 2]
    left = predictor(image[:, ::-1], box_px, "left", k)
    want = mirrored(right, 640)
    for name in ("verts_m", "joints_m", "root_m", "root_covariance_m2", "faces", "landmarks_px"):
        np.testing.assert_array_equal(getattr(left, name), getattr(want, name), err_msg=name)
    np.testing.assert_array_equal(left.noise_px, right.noise_px)


def in_crop(hands):
    """The network's outputs: landmarks as a fraction of the crop, and vertices from the root."""
    corner, side = hands.crop_px[:, None, :2], hands.crop_px[:, None, 2:]
    return (hands.landmarks_px - corner) / side, hands.verts_m - hands.root_m[:, None]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scaling_image_and_k_together_keeps_the_hand(oracle, predictor, hand_m, image, factor):
    size = (round(640 * factor), round(480 * factor))
    scaled = cv2.resize(
        image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    )
    k = scale_intrinsics(K, factor)
    landmarks_01, verts_m = in_crop(predictor(image, BOX, K=K))
    # Boxes have their corner on a pixel's centre, which lies (factor - 1) / 2 farther in the copy.
    scaled_box = BOX * factor + np.array([1, 1, 0, 0]) * (factor - 1) / 2
    scaled_01, scaled_verts_m = in_crop(predictor(scaled, scaled_box, K=k))
    np.testing.assert_allclose(scaled_01, landmarks_01, atol=0.02)
    # Resampling is not exact, and single vertices of an untrained network amplify that.
    rms_m = np.sqrt(np.mean((scaled_verts_m - verts_m) ** 2))
    assert rms_m < 0.1 * np.sqrt(np.mean(verts_m**2))
    hands = oracle(hand_m, k, BOX * factor).predict(scaled, at(BOX * factor), k)
    np.testing.assert_allclose(hands.verts_m[0], hand_m, atol=3e-4)


@pytest.mark.long
def test_prediction_changes_little_with_the_box(predictor, image):
    boxes_px = BOX + np.outer(np.arange(9), [1, 0, 0, 0])
    landmarks_01, verts_m = in_crop(predictor(image, boxes_px, K=K))
    range_01, range_m = np.ptp(landmarks_01, axis=0).max(), np.ptp(verts_m, axis=0).max()
    assert 0 < np.abs(np.diff(landmarks_01, axis=0)).max() < 0.5 * range_01 + 1e-3
    assert 0 < np.abs(np.diff(verts_m, axis=0)).max() < 0.5 * range_m + 1e-4


@pytest.mark.long
def test_predictor_compiles_once_per_bucket(tiny_network, image, monkeypatch):
    traced = []
    real = inference.predict
    monkeypatch.setattr(inference, "predict", lambda *a: traced.append(len(a[-1])) or real(*a))
    net = tiny_network
    network = JaxNetwork(net, load_builtin(), net.params, net.stats)
    predictor = HandMeshPredictor(NetworkMethod(network))
    for n in (1, 3, 2, 4, 7, 9, 5, 0, 17, 8, 1):
        boxes_px = BOX + np.outer(np.arange(n), [2, 1, 0, 0])
        assert len(predictor(image, boxes_px, K=K).root_m) == n
    for height, width in ((50, 60), (480, 1000), (1111, 777)):
        predictor(np.zeros((height, width, 3), np.uint8), [[0, 0, width, height]])
    assert traced == [1, 4, 2, 8]


def test_prediction_does_not_depend_on_the_batch(predictor, image):
    boxes_px = BOX + np.outer(np.arange(11), [9, 3, 0, 0])
    together = predictor(image, boxes_px, K=K)
    for i in (0, 7, 10):
        alone = predictor(image, boxes_px[i], K=K)
        np.testing.assert_allclose(alone.landmarks_px[0], together.landmarks_px[i], atol=0.01)
        np.testing.assert_allclose(
            *(in_crop(h)[1][j] for h, j in ((alone, 0), (together, i))), atol=1e-5
        )


def test_predictor_reports_an_assumed_camera(predictor, image):
    hands = predictor(image, BOX)
    assert hands.camera_is_assumed
    np.testing.assert_allclose(hands.intrinsics[0, 0], 320 / np.tan(np.radians(30)))
    assert not predictor(image, BOX, K=K).camera_is_assumed


def test_predictor_warns_of_converted_images(predictor, image):
    grey = image[..., :1]
    want = predictor(grey.repeat(3, 2), BOX, K=K)
    with pytest.warns(UserWarning, match="one channel"):
        got = predictor(grey[..., 0], BOX, K=K)
    np.testing.assert_array_equal(got.verts_m, want.verts_m)
    with pytest.warns(UserWarning, match="alpha"):
        got = predictor(np.concatenate([grey.repeat(3, 2), grey], axis=2), BOX, K=K)
    np.testing.assert_array_equal(got.verts_m, want.verts_m)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor(image, BOX, K=K)


def test_predictor_warns_of_k_of_another_size(predictor, image):
    with pytest.warns(UserWarning, match="1321 x 945"):
        predictor(image, BOX, K=np.diag([2.0, 2.0, 1.0]) @ K)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"K": np.diag([0.0, 1, 1])}, r"\[0\.0, 0\.0, 0\.0\]"),
        ({"boxes": [[1, 2, 0, 5]]}, r"\(1, 2, 0, 5\)"),
        ({"boxes": [[700, 2, 5, 5]]}, r"\(700, 2, 5, 5\)"),
        ({"boxes": [[1, 2, 3]]}, r"\(1, 3\)"),
        ({"handedness": "both"}, "both"),
        ({"handedness": ["left", "left"]}, "2 entries for 1"),
        ({"image": np.zeros((5, 5, 3), np.uint16)}, "uint16"),
        ({"image": np.zeros((5, 5, 3))}, "float64"),
    ],
)
def test_predictor_rejects_invalid_arguments(predictor, image, changes, value):
    with pytest.raises(UserError, match=value):
        predictor(**({"image": image, "boxes": BOX} | changes))


@pytest.fixture
def weights_file(tiny_network, tiny_config, tmp_path):
    path = tmp_path / "tiny.safetensors"
    metadata = {"config": config_text(tiny_config())}
    save_weights(path, tiny_network.params, tiny_network.stats, metadata)
    return path


@pytest.mark.long
def test_from_checkpoint_reads_a_weights_file(predictor, weights_file, image):
    loaded = HandMeshPredictor.from_checkpoint(str(weights_file))
    assert loaded.weights_sha256 == predictor.weights_sha256
    want = predictor(image, BOX, "right").verts_m
    np.testing.assert_allclose(loaded(image, BOX, "right").verts_m, want, atol=1e-5)


@pytest.mark.long
def test_from_checkpoint_reads_a_run(trained, image):
    predictor = HandMeshPredictor.from_checkpoint(trained[0])
    again = HandMeshPredictor.from_checkpoint(str(trained[0]))
    first, second = (each(image, BOX, "right").verts_m for each in (predictor, again))
    np.testing.assert_array_equal(first, second)


def test_from_checkpoint_rejects_what_is_not_a_network(tmp_path):
    with pytest.raises(UserError, match="none"):
        HandMeshPredictor.from_checkpoint(tmp_path / "none")
    with pytest.raises(UserError, match=r"config\.json"):
        HandMeshPredictor.from_checkpoint(tmp_path)
    save_file({"params/a": np.zeros(1, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"w\.safetensors"):
        HandMeshPredictor.from_checkpoint(tmp_path / "w.safetensors")
    for content in ("{", "[]"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json"):
            HandMeshPredictor.from_checkpoint(tmp_path)


def test_image_size_of_224_px_is_like_any_other(predictor):
    """One hand-sized pattern, as images of three sizes."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    focals_px, depths_m = [], []
    for side in (223, 224, 225):
        image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        k = assumed_intrinsics(side, side)
        whole = at((0, 0, side, side))._replace(crop_px=np.array([[0.0, 0, side, side]]))
        hands = predictor.predict(image, whole, k)
        focals_px.append(hands.intrinsics[0, 0])
        depths_m.append(hands.root_m[0, 2])
    np.testing.assert_allclose(focals_px, focals_px[1], rtol=0.005)
    # An untrained network amplifies the difference in resampling.
    np.testing.assert_allclose(depths_m, depths_m[1], rtol=0.05)


def test_freihand_takes_the_centred_crop_and_its_field_of_view(predictor):
    image = np.zeros((224, 224, 3), np.uint8)
    hands = predictor(image, freihand=True)
    np.testing.assert_allclose(hands.crop_px[0], [47, 47, 130, 130])
    assert 440 < hands.intrinsics[0, 0] < 460
    k = np.array([[500.0, 0, 112], [0, 500, 112], [0, 0, 1]])
    np.testing.assert_array_equal(predictor(image, K=k, freihand=True).intrinsics, k)


def silhouette(hand_m, faces, k, shape=(480, 640)):
    """The mask of a mesh."""
    mask = np.zeros(shape, np.uint8)
    points_px = np.asarray(project(hand_m, k.astype(np.float32)))
    for triangle in points_px[faces]:
        cv2.fillConvexPoly(mask, np.round(triangle * 16).astype(np.int32), 255, shift=4)
    return mask


@pytest.mark.long
@pytest.mark.parametrize("side", ["right", "left"])
def test_masks_improve_the_position_of_noisy_landmarks(oracle, hand_m, image, side):
    """Also of left hands, whose masks must be mirrored."""
    flip = np.array([-1 if side == "left" else 1, 1, 1], np.float32)
    k, box_px = K.copy(), BOX.copy()
    if side == "left":
        k[0, 2], box_px[0] = 639 - K[0, 2], 640 - BOX[0] - BOX[2]
    mask = silhouette(hand_m * flip, load_builtin().faces, k)
    predictor = oracle(hand_m, K, BOX, noise_px=6.0)
    true_m = (load_builtin().joint_regressor @ hand_m)[ROOT] * flip
    with_mask, without = (
        predictor.predict(image, at(box_px, side), k, each).root_m[0] - true_m
        for each in (mask[None] > 0, None)
    )
    assert np.linalg.norm(with_mask) < 0.7 * np.linalg.norm(without)


@pytest.mark.long
def test_masks_give_boxes(predictor, image):
    masks = np.zeros((2, 480, 640), bool)
    masks[0, 100:200, 50:120] = True
    masks[1, 300, 400] = True
    hands = predictor(image, masks=masks)
    want = predictor(image, [[50, 100, 70, 100], [400, 300, 1, 1]])
    np.testing.assert_array_equal(hands.crop_px, want.crop_px)


def test_empty_mask_counts_as_none_with_a_warning(predictor, image):
    masks = np.zeros((2, 480, 640), np.uint8)
    boxes = [BOX, BOX + 5]
    with pytest.warns(UserWarning, match=r"\[0, 1\]"):
        hands = predictor(image, boxes, masks=masks)
    np.testing.assert_array_equal(hands.verts_m, predictor(image, boxes).verts_m)


@pytest.mark.parametrize(
    ("shape", "boxes", "value"),
    [
        ((640, 480), None, "480 x 640 px"),
        ((2, 480, 640), [BOX], "2 masks for 1"),
        ((480, 640, 3, 1), None, r"\(480, 640, 3, 1\)"),
    ],
)
def test_predictor_rejects_masks_that_do_not_fit(predictor, image, shape, boxes, value):
    with pytest.raises(UserError, match=value):
        predictor(image, boxes, masks=np.ones(shape, np.uint8))


def test_several_masks_without_boxes_must_not_be_empty(predictor, image):
    masks = np.zeros((2, 480, 640), np.uint8)
    masks[0, 100:200, 50:120] = 1
    with (
        pytest.warns(UserWarning, match=r"\[1\]"),
        pytest.raises(UserError, match=r"\[1\]"),
    ):
        predictor(image, masks=masks)


def test_package_has_no_other_attributes():
    with pytest.raises(AttributeError, match="no attribute 'HandMash'"):
        m3dhmr_jax.HandMash  # noqa: B018
