import json

import cv2
import numpy as np
import pytest
import trimesh

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.__main__ import main
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.run import IncompleteError, Wishes, predict_files


@pytest.fixture(scope="module")
def load(trained):
    predictor = HandMeshPredictor.from_checkpoint(trained[0])
    return lambda: predictor


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def blotches(rng, height, width):
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.fixture
def photos(rng, tmp_path):
    """Photos of many kinds, a text file and a 16-bit one among them."""
    folder = tmp_path / "photos"
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
    (folder / "text.jpg").write_text("no photo")
    return folder


@pytest.fixture
def video(rng, tmp_path):
    """Twelve frames of 160 x 120 px that move over a larger photo."""
    path, photo = tmp_path / "clip.avi", blotches(rng, 200, 300)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (160, 120))
    for i in range(12):
        writer.write(np.ascontiguousarray(photo[3 * i :, 5 * i :][:120, :160]))
    writer.release()
    return path


def lines_of(out):
    return [json.loads(line) for line in (out / "hands.jsonl").read_text().splitlines()]


def sizes_of(path):
    mesh = trimesh.load_mesh(path, process=False)
    return len(mesh.vertices), len(mesh.faces)


def test_every_photo_gets_its_results_and_the_rest_is_named(load, photos, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match="left out: ") as error:
        predict_files(load, Wishes([str(photos)]), out)
    for words in ("text.jpg: not an image", "deep.png: the image is 16-bit"):
        assert words in str(error.value)
    names = {path.stem for path in photos.iterdir()} - {"text", "deep"}
    assert {path.name for path in out.iterdir()} == {"hands.jsonl", "faces.json"} | {
        name for n in names for name in (f"{n}_overlay.jpg", f"{n}.obj")
    }
    for name in names:
        assert cv2.imread(str(out / f"{name}_overlay.jpg")) is not None
        assert sizes_of(out / f"{name}.obj") == (778, 1538)
    said = capsys.readouterr()
    assert f"6 hands written to {out}" in said.out
    assert "frames/s from reading to writing" in said.out
    for words in ("grey.png: the image has one channel", "alpha.png: the image has an alpha"):
        assert words in said.err
    lines = {line["image"]: line for line in lines_of(out)}
    assert lines["wide.png"]["camera"] == "assumed"
    assert (lines["wide.png"]["width"], lines["wide.png"]["height"]) == (100, 60)
    (hand,) = lines["wide.png"]["hands"]
    assert np.shape(hand["verts_m"]) == (778, 3)
    np.testing.assert_allclose(hand["root_m"], hand["joints_m"][0])


def test_lines_hold_what_the_predictor_says(load, photos, tmp_path):
    rows = "image,x,y,width,height,handedness\n"
    rows += "wide.png,5,5,30,30,left\nwide.png,50,20,40,30,right\nfreihand.jpg,40,40,99,99,\n"
    (tmp_path / "boxes.csv").write_text(rows)
    k = np.array([[100.0, 0, 50], [0, 100, 30], [0, 0, 1]])
    wishes = Wishes(
        [str(photos / "wide.png"), str(photos / "tiny.png")],
        boxes=tmp_path / "boxes.csv",
        intrinsics=k,
        mesh_kinds=("obj", "ply", "glb"),
    )
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match=r"tiny\.png.*K looks through"):
        predict_files(load, wishes, out)
    (line,) = lines_of(out)
    photo = cv2.imread(str(photos / "wide.png"))[..., ::-1]
    boxes_px = [[5, 5, 30, 30], [50, 20, 40, 30]]
    want = load()(photo, boxes_px, ["left", "right"], k)
    assert [hand["handedness"] for hand in line["hands"]] == ["left", "right"]
    assert line["camera"] == "given"
    faces = json.loads((out / "faces.json").read_text())
    for i, hand in enumerate(line["hands"]):
        np.testing.assert_allclose(hand["verts_m"], want.verts_m[i], atol=1e-5)
        np.testing.assert_allclose(hand["landmarks_px"], want.landmarks_px[i], atol=0.01)
        np.testing.assert_array_equal(faces[hand["handedness"]], want.faces[i])
        turned = {"obj": [1, 1, 1], "ply": [1, 1, 1], "glb": [1, -1, -1]}
        for kind, signs in turned.items():
            mesh = trimesh.load_mesh(out / f"wide_{i}.{kind}", process=False)
            np.testing.assert_allclose(mesh.vertices, want.verts_m[i] * signs, atol=1e-5)
            np.testing.assert_array_equal(mesh.faces, want.faces[i])


def test_a_video_is_followed_smoothed_and_drawn(load, video, tmp_path, capsys):
    (tmp_path / "boxes.json").write_text(
        json.dumps([{"image": "clip.avi", "frame": 2, "x": 40, "y": 30, "width": 60, "height": 60}])
    )
    for smooths in (False, True):
        out = tmp_path / f"smooth {smooths}"
        wishes = Wishes([str(video)], boxes=tmp_path / "boxes.json", smooths=smooths)
        predict_files(load, wishes, out)
        lines = lines_of(out)
        assert [line["frame"] for line in lines] == list(range(12))
        assert [len(line["hands"]) for line in lines] == [0, 0] + [1] * 10
        drawn = cv2.VideoCapture(str(out / "clip_hands.mp4"))
        assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 12
        assert drawn.read()[1].shape == (120, 160, 3)
    assert not list(out.glob("*.obj"))
    assert "frames/s from reading to writing" in capsys.readouterr().out

    seen_m, shown_m = (
        np.array([line["hands"][0]["root_m"] for line in lines_of(tmp_path / name)[2:]])
        for name in ("smooth False", "smooth True")
    )
    np.testing.assert_allclose(shown_m[0], seen_m[0], atol=1e-4)
    wanted_m, moved_m = seen_m[1:] - shown_m[:-1], np.diff(shown_m, axis=0)
    share = (moved_m * wanted_m).sum(axis=1) / (wanted_m**2).sum(axis=1)
    assert (share > 0).all()  # Each frame moves the hand towards where it is seen,
    assert (share < 0.999).all()  # but not all the way.


def test_a_camera_is_read_until_enough_or_until_it_stops(load, video, tmp_path, monkeypatch):
    """A video plays the camera."""
    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: opened({0: str(video)}[number]))
    predict_files(load, Wishes(camera=0, frames=3, smooths=True), tmp_path / "enough")
    assert [line["frame"] for line in lines_of(tmp_path / "enough")] == [0, 1, 2]
    with pytest.raises(IncompleteError, match="camera 0 stopped after 12 frames"):
        predict_files(load, Wishes(camera=0), tmp_path / "stopped")
    lines = lines_of(tmp_path / "stopped")
    assert [(line["image"], len(line["hands"])) for line in lines] == [("camera 0", 1)] * 12
    assert (tmp_path / "stopped" / "camera0_hands.mp4").stat().st_size > 500


def test_what_all_frames_have_in_common_is_told_once(load, video, tmp_path, capsys):
    k = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    with pytest.raises(IncompleteError, match=r"clip\.avi: K looks through .* \(12 frames\)"):
        predict_files(load, Wishes([str(video)], intrinsics=k), tmp_path / "out")
    assert capsys.readouterr().err.count("K looks through") == 1


def test_what_cannot_be_used_is_left_out_and_the_rest_is_kept(load, photos, video, tmp_path):
    video.write_bytes(video.read_bytes()[:300])
    rows = "image,x,y,width,height\nwide.png,500,5,30,30\nlarge.jpg,100,100,300,300\n"
    (tmp_path / "boxes.csv").write_text(rows)
    images = [str(video), *(str(photos / name) for name in ("wide.png", "large.jpg"))]
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match=r"clip\.avi: .*; wide\.png.* outside the photo"):
        predict_files(load, Wishes(images, boxes=tmp_path / "boxes.csv", camera=93), out)
    assert [line["image"] for line in lines_of(out)] == ["large.jpg"]


def test_boxes_of_other_files_are_refused_before_anything_is_loaded(photos, tmp_path):
    (tmp_path / "boxes.csv").write_text("image,x,y,width,height\nother.png,5,5,3,3\n")
    wishes = Wishes([str(photos)], boxes=tmp_path / "boxes.csv")
    with pytest.raises(ValueError, match=r"its boxes are of other\.png, and none of these"):
        predict_files(lambda: pytest.fail("loaded"), wishes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run(*arguments):
    return main([*map(str, arguments)])


def test_the_command_predicts_from_a_run(trained, photos, tmp_path):
    out = tmp_path / "out"
    options = ["--checkpoint", trained[0], photos / "wide.png", "--out", out, "--fov", 40]
    assert run(*options, "--meshes=none", "--handedness=left") == 0
    (line,) = lines_of(out)
    np.testing.assert_allclose(line["K"][0][0], 50 / np.tan(np.radians(20)), rtol=1e-5)
    assert (line["camera"], line["hands"][0]["handedness"]) == ("given", "left")
    assert not list(out.glob("*.obj"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["empty"], "no photo or video in"),
        (["photos/wide.png", "--K=0,0,1,1"], "singular"),
        (["photos/wide.png", "--K=500,500,320,240"], "as in a photo of 641 x 481 px"),
        (["photos/wide.png", "--fov=180"], "field of view of 180"),
        (["photos/wide.png", "--meshes=stl"], "stl is none of"),
        (["photos/wide.png", "--frames=0"], "at least 1"),
        (["photos/wide.png", "--boxes=none.csv"], "none.csv: no such file"),
        (["photos/deep.png"], "16-bit"),
        (["--camera=93"], "camera 93 does not open"),
        (["none.jpg"], "none.jpg: no such photo"),
    ],
)
def test_the_command_says_what_is_wrong_and_exits_with_2(
    trained, photos, tmp_path, capsys, monkeypatch, options, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run("--checkpoint", trained[0], "--out=out", *options) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_folder_that_is_no_run_is_refused(photos, tmp_path, capsys):
    assert run("--checkpoint", tmp_path, "--out", tmp_path / "out", photos) == 2
    assert "config.json: no such file" in capsys.readouterr().err


def test_main_predicts_with_its_config(run_main, trained, photos, tmp_path):
    workdir, _ = trained
    out = tmp_path / "out"
    flags = "--mode=predict", f"--images={photos / 'wide.png'}", f"--out={out}", "--fov", "50"
    result = run_main(workdir, *flags, str(photos / "tiny.png"))
    assert result.returncode == 0, result.stderr
    assert {line["image"] for line in lines_of(out)} == {"wide.png", "tiny.png"}
    assert load_builtin().faces.tolist() == json.loads((out / "faces.json").read_text())["right"]
    result = run_main(workdir, *flags, str(photos / "text.jpg"))
    assert result.returncode == 2
    assert "text.jpg: not an image" in result.stderr
