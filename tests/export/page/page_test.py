"""The page in headless Chromium, from the file or the camera to the saved hands."""

import json

import numpy as np
import pytest
import trimesh

from m3dhmr_jax.predict.outputs import GLTF_FROM_CAMERA
from m3dhmr_jax.predict.predictor import HandMeshPredictor

FAKE_CAMERA = "--use-fake-device-for-media-stream"
ALLOWED = "--use-fake-ui-for-media-stream"
MAX_PX, MAX_M = 1.0, 1e-3


def assert_same_hands(record, hands):
    assert [hand["handedness"] for hand in record["hands"]] == list(hands.handedness)
    for name, limit in (("landmarks_px", MAX_PX), ("verts_m", MAX_M), ("joints_m", MAX_M)):
        found = np.array([hand[name] for hand in record["hands"]])
        distances = np.linalg.norm(found - getattr(hands, name), axis=-1)
        assert distances.max() < limit, name
    for name, limit in (("score", 0.02), ("direction_rad", 0.01), ("crop_px", 0.5)):
        found = np.array([hand[name] for hand in record["hands"]])
        np.testing.assert_allclose(found, getattr(hands, name), atol=limit)


@pytest.fixture(scope="module")
def predictor(detector_weights):
    return HandMeshPredictor()


@pytest.mark.long
def test_a_photo_gives_the_hands_of_python(open_page, photo, predictor, tmp_path):
    path, pixels = photo
    page = open_page().wait_until_ready()
    page.open(path)
    assert page.tab.inner_text("#hands").count("hand") == 2
    record = json.loads(page.save("json", tmp_path / "hands.json").read_text())
    hands = predictor(pixels)
    assert_same_hands(record, hands)
    np.testing.assert_allclose(record["K"], hands.intrinsics, atol=1e-3)
    assert record["camera"] == "assumed"
    assert record["method"] == "fit"
    assert (record["width"], record["height"]) == (960, 720)

    vertices = np.array([hand["verts_m"] for hand in record["hands"]])
    obj = trimesh.load(page.save("obj", tmp_path / "hands.obj"), process=False)
    np.testing.assert_allclose(obj.vertices, np.concatenate(vertices), atol=1e-5)
    faces = [hands.faces[i] + 778 * i for i in range(len(vertices))]
    np.testing.assert_array_equal(obj.faces, np.concatenate(faces))
    glb = trimesh.load(page.save("glb", tmp_path / "hands.glb"), process=False)
    for i, side in enumerate(hands.handedness):
        mesh = glb.geometry[f"{side}_{i}"]
        np.testing.assert_allclose(mesh.vertices, GLTF_FROM_CAMERA * vertices[i], atol=1e-5)
        np.testing.assert_array_equal(mesh.faces, hands.faces[i])

    page.tab.fill("#fov", "40")
    page.tab.press("#fov", "Enter")
    page.tab.wait_for_selector("#status:empty", state="attached")
    narrow = json.loads(page.save("json", tmp_path / "narrow.json").read_text())
    assert narrow["camera"] == "given"
    ratio = narrow["hands"][0]["root_m"][2] / record["hands"][0]["root_m"][2]
    assert ratio == pytest.approx(np.tan(np.radians(30)) / np.tan(np.radians(20)), rel=0.05)
    assert not page.errors


@pytest.mark.long
def test_a_camera_is_followed(launch_chromium, open_page, address, camera_film, tmp_path):
    film = f"--use-file-for-fake-video-capture={camera_film}"
    with launch_chromium(FAKE_CAMERA, ALLOWED, film) as browser:
        page = open_page(browser=browser, viewport={"width": 1000, "height": 800})
        page.wait_until_ready()
        page.tab.click("#camera")
        page.tab.wait_for_selector('[data-stat="frames/s"]')
        for stage in ("find", "landmarks", "fit", "draw"):
            assert page.tab.inner_text(f'[data-stat="{stage}"]').endswith(" ms")
        records = []
        for i in range(3):
            page.tab.wait_for_selector('#hands:text-matches("left.*right|right.*left")')
            records.append(json.loads(page.save("json", tmp_path / f"{i}.json").read_text()))
            last = page.tab.inner_text("#hands")
            page.tab.wait_for_selector(f'#hands:not(:text-is("{last}"))')
        positions = {tuple(record["hands"][0]["root_m"]) for record in records}
        assert len(positions) == 3
        assert page.tab.locator(".view.is-mirrored").count() == 2
        assert "WebAssembly" in page.tab.inner_text("#backend")
        page.tab.click("#camera")
        page.tab.wait_for_selector('#camera:text-is("Start camera")')
        assert not page.errors
        assert all(url.startswith((address, "blob:", "data:")) for url in page.requests)


@pytest.mark.parametrize(
    ("flags", "told"), [((FAKE_CAMERA,), "was refused"), ((), "No camera was found")]
)
def test_a_missing_or_refused_camera_is_told(launch_chromium, open_page, flags, told):
    with launch_chromium(*flags) as browser:
        page = open_page(browser=browser).wait_until_ready()
        page.tab.click("#camera")
        assert told in page.wait_for_error()
        assert page.tab.is_enabled("#open")
        assert not page.errors


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("WebAssembly.validate = () => false;", "no WebAssembly SIMD"),
        ("delete globalThis.WebAssembly;", "no WebAssembly SIMD"),
    ],
)
def test_a_browser_without_simd_is_told(open_page, script, told):
    page = open_page(script)
    assert told in page.wait_for_error()
    assert page.tab.is_disabled("#camera")
    assert not page.errors


def test_without_webgl_only_skeletons_are_drawn(open_page):
    script = """
        const own = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
          return kind === "webgl2" ? null : own.call(this, kind, ...rest);
        };"""
    page = open_page(script).wait_until_ready()
    assert "no WebGL 2" in page.tab.inner_text("#hint")


def test_what_is_not_an_image_is_named(open_page, tmp_path):
    page = open_page().wait_until_ready()
    for name, kind in (("notes.txt", "cannot read"), ("film.mp4", "cannot play")):
        (tmp_path / name).write_text("no image")
        page.tab.set_input_files("#file", tmp_path / name)
        page.tab.wait_for_selector(f'#status:text-matches("{name}.*{kind}")')


@pytest.mark.long
def test_webgpu_is_used_only_where_it_agrees_and_is_faster(launch_chromium, open_page):
    """The adapter of the test is a program: right, and slower than WebAssembly."""
    flags = "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"
    with launch_chromium(*flags) as browser:
        page = open_page(browser=browser)
        if not page.tab.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
            pytest.skip("this Chromium has no WebGPU in software")
        page.wait_until_ready()
        told = page.tab.inner_text("#backend")
        assert told.count("WebGPU agrees but takes") == 2, told
        assert any(".jspi.wasm" in url for url in page.requests)
        assert not any("threaded.wasm" in url for url in page.requests)


@pytest.mark.long
def test_a_network_is_a_switch(
    trained, serve, open_page, photo, detector_weights, npm_is_cached, tmp_path
):
    from m3dhmr_jax.export.page_folder import write_page

    folder = tmp_path / "page"
    write_page(folder, detector_weights, command="export", checkpoint=trained[0])
    page = open_page(at=serve(folder)).wait_until_ready()
    page.open(photo[0])
    page.tab.check('[name="method"][value="network"]')
    page.tab.wait_for_selector('[data-stat="network"]')
    page.tab.wait_for_selector("#status:empty", state="attached")
    record = json.loads(page.save("json", tmp_path / "hands.json").read_text())
    assert record["method"] == "network"
    hands = HandMeshPredictor.from_checkpoint(trained[0])(photo[1])
    found = np.array([hand["landmarks_px"] for hand in record["hands"]])
    # A network that was hardly trained amplifies single grey levels of the crop.
    assert np.linalg.norm(found - hands.landmarks_px, axis=-1).max() < 5 * MAX_PX
    shape_m = np.array([hand["verts_m"] for hand in record["hands"]])
    shape_m = shape_m - np.array([hand["root_m"] for hand in record["hands"]])[:, None]
    expected_m = hands.verts_m - hands.root_m[:, None]
    assert np.linalg.norm(shape_m - expected_m, axis=-1).max() < 5 * MAX_M
    assert not page.errors


def test_the_page_fits_a_phone(open_page):
    page = open_page(viewport={"width": 360, "height": 740})
    page.tab.wait_for_selector("#camera")
    width = page.tab.evaluate("document.documentElement.scrollWidth")
    assert width == 360
