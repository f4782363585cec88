"""Modules of the page against the functions of Python that they repeat."""

import io

import numpy as np
import PIL.Image
import pytest
import scipy.optimize

from m3dhmr_jax.predict.cameras import fov_deg_of, intrinsics_from_focal_35mm
from m3dhmr_jax.predict.crops import crop, crop_matrix, crops_of_landmarks, hand_directions
from m3dhmr_jax.predict.detector import DetectedHands, merge_hands
from m3dhmr_jax.predict.images import EXIF_FOCAL_35MM, EXIF_FOLDER
from m3dhmr_jax.predict.palms import merge_palms
from m3dhmr_jax.predict.smoothing import one_euro
from m3dhmr_jax.predict.squares import (
    Palms,
    crop_matrices,
    homogeneous,
    squares_around_landmarks,
    squares_around_palms,
    tile_squares,
    view_matrices,
)

WIDTH, HEIGHT, SIDE = 128, 72, 48


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def draw_landmarks(rng, n):
    """Landmarks of any direction and size, in pixels."""
    sizes = rng.uniform(20, 200, (n, 1, 1))
    return rng.normal(size=(n, 21, 2)) * sizes + rng.uniform(0, 300, (n, 1, 2))


@pytest.mark.parametrize("scale", [1.7, 0.8, 0.45, 0.3, 0.13])
def test_crops_are_those_of_opencv(modules, rng, scale):
    image = rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    image = np.asarray(PIL.Image.fromarray(image).resize((WIDTH, HEIGHT), PIL.Image.BICUBIC))
    for angle, mirror, centre in ((0.0, 1, (64, 36)), (1.1, 1, (120, 4)), (2.5, -1, (20, 60))):
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        linear = scale * np.array(turn) @ np.diag([mirror, 1])
        matrix = np.column_stack([linear, (SIDE - 1) / 2 - linear @ centre])
        rgba = np.dstack([image, np.full((HEIGHT, WIDTH), 255, np.uint8)])
        found = modules(
            ["pixels"],
            """const {data, width, height, matrix} = argument;
            return Array.from(pixels.cropPixels({data, width, height}, matrix, 48));""",
            {
                "data": rgba.ravel().tolist(),
                "width": WIDTH,
                "height": HEIGHT,
                "matrix": matrix.ravel().tolist(),
            },
        )
        difference = np.abs(
            np.reshape(found, (SIDE, SIDE, 3)) - crop(image, matrix, SIDE).astype(int)
        )
        assert difference.max() <= 1
        assert difference.mean() < 2e-3


def test_squares_and_hand_crops_are_those_of_python(modules, rng):
    landmarks_px = draw_landmarks(rng, 8)
    boxes = rng.uniform(0, 200, (8, 4)) + np.array([0, 0, 200, 200])
    palms = Palms(boxes, rng.uniform(0, 300, (8, 7, 2)), np.ones(8))
    found = modules(
        ["squares", "hand_crops"],
        """const {landmarks, boxes, points} = argument;
        const {mapToSquare, compose} = squares;
        return {
          refined: landmarks.map((each) => mapToSquare(squares.squareAroundLandmarks(each), 224)),
          palms: boxes.map((box, i) =>
            mapToSquare(squares.squareAroundPalm({box, points: points[i]}), 224)),
          views: squares.VIEW_MATRICES,
          composed: compose(squares.VIEW_MATRICES[4], squares.VIEW_MATRICES[1]),
          crops: landmarks.map((each) => hand_crops.cropOfLandmarks(each)),
          directions: landmarks.map((each) => hand_crops.handDirection(each)),
          maps: landmarks.map((each) => hand_crops.mapToCrop(
            hand_crops.cropOfLandmarks(each), 64, hand_crops.handDirection(each))),
        };""",
        {
            "landmarks": landmarks_px.reshape(8, -1).tolist(),
            "boxes": boxes.tolist(),
            "points": palms.points_px.reshape(8, -1).tolist(),
        },
    )
    views = view_matrices()
    crops_px, directions = crops_of_landmarks(landmarks_px), hand_directions(landmarks_px)
    expected = {
        "refined": crop_matrices(squares_around_landmarks(landmarks_px), 224),
        "palms": crop_matrices(squares_around_palms(palms), 224),
        "views": views,
        "composed": views[4] @ homogeneous(views[1]),
        "crops": crops_px,
        "directions": directions,
        "maps": [
            crop_matrix(each, 64, angle)
            for each, angle in zip(crops_px, directions.tolist(), strict=True)
        ],
    }
    for name, values in expected.items():
        actual = np.reshape(found[name], np.shape(values))
        np.testing.assert_allclose(actual, values, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1920, 1080), (300, 200), (3000, 500)])
def test_tiles_are_those_of_python(modules, size):
    found = modules(["squares"], "return squares.tileSquares(...argument);", size)
    expected = list(tile_squares(*size))
    assert len(found) == len(expected)
    for tiles, tiling in zip(found, expected, strict=True):
        np.testing.assert_allclose([tile["centre"] for tile in tiles], tiling.centre_px)
        np.testing.assert_allclose([tile["side"] for tile in tiles], tiling.side_px)


def test_palms_and_hands_are_merged_as_in_python(modules, rng):
    corner = rng.uniform(0, 60, (30, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 60, (30, 2))], axis=1)
    palms = Palms(boxes, rng.uniform(0, 99, (30, 7, 2)), rng.uniform(0.4, 1, 30))
    near_px = draw_landmarks(rng, 6).repeat(3, axis=0) + rng.normal(0, 15, (18, 21, 2))
    presence = rng.uniform(size=18)
    hands = DetectedHands(near_px, np.zeros((18, 21, 3)), presence, presence, np.zeros((18, 21)))
    found = modules(
        ["palms", "detector"],
        """const {boxes, points, scores, landmarks, presence} = argument;
        const merged = palms.mergePalms(boxes.map((box, i) =>
          ({box, points: points[i], score: scores[i]})));
        const hands = detector.mergeHands(landmarks.map((landmarksPx, i) =>
          ({landmarksPx, presence: presence[i]})));
        return {palms: merged, presence: hands.map((hand) => hand.presence)};""",
        {
            "boxes": boxes.tolist(),
            "points": palms.points_px.reshape(30, -1).tolist(),
            "scores": palms.score.tolist(),
            "landmarks": near_px.reshape(18, -1).tolist(),
            "presence": presence.tolist(),
        },
    )
    expected = merge_palms(palms)
    assert 1 < len(expected.score) < 30
    np.testing.assert_allclose([palm["box"] for palm in found["palms"]], expected.box_px)
    np.testing.assert_allclose(
        [palm["points"] for palm in found["palms"]], expected.points_px.reshape(-1, 14)
    )
    kept = merge_hands(hands).presence
    assert 1 < len(kept) < 18
    np.testing.assert_allclose(found["presence"], kept)


def test_tracks_are_assigned_at_least_cost(modules, rng):
    for rows, columns in ((3, 3), (4, 2), (2, 5), (1, 1), (2, 0), (0, 2)):
        cost = rng.uniform(0, 1.6, (rows, columns))
        chosen = modules(
            ["tracker"],
            "return tracker.assign(argument.cost, argument.n, 1);",
            {"cost": cost.tolist(), "n": columns},
        )
        capped = np.minimum(cost, 1)
        pairs = zip(*scipy.optimize.linear_sum_assignment(capped), strict=True)
        expected = [-1] * rows
        for i, j in pairs:
            if capped[i, j] < 1:
                expected[i] = int(j)
        assert chosen == expected


def test_smoothing_is_that_of_python(modules, rng):
    frames = np.cumsum(rng.normal(0, 0.01, (12, 5, 3)), axis=0)
    found = modules(
        ["smoothing"],
        """let state;
        return argument.map((points) => {
          state = smoothing.oneEuro(state, Float64Array.from(points), 3, 0.04, 1.5, 20);
          return Array.from(state.points);
        });""",
        frames.reshape(12, -1).tolist(),
    )
    state, expected = None, []
    for points in frames:
        state = one_euro(state, points, 0.04, 1.5, 20.0)
        expected.append(state.points)
    np.testing.assert_allclose(np.reshape(found, frames.shape), expected, atol=1e-12)


def test_a_smoothed_hand_keeps_its_joints_on_its_mesh(modules):
    """At rest nothing moves; another hand starts anew."""
    found = modules(
        ["smoothing"],
        """const smoother = new smoothing.HandSmoother();
        const hand = {track: 0, vertsM: Float32Array.of(0.1, 0, 0.5, 0.2, 0, 0.5),
          jointsM: Float64Array.of(0, 0, 0.5, 0.1, 0, 0.5), landmarksPx: Float64Array.of(1, 2)};
        for (let i = 1; i < 5; i++) smoother.smooth([hand], i / 30, 500);
        const [same] = smoother.smooth([hand], 0.2, 500);
        const moved = {...hand, track: 1, vertsM: hand.vertsM.map((x) => x + 0.3)};
        const [other] = smoother.smooth([moved], 0.3, 500);
        return [...same.vertsM, ...same.jointsM, ...same.landmarksPx, other.vertsM[0]];""",
    )
    expected = [0.1, 0, 0.5, 0.2, 0, 0.5, 0, 0, 0.5, 0.1, 0, 0.5, 1, 2, 0.4]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("focal_mm", [26, None])
def test_the_focal_length_of_exif_data_is_read(modules, focal_mm):
    exif = PIL.Image.Exif()
    if focal_mm is not None:
        exif.get_ifd(EXIF_FOLDER)[EXIF_FOCAL_35MM] = focal_mm
    exif[0x0110] = "A camera with a long name"
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (40, 30)).save(buffer, "JPEG", exif=exif)
    content = buffer.getvalue()
    program = """const bytes = Uint8Array.from(argument.content);
        const mm = exif.focal35mm(bytes.buffer);
        return [mm, mm && camera.fovFromFocal35mm(mm, 40, 30)];"""
    found = modules(["exif", "camera"], program, {"content": list(content)})
    assert found[0] == (focal_mm or 0)
    if focal_mm is not None:
        k = intrinsics_from_focal_35mm(float(focal_mm), 40, 30)
        assert found[1] == pytest.approx(fov_deg_of(k, 40, 30))
    for damaged in (content[:40], content[:7], b"", b"\xff\xd8\xff\xe1\xff\xffExif\0\0II*\0"):
        assert modules(["exif", "camera"], program, {"content": list(damaged)})[0] == 0


def test_intrinsics_are_those_of_python(modules):
    from m3dhmr_jax.predict.cameras import ASSUMED_FOV_DEG, assumed_intrinsics

    found = modules(
        ["camera"], "return Array.from(camera.intrinsicsFromFov(camera.ASSUMED_FOV_DEG, 640, 480));"
    )
    np.testing.assert_allclose(np.reshape(found, (3, 3)), assumed_intrinsics(640, 480))
    assert modules(["camera"], "return camera.ASSUMED_FOV_DEG;") == ASSUMED_FOV_DEG
