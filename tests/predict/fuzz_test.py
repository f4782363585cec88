"""Whatever is asked, there are three outcomes: a plausible answer, a UserError, a counted skip."""

import json
import math
import os
import tempfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.fit_method import FitMethod
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.run import IncompleteError, PredictOptions, predict_files
from m3dhmr_jax.runtime.files import readable

DEPTH_M, SIZE_M = (0.04, 25.0), (0.05, 0.35)
EXTREMES = [0.0, -1.0, 1e-9, 1e9, -1e9, 1e300, math.inf, math.nan]


def bounded(examples):
    """The same examples in every run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def numbers(low, high):
    return st.floats(low, high) | st.sampled_from(EXTREMES)


sizes = st.sampled_from([(1, 1), (2000, 4), (4, 2000), (1, 300), (64, 48), (640, 480)]) | st.tuples(
    st.integers(1, 300), st.integers(1, 300)
)
wrong = st.none() | st.sampled_from([{}, "a", 1, [], [[1, 2]], [[1, 2, 3, 4, 5]], object()])
sides = st.none() | st.sampled_from(["right", "left", "both", 1, ["left"], ["right", None], []])


def boxes_in(width, height):
    position, extent = numbers(-width, 2 * width), numbers(-1, 1.5 * max(width, height))
    inside = st.tuples(
        st.floats(0, width / 2), st.floats(0, height / 2), st.floats(1, 400), st.floats(1, 400)
    )
    box = inside | st.tuples(position, position, extent, extent)
    return st.lists(box.map(list), max_size=3)


def cameras_of(width, height):
    focal = st.floats(-2, 3).map(lambda power: max(width, height) * 10**power) | numbers(1, 2000)
    centre = numbers(-width, 2 * width)
    usual = focal.map(lambda f: [[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]])
    skew = st.sampled_from([0.0, 0.0, 1.0, math.nan])
    any_k = st.tuples(focal, skew, centre, focal, centre).map(
        lambda k: [[k[0], k[1], k[2]], [0, k[3], k[4]], [0, 0, 1]]
    )
    return st.none() | usual | any_k


def landmarks_in(width, height):
    """Of one hand: a scaled and moved drawing of one, or anything."""

    def hand(args):
        x, y, scale, noise, seed = args
        rest = load_builtin().joint_regressor @ load_builtin().verts_m
        points = rest[:, :2] - rest[0, :2]
        jitter = np.random.default_rng(seed).normal(size=(21, 2))
        return points / np.abs(points).max() * scale + [x, y] + noise * jitter

    return st.tuples(
        numbers(0, width),
        numbers(0, height),
        numbers(1, max(width, height)),
        st.sampled_from([0.0, 1.0, 100.0]),
        st.integers(0, 9),
    ).map(hand)


def pixels_of(width, height, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def check_plausible(hands):
    """Finite numbers, and hands of a possible size where hands can be, or marked as unsure."""
    for name in ("verts_m", "joints_m", "landmarks_px", "root_m", "noise_px", "score"):
        assert np.isfinite(getattr(hands, name)).all(), name
    depth_m = hands.root_m[:, 2]
    assert ((depth_m >= DEPTH_M[0]) & (depth_m <= DEPTH_M[1])).all(), depth_m
    assert (hands.verts_m[..., 2] > 0).all()
    size_m = np.ptp(hands.verts_m, axis=1).max(axis=1)
    is_plausible = (size_m >= SIZE_M[0]) & (size_m <= SIZE_M[1])
    assert (is_plausible | hands.is_unsure).all(), size_m


def check_call(predictor, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            hands = predictor(*args, **options)
        except UserError:
            return
        check_plausible(hands)


def check_boxes_and_cameras(data, predictor):
    width, height = data.draw(sizes)
    boxes = data.draw(boxes_in(width, height) | wrong)
    k = data.draw(cameras_of(width, height) | wrong)
    check_call(predictor, pixels_of(width, height), boxes, data.draw(sides), k)


@bounded(40)
@given(st.data())
def test_calls_of_a_network(predictor, data):
    check_boxes_and_cameras(data, predictor)


@pytest.mark.long
@bounded(500)
@given(st.data())
def test_many_calls_of_a_network(predictor, data):
    check_boxes_and_cameras(data, predictor)


@pytest.mark.long
@bounded(10)
@given(st.data())
def test_calls_of_the_fit(detector, data):
    fit = HandMeshPredictor(FitMethod(load_builtin()), detector)
    width, height = data.draw(sizes)
    image, k = pixels_of(width, height), data.draw(cameras_of(width, height))
    side = data.draw(sides)
    check_call(fit, image, None, side, k, landmarks=data.draw(landmarks_in(width, height) | wrong))
    check_call(fit, image, data.draw(boxes_in(width, height) | wrong), side, k)


names = st.one_of(
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
    ),
    st.sampled_from(["-x", "--out", "a b", " a ", ".a", "a..", "ä.b", "手", "*?[a]", "a\nb", "%s"]),
    st.binary(min_size=1, max_size=20)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
    .map(os.fsdecode),
)


def write_boxes(path, boxes_by_file):
    rows = [
        dict(zip(("image", "x", "y", "width", "height"), (name, *box), strict=True))
        for name, boxes in boxes_by_file.items()
        for box in boxes
    ]
    path.write_text(json.dumps(rows))
    return path


def check_files(data, predictor):
    """Every image has its line, or the run ends with the number and names of those skipped."""
    with tempfile.TemporaryDirectory() as parent:
        folder, out = Path(parent) / "images", Path(parent) / "out"
        folder.mkdir()
        boxes_by_file = {}
        for name in data.draw(st.lists(names, min_size=1, max_size=3, unique=True)):
            width, height = data.draw(sizes)
            content = cv2.imencode(".png", pixels_of(width, height))[1].tobytes()
            content = data.draw(st.sampled_from([content, content, content[:99], b"", b"text"]))
            (folder / f"{name}.png").write_bytes(content)
            boxes_by_file[f"{name}.png"] = data.draw(boxes_in(width, height))
        k = data.draw(cameras_of(64, 48))
        options = PredictOptions(
            [str(folder)],
            boxes=write_boxes(Path(parent) / "boxes.json", boxes_by_file),
            intrinsics=None if k is None else np.array(k),
        )
        try:
            predict_files(lambda: predictor, options, out)
            skipped = ""
        except IncompleteError as error:
            skipped = str(error)
        except UserError:
            return
        lines = [json.loads(line) for line in (out / "hands.jsonl").read_bytes().splitlines()]
        answered = {line["image"] for line in lines}
        for name in boxes_by_file:
            assert readable(name) in answered or skipped, name
        for line in lines:
            depths_m = [hand["root_m"][2] for hand in line["hands"]]
            assert all(DEPTH_M[0] <= depth_m <= DEPTH_M[1] for depth_m in depths_m)


@bounded(5)
@given(st.data())
def test_files(predictor, data):
    check_files(data, predictor)


@pytest.mark.long
@bounded(60)
@given(st.data())
def test_many_files(predictor, data):
    check_files(data, predictor)
