import warnings

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import m3dhmr_jax
from m3dhmr_jax import HandMeshPredictor, inference
from m3dhmr_jax.camera.pinhole import apply_affine, project
from m3dhmr_jax.checkpoints.run_config import load_config
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.crops import crop_matrix, squares_around
from m3dhmr_jax.types import MESH_UNIT_M, ROOT, Prediction
from m3dhmr_jax.visualize.overlay import scale_intrinsics

K = np.array([[520.0, 0.0, 330.0], [0.0, 515.0, 236.0], [0.0, 0.0, 1.0]])
BOX = np.array([180.0, 90.0, 150.0, 170.0])


@pytest.fixture
def photo():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def predictor(tiny_network):
    return HandMeshPredictor(tiny_network, load_builtin(), tiny_network.params, tiny_network.stats)


def shapes_of(hands):
    return {
        name: value.shape
        for name, value in hands._asdict().items()
        if isinstance(value, np.ndarray)
    }


def mirrored(hands, width):
    """What the same hands are in the mirrored photo."""
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
def knowing(tiny_network, monkeypatch):
    """Makes a predictor around a network that knows where the built-in hand is."""
    hand = load_builtin()

    def make(verts_m, k, box_px):
        root_m = (hand.joint_regressor @ verts_m)[ROOT]
        landmarks_px = project(
            (hand.joint_regressor @ verts_m).astype(np.float32), k.astype(np.float32)
        )
        matrix = crop_matrix(squares_around(box_px[None])[0], tiny_network.image_size)
        landmarks_01 = (
            apply_affine(landmarks_px, matrix.astype(np.float32)) / tiny_network.image_size
        )
        verts = ((verts_m - root_m) / MESH_UNIT_M).astype(np.float32)

        def answer(graphdef, params, stats, image):
            b = len(image)
            return Prediction(jnp.stack([verts] * b), jnp.stack([landmarks_01] * b))

        monkeypatch.setattr(inference, "predict", answer)
        return HandMeshPredictor(tiny_network, hand, tiny_network.params, tiny_network.stats)

    return make


@pytest.fixture
def hand_m():
    hand = load_builtin()
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    turn[0] *= np.linalg.det(turn)
    centred = hand.verts_m - hand.verts_m.mean(axis=0)
    return (centred @ turn + [-0.06, -0.05, 0.55]).astype(np.float32)


def test_what_comes_out_has_the_places_and_sides_of_what_was_asked(predictor, photo):
    hands = predictor(photo, np.stack([BOX, BOX + 5, BOX - 9]), ["right", "left", "right"], K)
    assert shapes_of(hands) == {
        "verts_m": (3, 778, 3),
        "joints_m": (3, 21, 3),
        "landmarks_px": (3, 21, 2),
        "root_m": (3, 3),
        "root_covariance_m2": (3, 3, 3),
        "noise_px": (3,),
        "faces": (3, 1538, 3),
        "is_left": (3,),
        "square_px": (3, 4),
        "intrinsics": (3, 3),
    }
    assert hands.is_left.tolist() == [False, True, False]
    np.testing.assert_array_equal(hands.faces[1], hands.faces[0][:, ::-1])
    np.testing.assert_array_equal(hands.root_m, hands.joints_m[:, ROOT])
    regressor = load_builtin().joint_regressor
    np.testing.assert_allclose(
        np.einsum("nv,kvc->knc", regressor, hands.verts_m), hands.joints_m, atol=2e-5
    )


def test_a_known_hand_stands_where_it_is_and_projects_onto_its_landmarks(knowing, hand_m, photo):
    hands = knowing(hand_m, K, BOX)(photo, BOX, K=K)
    np.testing.assert_allclose(hands.verts_m[0], hand_m, atol=2e-4)
    seen_px = project(hands.joints_m[0], K.astype(np.float32))
    np.testing.assert_allclose(seen_px, hands.landmarks_px[0], atol=0.02)


def test_a_known_left_hand_stands_where_it_is(knowing, hand_m, photo):
    """The network sees it in the mirror, with the mirror's K and box."""
    k, box_px = K.copy(), BOX.copy()
    k[0, 2], box_px[0] = 639 - K[0, 2], 640 - BOX[0] - BOX[2]
    hands = knowing(hand_m, K, BOX)(photo, box_px, "left", k)
    np.testing.assert_allclose(hands.verts_m[0], hand_m * [-1, 1, 1], atol=2e-4)
    seen_px = project(hands.joints_m[0], k.astype(np.float32))
    np.testing.assert_allclose(seen_px, hands.landmarks_px[0], atol=0.02)


@pytest.mark.parametrize("box", [None, BOX, 3.2 * BOX])
def test_a_left_hand_is_the_mirrored_right_hand_exactly(predictor, photo, box):
    right = predictor(photo, box, "right", K)
    k, box_px = K.copy(), None
    k[0, 2] = 639 - K[0, 2]
    if box is not None:
        box_px = np.array([640 - box[0] - box[2], *box[1:]])
    left = predictor(photo[:, ::-1], box_px, "left", k)
    want = mirrored(right, 640)
    for name in ("verts_m", "joints_m", "root_m", "root_covariance_m2", "faces", "landmarks_px"):
        np.testing.assert_array_equal(getattr(left, name), getattr(want, name), err_msg=name)
    np.testing.assert_array_equal(left.noise_px, right.noise_px)


def in_crop(hands):
    """Landmarks as a fraction of the square, and vertices from the root: what the network says."""
    corner, side = hands.square_px[:, None, :2], hands.square_px[:, None, 2:]
    return (hands.landmarks_px - corner) / side, hands.verts_m - hands.root_m[:, None]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scaling_photo_and_k_together_changes_nothing_but_pixels(
    knowing, predictor, hand_m, photo, factor
):
    size = (round(640 * factor), round(480 * factor))
    scaled = cv2.resize(
        photo, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    )
    k = scale_intrinsics(K, factor)
    landmarks_01, verts_m = in_crop(predictor(photo, BOX, K=K))
    # Boxes have their corner on a pixel's centre, which lies (factor - 1) / 2 farther in the copy.
    scaled_box = BOX * factor + np.array([1, 1, 0, 0]) * (factor - 1) / 2
    scaled_uv_01, scaled_verts_m = in_crop(predictor(scaled, scaled_box, K=k))
    np.testing.assert_allclose(scaled_uv_01, landmarks_01, atol=0.02)
    np.testing.assert_allclose(scaled_verts_m, verts_m, atol=0.002)
    hands = knowing(hand_m, k, BOX * factor)(scaled, BOX * factor, K=k)
    np.testing.assert_allclose(hands.verts_m[0], hand_m, atol=3e-4)


def test_moving_the_box_by_a_pixel_moves_the_answer_a_little(predictor, photo):
    boxes_px = BOX + np.outer(np.arange(9), [1, 0, 0, 0])
    landmarks_01, verts_m = in_crop(predictor(photo, boxes_px, K=K))
    whole_uv, whole_verts = np.ptp(landmarks_01, axis=0).max(), np.ptp(verts_m, axis=0).max()
    assert 0 < np.abs(np.diff(landmarks_01, axis=0)).max() < 0.5 * whole_uv + 1e-3
    assert 0 < np.abs(np.diff(verts_m, axis=0)).max() < 0.5 * whole_verts + 1e-4


def test_programs_are_compiled_once_for_every_number_of_hands_up_to_a_power_of_two(
    tiny_network, photo, monkeypatch
):
    traced = []
    real = inference.predict
    monkeypatch.setattr(inference, "predict", lambda *a: traced.append(len(a[-1])) or real(*a))
    net = tiny_network
    predictor = HandMeshPredictor(net, load_builtin(), net.params, net.stats)
    for n in (1, 3, 2, 4, 7, 9, 5, 0, 17, 8, 1):
        boxes_px = BOX + np.outer(np.arange(n), [2, 1, 0, 0])
        assert len(predictor(photo, boxes_px, K=K).root_m) == n
    for height, width in ((50, 60), (480, 1000), (1111, 777)):
        predictor(np.zeros((height, width, 3), np.uint8))
    assert traced == [1, 4, 2, 8]


def test_a_hand_is_answered_alike_in_any_company(predictor, photo):
    boxes_px = BOX + np.outer(np.arange(11), [9, 3, 0, 0])
    together = predictor(photo, boxes_px, K=K)
    for i in (0, 7, 10):
        alone = predictor(photo, boxes_px[i], K=K)
        np.testing.assert_allclose(alone.landmarks_px[0], together.landmarks_px[i], atol=0.01)
        np.testing.assert_allclose(
            *(in_crop(h)[1][j] for h, j in ((alone, 0), (together, i))), atol=1e-5
        )


def test_without_k_a_camera_is_assumed_and_that_is_said(predictor, photo):
    hands = predictor(photo, BOX)
    assert hands.camera_is_assumed
    np.testing.assert_allclose(hands.intrinsics[0, 0], 320 / np.tan(np.radians(30)))
    assert not predictor(photo, BOX, K=K).camera_is_assumed


def test_grey_and_transparent_images_are_converted_and_that_is_said(predictor, photo):
    grey = photo[..., :1]
    want = predictor(grey.repeat(3, 2), BOX, K=K)
    with pytest.warns(UserWarning, match="one channel"):
        got = predictor(grey[..., 0], BOX, K=K)
    np.testing.assert_array_equal(got.verts_m, want.verts_m)
    with pytest.warns(UserWarning, match="alpha"):
        got = predictor(np.concatenate([grey.repeat(3, 2), grey], axis=2), BOX, K=K)
    np.testing.assert_array_equal(got.verts_m, want.verts_m)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor(photo, BOX, K=K)


def test_k_of_another_size_is_warned_of(predictor, photo):
    with pytest.warns(UserWarning, match="1321 x 945 px, but this one has 640 x 480"):
        predictor(photo, BOX, K=np.diag([2.0, 2.0, 1.0]) @ K)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"K": np.diag([0.0, 1, 1])}, "singular"),
        ({"boxes": [[1, 2, 0, 5]]}, "box 0.* no area"),
        ({"boxes": [[700, 2, 5, 5]]}, "box 0.* outside the photo of 640 x 480"),
        ({"boxes": [[1, 2, 3]]}, r"shape \(1, 3\)"),
        ({"handedness": "both"}, "'both' must be one of"),
        ({"handedness": ["left", "left"]}, "2 entries for 1 boxes"),
        ({"image": np.zeros((5, 5, 3), np.uint16)}, "16-bit"),
        ({"image": np.zeros((5, 5, 3))}, "float64"),
    ],
)
def test_bad_arguments_are_refused(predictor, photo, changes, words):
    with pytest.raises(ValueError, match=words):
        predictor(**({"image": photo, "boxes": BOX} | changes))


def test_a_run_needs_nothing_but_its_folder(trained, photo):
    predictor = HandMeshPredictor.from_checkpoint(trained[0])
    again = HandMeshPredictor.from_checkpoint(str(trained[0]))
    np.testing.assert_array_equal(predictor(photo).verts_m, again(photo).verts_m)
    assert load_config(trained[0]).model.blocks == (1, 1, 1, 1)


def test_folders_and_files_without_a_network_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither the workdir of a run nor a weights file"):
        HandMeshPredictor.from_checkpoint(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file.*--mode=predict"):
        HandMeshPredictor.from_checkpoint(tmp_path)
    save_file({"params/a": np.zeros(1, np.float32)}, tmp_path / "w.safetensors")
    assert load_file(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="its metadata holds no config"):
        HandMeshPredictor.from_checkpoint(tmp_path / "w.safetensors")
    for content, words in (("{", "no JSON"), ("[]", "names no model")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=words):
            HandMeshPredictor.from_checkpoint(tmp_path)


def test_the_package_has_nothing_else_to_offer():
    with pytest.raises(AttributeError, match="no attribute 'HandMash'"):
        m3dhmr_jax.HandMash  # noqa: B018
