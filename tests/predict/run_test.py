import json
import os
import warnings
from fractions import Fraction

import av
import cv2
import numpy as np
import PIL.Image
import pytest
import trimesh

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict import run
from m3dhmr_jax.predict.cameras import intrinsics_from_focal_35mm
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.run import IncompleteError, PredictOptions, predict_files
from m3dhmr_jax.runtime.files import DiskFullError, readable
from m3dhmr_jax.runtime.results_folder import MANIFEST, read_manifest


@pytest.fixture
def load(predictor):
    return lambda: predictor


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def blotches(rng, height, width):
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.fixture
def images(rng, tmp_path):
    """Images of many kinds, a text file and a 16-bit one among them."""
    folder = tmp_path / "images"
    folder.mkdir()
    content = {
        "freihand.jpg": blotches(rng, 224, 224),
        "wide.png": blotches(rng, 60, 100),
        "large.jpg": blotches(rng, 900, 700),
        "grey.png": blotches(rng, 80, 80)[..., 0],
        "alpha.png": np.full((50, 50, 4), 128, np.uint8),
        "tiny.png": blotches(rng, 5, 3),
        "deep.png": blotches(rng, 40, 40).astype(np.uint16),
    }
    for name, pixels in content.items():
        assert cv2.imwrite(str(folder / name), pixels)
    (folder / "text.jpg").write_text("not an image")
    return folder


@pytest.fixture
def video(rng, tmp_path):
    """Twelve frames of 160 x 120 px that move over a larger image."""
    path, image = tmp_path / "clip.avi", blotches(rng, 200, 300)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (160, 120))
    for i in range(12):
        writer.write(np.ascontiguousarray(image[3 * i :, 5 * i :][:120, :160]))
    writer.release()
    return path


def lines_of(out):
    return [json.loads(line) for line in (out / "hands.jsonl").read_text().splitlines()]


def sizes_of(path):
    mesh = trimesh.load_mesh(path, process=False)
    return len(mesh.vertices), len(mesh.faces)


def test_predict_files_writes_all_results_and_names_skipped_inputs(load, images, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match="skipped") as error:
        predict_files(load, PredictOptions([str(images)], freihand=True), out)
    for name in ("text.jpg", "deep.png"):
        assert name in str(error.value)
    names = {path.stem for path in images.iterdir()} - {"text", "deep"}
    written = {"hands.jsonl", "faces.json"} | {
        name for n in names for name in (f"{n}_overlay.jpg", f"{n}.obj")
    }
    assert {path.name for path in out.iterdir()} == {MANIFEST, *written}
    assert read_manifest(out).names == written
    for name in names:
        assert cv2.imread(str(out / f"{name}_overlay.jpg")) is not None
        assert sizes_of(out / f"{name}.obj") == (778, 1538)
    printed = capsys.readouterr()
    assert f"6 hands written to {out}" in printed.out
    assert "frames/s from reading to writing" in printed.out
    for name in ("grey.png", "alpha.png"):
        assert name in printed.err
    lines = {line["image"]: line for line in lines_of(out)}
    assert lines["wide.png"]["camera"] == "assumed"
    assert (lines["wide.png"]["width"], lines["wide.png"]["height"]) == (100, 60)
    (hand,) = lines["wide.png"]["hands"]
    assert np.shape(hand["verts_m"]) == (778, 3)
    np.testing.assert_allclose(hand["root_m"], hand["joints_m"][0])


def test_predict_files_writes_the_predictor_s_hands(load, images, tmp_path):
    rows = "image,x,y,width,height,handedness\n"
    rows += "wide.png,5,5,30,30,left\nwide.png,50,20,40,30,right\nfreihand.jpg,40,40,99,99,\n"
    rows += "tiny.png,500,5,30,30,\n"
    (tmp_path / "boxes.csv").write_text(rows)
    k = np.array([[100.0, 0, 50], [0, 100, 30], [0, 0, 1]])
    options = PredictOptions(
        [str(images / "wide.png"), str(images / "tiny.png")],
        boxes=tmp_path / "boxes.csv",
        intrinsics=k,
        mesh_kinds=("obj", "ply", "glb"),
    )
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match=r"tiny\.png.*\(500, 5, 30, 30\)"):
        predict_files(load, options, out)
    (line,) = lines_of(out)
    image = cv2.imread(str(images / "wide.png"))[..., ::-1]
    boxes_px = [[5, 5, 30, 30], [50, 20, 40, 30]]
    want = load()(image, boxes_px, ["left", "right"], k)
    assert [hand["handedness"] for hand in line["hands"]] == ["left", "right"]
    assert line["camera"] == "given"
    faces = json.loads((out / "faces.json").read_text())
    for i, hand in enumerate(line["hands"]):
        np.testing.assert_allclose(hand["verts_m"], want.verts_m[i], atol=1e-5)
        np.testing.assert_allclose(hand["landmarks_px"], want.landmarks_px[i], atol=0.01)
        np.testing.assert_array_equal(faces[hand["handedness"]], want.faces[i])
        axes = {"obj": [1, 1, 1], "ply": [1, 1, 1], "glb": [1, -1, -1]}
        for kind, signs in axes.items():
            mesh = trimesh.load_mesh(out / f"wide_{i}.{kind}", process=False)
            np.testing.assert_allclose(mesh.vertices, want.verts_m[i] * signs, atol=1e-5)
            np.testing.assert_array_equal(mesh.faces, want.faces[i])


def test_predict_files_tracks_and_smooths_a_video(load, video, tmp_path, capsys):
    (tmp_path / "boxes.json").write_text(
        json.dumps([{"image": "clip.avi", "frame": 2, "x": 40, "y": 30, "width": 60, "height": 60}])
    )
    for smooth in (False, True):
        out = tmp_path / f"smooth {smooth}"
        options = PredictOptions([str(video)], boxes=tmp_path / "boxes.json", smooth=smooth)
        predict_files(load, options, out)
        lines = lines_of(out)
        assert [line["frame"] for line in lines] == list(range(12))
        assert [len(line["hands"]) for line in lines] == [0, 0] + [1] * 10
        drawn = cv2.VideoCapture(str(out / "clip_hands.mp4"))
        assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 12
        assert drawn.read()[1].shape == (120, 160, 3)
    assert not list(out.glob("*.obj"))
    assert "frames/s from reading to writing" in capsys.readouterr().out

    raw_m, smooth_m = (
        np.array([line["hands"][0]["root_m"] for line in lines_of(tmp_path / name)[2:]])
        for name in ("smooth False", "smooth True")
    )
    np.testing.assert_allclose(smooth_m[0], raw_m[0], atol=1e-4)
    wanted_m, moved_m = raw_m[1:] - smooth_m[:-1], np.diff(smooth_m, axis=0)
    alpha = (moved_m * wanted_m).sum(axis=1) / (wanted_m**2).sum(axis=1)
    assert (alpha > 0).all()  # Each frame moves the hand towards its raw position,
    assert (alpha < 0.999).all()  # but not all the way.


def test_predict_files_reads_a_camera_until_it_stops(load, video, tmp_path, monkeypatch):
    """A video plays the camera."""
    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: opened({0: str(video)}[number]))
    options = PredictOptions(camera=0, track=False, freihand=True)
    predict_files(load, options._replace(frames=3, smooth=True), tmp_path / "enough")
    assert [line["frame"] for line in lines_of(tmp_path / "enough")] == [0, 1, 2]
    with pytest.raises(IncompleteError, match=r"camera 0 .* 12"):
        predict_files(load, options, tmp_path / "stopped")
    lines = lines_of(tmp_path / "stopped")
    assert [(line["image"], len(line["hands"])) for line in lines] == [("camera 0", 1)] * 12
    assert (tmp_path / "stopped" / "camera0_hands.mp4").stat().st_size > 500


def test_predict_files_reports_an_error_of_all_frames_once(load, video, tmp_path, capsys):
    k = np.array([[26.0, 0, 80], [0, 2.6, 60], [0, 0, 1]])
    with pytest.raises(IncompleteError, match=r"clip\.avi: .*26 and 2\.6.* \(12 frames\)"):
        predict_files(load, PredictOptions([str(video)], intrinsics=k), tmp_path / "out")
    assert capsys.readouterr().err.count("26 and 2.6") == 1


def test_predict_files_warns_once_of_a_doubtful_k_and_box(load, video, images, tmp_path, capsys):
    """The box is written as corners: most of it lies outside."""
    k = np.array([[500.0, 0, 192], [0, 500, 144], [0, 0, 1]])
    rows = [{"image": "clip.avi", "x": 100, "y": 80, "width": 155, "height": 115}]
    rows += [{"image": "wide.png", "x": 10, "y": 10, "width": 50, "height": 40}]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    options = PredictOptions(
        [str(video), str(images / "wide.png")], boxes=tmp_path / "boxes.json", intrinsics=k
    )
    predict_files(load, options, tmp_path / "out")
    printed = capsys.readouterr().err
    assert printed.count("clip.avi: the principal point of K is (192, 144)") == 1
    assert printed.count("clip.avi: box 0, (x, y, width, height) = (100, 80, 155, 115) px,") == 1
    assert "80% of its area" not in printed
    assert printed.count("they look like corners") == 1
    assert "wide.png: box" not in printed


def test_an_impossible_focal_length_in_exif_is_not_believed():
    image = np.zeros((60, 100, 3), np.uint8)
    for focal_mm, camera in ((1e-3, "assumed"), (28.0, "exif")):
        k = intrinsics_from_focal_35mm(focal_mm, 100, 60)
        assert run.choose_intrinsics(image, k, PredictOptions())[1] == camera


def test_predict_files_skips_what_cannot_be_used(load, images, video, tmp_path):
    video.write_bytes(video.read_bytes()[:300])
    rows = "image,x,y,width,height\nwide.png,500,5,30,30\nlarge.jpg,100,100,300,300\n"
    (tmp_path / "boxes.csv").write_text(rows)
    images = [str(video), *(str(images / name) for name in ("wide.png", "large.jpg"))]
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match=r"clip\.avi.*; wide\.png.*\(500, 5, 30, 30\)"):
        predict_files(load, PredictOptions(images, boxes=tmp_path / "boxes.csv", camera=93), out)
    assert [line["image"] for line in lines_of(out)] == ["large.jpg"]


def test_predict_files_rejects_boxes_of_other_files_before_loading(images, tmp_path):
    (tmp_path / "boxes.csv").write_text("image,x,y,width,height\nother.png,5,5,3,3\n")
    options = PredictOptions([str(images)], boxes=tmp_path / "boxes.csv")
    with pytest.raises(UserError, match=r"other\.png"):
        predict_files(lambda: pytest.fail("loaded"), options, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_predict_files_rejects_boxes_and_landmarks_together(images, tmp_path):
    options = PredictOptions([str(images)], boxes=tmp_path / "a.csv", landmarks=tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"a\.csv.*b\.csv"):
        predict_files(lambda: pytest.fail("loaded"), options, tmp_path / "out")


def test_predict_files_tells_of_no_hand_and_logs_a_warning_once(
    load, images, video, tmp_path, capsys, monkeypatch
):
    (tmp_path / "boxes.csv").write_text("image,x,y,width,height\nwide.png,5,5,30,30\n")
    names = [str(images / "wide.png"), str(images / "tiny.png")]
    predict_files(load, PredictOptions(names, boxes=tmp_path / "boxes.csv"), tmp_path / "out")
    assert [len(line["hands"]) for line in lines_of(tmp_path / "out")] == [1, 0]
    printed = capsys.readouterr().out
    assert "1 hands written" in printed
    assert "no hand found in 1 of 2" in printed

    none = load()(np.zeros((120, 160, 3), np.uint8), boxes=[])

    def warn(*_, **__):
        warnings.warn("3 hands smaller than 20 px were skipped", stacklevel=1)
        return none

    monkeypatch.setattr(HandMeshPredictor, "__call__", warn)
    predict_files(load, PredictOptions([str(video)], track=False), tmp_path / "small")
    printed = capsys.readouterr()
    assert "no hand found in 12 of 12" in printed.out
    assert printed.err.count("clip.avi: 3 hands smaller than 20 px were skipped") == 1


def test_predict_files_takes_the_landmarks_that_it_wrote(load, images, tmp_path, monkeypatch):
    rows = "image,x,y,width,height,handedness\n"
    rows += "wide.png,5,5,30,30,left\nwide.png,50,20,40,30,right\n"
    (tmp_path / "boxes.csv").write_text(rows)
    names = [str(images / "wide.png"), str(images / "tiny.png")]
    predict_files(load, PredictOptions(names, boxes=tmp_path / "boxes.csv"), tmp_path / "out")
    predictor, given = load(), []

    def record(self, image, boxes, handedness, k, *, landmarks, **_):
        given.append((boxes, tuple(handedness), landmarks))
        return predictor.predict(image, predictor.in_boxes(image, np.zeros((0, 4)), (), k), k)

    monkeypatch.setattr(HandMeshPredictor, "__call__", record)
    landmarks = tmp_path / "out/hands.jsonl"
    predict_files(load, PredictOptions(names, landmarks=landmarks), tmp_path / "again")
    (boxes, sides, landmarks_px), (_, _, of_tiny_px) = given
    assert (boxes, sides) == (None, ("left", "right"))
    assert of_tiny_px.shape == (0, 21, 2)
    wrote = [hand["landmarks_px"] for hand in lines_of(tmp_path / "out")[0]["hands"]]
    np.testing.assert_array_equal(landmarks_px, wrote)


def save_mask(folder, name, shape, *boxes):
    folder.mkdir(exist_ok=True)
    mask = np.zeros(shape, np.uint8)
    for label, (x, y, w, h) in enumerate(boxes, start=1):
        mask[y : y + h, x : x + w] = label
    assert cv2.imwrite(str(folder / f"{name}.png"), mask)


def test_predict_files_takes_hands_from_masks(load, images, tmp_path, capsys):
    masks, out = tmp_path / "masks", tmp_path / "out"
    save_mask(masks, "wide", (60, 100), (5, 5, 30, 30), (50, 20, 40, 30))
    save_mask(masks, "freihand", (224, 224))
    names = ("wide.png", "freihand.jpg", "tiny.png")
    options = PredictOptions([str(images / name) for name in names], masks=masks, freihand=True)
    predict_files(load, options, out)
    lines = {line["image"]: line["hands"] for line in lines_of(out)}
    assert {name: len(hands) for name, hands in lines.items()} == dict(
        zip(names, (2, 1, 1), strict=True)
    )
    image = cv2.imread(str(images / "wide.png"))[..., ::-1]
    want = load()(image, [[5, 5, 30, 30], [50, 20, 40, 30]])
    for hand, crop_px in zip(lines["wide.png"], want.crop_px, strict=True):
        np.testing.assert_allclose(hand["crop_px"], crop_px)
    error = capsys.readouterr().err
    assert "freihand.jpg" in error  # Empty.
    assert "tiny.png" in error  # Without a mask.


def test_predict_files_skips_masks_of_another_size(load, images, tmp_path):
    save_mask(tmp_path / "masks", "wide", (100, 60), (5, 5, 30, 30))
    options = PredictOptions([str(images / "wide.png")], masks=tmp_path / "masks")
    with pytest.raises(IncompleteError, match=r"wide\.png: .*60 x 100 px"):
        predict_files(load, options, tmp_path / "out")


def test_predict_files_rejects_masks_with_videos(video, tmp_path):
    with pytest.raises(UserError, match=r"clip\.avi"):
        predict_files(
            lambda: pytest.fail("loaded"),
            PredictOptions([str(video)], masks=tmp_path),
            tmp_path / "out",
        )


def test_predict_files_does_not_skip_programming_errors(load, images, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ValueError("axes")

    monkeypatch.setattr(run, "choose_intrinsics", broken)
    with pytest.raises(ValueError, match="axes") as error:
        predict_files(load, PredictOptions([str(images / "wide.png")]), tmp_path / "out")
    assert not isinstance(error.value, UserError)


def test_predict_files_rejects_an_output_folder_that_is_a_file(load, images, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="out"):
        predict_files(load, PredictOptions([str(images / "wide.png")]), tmp_path / "out")


def test_predict_files_reports_a_full_disk(load, images, tmp_path, no_room):
    """Not even one overlay fits."""
    path, out = images / "wide.png", tmp_path / "out"
    no_room(60_000)
    with pytest.raises(DiskFullError, match=str(out)):
        predict_files(load, PredictOptions([str(path)], freihand=True), out)
    assert {path.name for path in out.iterdir()} == {MANIFEST, "hands.jsonl", "faces.json"}
    assert all(json.loads(line) for line in (out / "hands.jsonl").read_text().splitlines())


def test_predict_files_reports_a_video_that_does_not_fit(load, video, tmp_path, no_room, capsys):
    no_room(25_000)
    with pytest.raises(DiskFullError, match="out"):
        predict_files(
            load, PredictOptions([str(video)], track=False, freihand=True), tmp_path / "out"
        )
    assert not (tmp_path / "out" / "clip_hands.mp4").exists()
    assert "hands written" not in capsys.readouterr().out


def test_predict_files_names_a_file_that_is_in_its_way(load, images, tmp_path):
    """Which meshes there will be is not known before."""
    options, out = PredictOptions([str(images / "wide.png")], freihand=True), tmp_path / "out"
    predict_files(load, options._replace(mesh_kinds=()), out)
    (out / "wide.obj").write_text("mine")
    with pytest.raises(IncompleteError, match=r"skipped: wide\.png: .*out/wide\.obj"):
        predict_files(load, options, out, replace=True)
    assert (out / "wide.obj").read_text() == "mine"


def test_predict_files_replaces_results_on_request_only(load, images, tmp_path):
    out = tmp_path / "out"
    predict_files(load, PredictOptions([str(images / "wide.png")], freihand=True), out)
    before = (out / "hands.jsonl").read_bytes()
    options = PredictOptions([str(images / "large.jpg")], freihand=True)
    with pytest.raises(UserError, match=r"earlier call: .*out-2, or add --replace"):
        predict_files(lambda: pytest.fail("loaded"), options, out)
    assert (out / "hands.jsonl").read_bytes() == before
    predict_files(load, options, out, replace=True)
    assert [line["image"] for line in lines_of(out)] == ["large.jpg"]
    assert not list(out.glob("wide*"))


def test_predict_files_takes_a_new_folder_by_default(load, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = PredictOptions([str(images / "wide.png")], freihand=True)
    predict_files(load, options)
    (tmp_path / "hands-2").mkdir()
    (tmp_path / "hands-2" / "mine.txt").touch()
    predict_files(load, options)
    assert "hands-3" in capsys.readouterr().out
    for name in ("hands", "hands-3"):
        assert [line["image"] for line in lines_of(tmp_path / name)] == ["wide.png"]
    with pytest.raises(UserError, match="--replace needs --out"):
        predict_files(load, options, replace=True)


def test_predict_files_never_reads_its_own_results(load, images, tmp_path):
    out = tmp_path / "out"
    predict_files(load, PredictOptions([str(images / "wide.png")], freihand=True), out)
    with pytest.raises(UserError, match="results of earlier calls"):
        predict_files(load, PredictOptions([str(out)], freihand=True), tmp_path / "again")
    (out / "mine.png").write_bytes((images / "wide.png").read_bytes())
    predict_files(load, PredictOptions([str(out)], freihand=True), tmp_path / "again")
    assert [line["image"] for line in lines_of(tmp_path / "again")] == ["mine.png"]


def test_predict_files_numbers_results_of_the_same_name(load, images, tmp_path, capsys):
    """Of two folders, and a mesh that would have a photo's name."""
    names = ("a/1.png", "b/1.jpg", "b/1_1.png")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((images / "wide.png").read_bytes())
    out = tmp_path / "out"
    predict_files(
        load, PredictOptions([str(tmp_path / name) for name in names], freihand=True), out
    )
    assert [(line["image"], line["name"]) for line in lines_of(out)] == [
        ("1.png", "1"),
        ("1.jpg", "1-2"),
        ("1_1.png", "1_1-2"),
    ]
    for name in ("1", "1-2", "1_1-2"):
        assert (out / f"{name}_overlay.jpg").is_file()
        assert sizes_of(out / f"{name}.obj") == (778, 1538)
    assert "1_1.png: its results are named 1_1-2" in capsys.readouterr().err


@pytest.mark.parametrize("stem", ["x" * 250, "\u00e9" * 120, os.fsdecode(b"hand_\xff"), "a\nb"])
def test_predict_files_answers_files_of_any_name(load, images, tmp_path, stem):
    path, out = tmp_path / f"{stem}.png", tmp_path / "out"
    path.write_bytes((images / "wide.png").read_bytes())
    predict_files(load, PredictOptions([str(path)], freihand=True), out)
    (line,) = lines_of(out)
    assert line["image"] == readable(path.name)
    for ending in ("_overlay.jpg", ".obj"):
        assert (out / f"{line['name']}{ending}").is_file()


def write_vfr(path, times_s, height, width):
    """A video whose frames have these times."""
    pixels = blotches(np.random.default_rng(1), height, width)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", height=height, width=width, pix_fmt="yuv444p")
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for time_s in times_s:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_overlays_show_frames_at_the_times_of_hands_jsonl(load, tmp_path):
    """Of a video without a constant rate and with odd sides."""
    times_s = [0.0, 0.033, 0.067, 1.5, 1.517, 4.0, 4.001]
    write_vfr(tmp_path / "clip.mp4", times_s, 61, 81)
    out = tmp_path / "out"
    predict_files(
        load, PredictOptions([str(tmp_path / "clip.mp4")], track=False, freihand=True), out
    )
    record_s = [line["time_s"] for line in lines_of(out)]
    np.testing.assert_allclose(record_s, times_s, atol=1e-3)
    with av.open(str(out / "clip_hands.mp4")) as container:
        frames = list(container.decode(video=0))
    np.testing.assert_allclose([frame.time for frame in frames], record_s, atol=1e-4)
    assert (frames[0].height, frames[0].width) == (62, 82)


def test_predict_files_ends_with_a_count_of_what_it_left_out(load, images, tmp_path, capsys):
    """And returns without an error: nothing of it was asked for."""
    for name in ("text.jpg", "deep.png"):
        (images / name).unlink()
    (images / "notes.txt").touch()
    (images / "more").mkdir()
    (images / "wide.png").rename(images / "more" / "wide.png")
    rows = "image,x,y,width,height\nwide.png,5,5,30,30\nother.png,5,5,30,30\n"
    (tmp_path / "boxes.csv").write_text(rows)
    out = tmp_path / "out"
    predict_files(load, PredictOptions([str(images)], boxes=tmp_path / "boxes.csv"), out)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "left out: 1 .txt, 1 row of boxes.csv whose image is not among the inputs, "
        "5 photos without a row in boxes.csv"
    )
    assert {line["image"]: len(line["hands"]) for line in lines_of(out)}["more/wide.png"] == 1


def test_predict_files_takes_names_that_are_not_utf_8(load, images, video, tmp_path, capsys):
    names = [os.fsdecode(each) for each in (b"caf\xe9.png", b"caf\xe9.avi", b"bad\xe9.png")]
    paths = [tmp_path / name for name in names]
    for path, source in zip(paths, ("wide.png", None, "text.jpg"), strict=True):
        path.write_bytes((images / source if source else video).read_bytes())
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match=r"bad\\xe9\.png"):
        predict_files(
            load, PredictOptions(list(map(str, paths)), freihand=True, frames=2, track=False), out
        )
    found = [line["image"] for line in lines_of(out)]
    assert found == ["caf\\xe9.png", "caf\\xe9.avi", "caf\\xe9.avi"]
    assert "bad\\xe9.png" in capsys.readouterr().err


def test_predict_files_draws_a_moving_image_as_a_video(load, rng, tmp_path):
    frames = [PIL.Image.fromarray(blotches(rng, 120, 160)) for _ in range(3)]
    frames[0].save(tmp_path / "m.gif", save_all=True, append_images=frames[1:], duration=80)
    options = PredictOptions([str(tmp_path / "m.gif")], freihand=True, track=False)
    predict_files(load, options, tmp_path / "out")
    lines = lines_of(tmp_path / "out")
    assert [(line["frame"], line["time_s"]) for line in lines] == [(0, 0), (1, 0.08), (2, 0.16)]
    assert (tmp_path / "out/m_hands.mp4").stat().st_size > 500


def test_predict_files_reads_both_parts_of_live_photos(load, images, video, tmp_path):
    folder = tmp_path / "live"
    folder.mkdir()
    (images / "wide.png").rename(folder / "IMG_1.JPG")
    video.rename(folder / "IMG_1.MOV")
    out = tmp_path / "out"
    predict_files(load, PredictOptions([str(folder)], freihand=True, frames=1, track=False), out)
    assert [line["image"] for line in lines_of(out)] == ["IMG_1.JPG", "IMG_1.MOV"]
    assert (out / "IMG_1_overlay.jpg").is_file()
    assert (out / "IMG_1_hands.mp4").is_file()
