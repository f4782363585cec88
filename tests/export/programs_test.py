import subprocess
import sys

import cv2
import numpy as np
import PIL.Image
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.programs import check_programs, write_programs
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.images import EXIF_FOCAL_35MM, EXIF_FOLDER, read_image
from m3dhmr_jax.predict.jax_networks import JaxNetwork
from m3dhmr_jax.predict.methods import NetworkMethod
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.synthetic.recipe import QUICKSTART
from m3dhmr_jax.synthetic.render import rasterise_scene, render_image, visible_hand_mask
from m3dhmr_jax.synthetic.scene import prepare_assets, sample_scene


@pytest.fixture(scope="module")
def network_file(tiny_network, tmp_path_factory):
    """A network with the programs beside it."""
    onnx = pytest.importorskip("onnx", reason='the extra "export" is not installed')
    pytest.importorskip("onnxruntime", reason='the extra "export" is not installed')
    from m3dhmr_jax.export.onnx_network import network_model

    path = tmp_path_factory.mktemp("exported") / "hand.onnx"
    onnx.save(network_model(tiny_network, load_builtin()), str(path))
    write_programs(path.parent)
    return path


@pytest.fixture(scope="module")
def rendered():
    """A rendered image of a right hand, and its box."""
    assets = prepare_assets(load_builtin())
    scene = sample_scene(np.random.default_rng(0), assets, QUICKSTART)
    raster = rasterise_scene(scene, assets.surface)
    image, _ = render_image(np.random.default_rng(1), scene, assets, raster, QUICKSTART)
    box_px = cv2.boundingRect(visible_hand_mask(raster, assets.surface).astype(np.uint8))
    return image, np.array(box_px)


def read_obj(path):
    """Vertices and faces."""
    rows = [line.split() for line in path.read_text().splitlines()]
    vertices, faces = ([row[1:] for row in rows if row[0] == kind] for kind in "vf")
    return np.array(vertices, float), np.array(faces, int) - 1


@pytest.mark.long
@pytest.mark.parametrize(("side", "focal_35mm"), [("right", None), ("left", 26)])
def test_example_equals_the_predictor(
    network_file, tiny_network, rendered, tmp_path, side, focal_35mm
):
    image, box_px = rendered
    if side == "left":
        image, box_px = image[:, ::-1], box_px.copy()
        box_px[0] = image.shape[1] - box_px[0] - box_px[2]
    exif = PIL.Image.Exif()
    if focal_35mm:
        exif.get_ifd(EXIF_FOLDER)[EXIF_FOCAL_35MM] = focal_35mm
    photo, out = tmp_path / "photo.jpg", tmp_path / "hand.obj"
    PIL.Image.fromarray(image).save(photo, quality=95, exif=exif)
    box = ",".join(map(str, box_px))
    program = [sys.executable, "-X", "importtime", network_file.with_name("example.py")]
    command = [*program, network_file, photo, box, side, out]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    imported = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert "onnxruntime" in imported
    assert not {"jax", "flax", "m3dhmr_jax"} & imported
    vertices_m, faces = read_obj(out)

    net = tiny_network
    network = JaxNetwork(net, load_builtin(), net.params, net.stats)
    predictor = HandMeshPredictor(NetworkMethod(network))
    decoded = read_image(photo)
    assert (decoded.intrinsics is None) == (focal_35mm is None)
    hands = predictor(decoded.image, box_px, side, decoded.intrinsics)
    np.testing.assert_array_equal(faces, hands.faces[0])
    shift_m = vertices_m - hands.verts_m[0]
    # Crops differ by a grey level here and there, which an untrained network amplifies.
    np.testing.assert_allclose(shift_m - shift_m.mean(axis=0), 0, atol=1e-3)
    # The landmarks of an untrained network hardly determine where the hand is.
    deviation_m = np.sqrt(np.diag(hands.root_covariance_m2[0]))
    assert (np.abs(shift_m.mean(axis=0)) < 1e-4 + 0.01 * deviation_m).all()
    wrist_m = np.array(result.stdout.removeprefix("wrist: ").removesuffix(" m\n").split(), float)
    np.testing.assert_allclose(wrist_m, hands.root_m[0] + shift_m.mean(axis=0), atol=1e-3)


def test_programs_do_not_replace_other_files(tmp_path):
    check_programs(tmp_path)
    write_programs(tmp_path)
    check_programs(tmp_path)
    (tmp_path / "example.py").write_text("print('mine')")
    with pytest.raises(UserError, match=r"example\.py"):
        check_programs(tmp_path)
