import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export

from m3dhmr_jax.export import SMALLEST_HALF
from m3dhmr_jax.export.stablehlo import export_stablehlo, stablehlo_of
from m3dhmr_jax.export.trained import Trained
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import make_crop_step
from m3dhmr_jax.predict.crops import crop_matrix

# Runs the file as a user's program does: with JAX alone.
PROGRAM = """
import sys
import jax, numpy as np
from pathlib import Path
inputs = np.load(sys.argv[2])
program = jax.export.deserialize(bytearray(Path(sys.argv[1]).read_bytes()))
call = jax.jit(program.call)
rows = {}
for b in (1, 3):
    hands = call(*(inputs[name][:b] for name in ("crops", "img_from_crop", "K")))
    rows |= {f"{name}_{b}": value for name, value in hands.items()}
np.savez(sys.argv[3], **rows)
assert not {"flax", "m3dhmr_jax"} & {name.split(".")[0] for name in sys.modules}
"""


def inputs_of(size, b=3):
    rng = np.random.default_rng(0)
    square = np.array([100.0, 80.0, 170.0, 170.0])
    matrices = [crop_matrix(square, size, direction_rad) for direction_rad in (0.0, 0.7, -2.0)]
    img_from_crop = [np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2] for matrix in matrices]
    k = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]], np.float32)
    return {
        "crops": rng.integers(0, 256, (b, size, size, 3), np.uint8),
        "img_from_crop": np.array(img_from_crop, np.float32),
        "K": np.stack([k] * b),
    }


def rounded(x):
    return x.astype(np.float16).astype(np.float32) if x.size >= SMALLEST_HALF else x


@pytest.fixture(scope="module")
def files(tiny_network):
    """The file's content by whether it is halved."""
    return {half: stablehlo_of(tiny_network, load_builtin(), half=half) for half in (False, True)}


def test_stablehlo_has_a_symbolic_batch_and_three_platforms(files):
    program = export.deserialize(bytearray(files[False]))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert {str(array.shape[0]) for array in (*program.in_avals, *program.out_avals)} == {"b"}


def test_half_stores_half(files, tiny_network):
    sizes = [leaf.size for leaf in jax.tree.leaves(tiny_network.params)]
    saved = 2 * sum(size for size in sizes if size >= SMALLEST_HALF)
    assert 0.95 * saved < len(files[False]) - len(files[True]) < 1.05 * saved


@pytest.mark.long
def test_stablehlo_is_checked(tiny_network, tmp_path, capsys):
    trained = Trained(tiny_network, load_builtin(), "{}")
    export_stablehlo(trained, tmp_path / "hand.jaxexport", False)
    assert (tmp_path / "hand.jaxexport").is_file()
    assert "64 drawn hands" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("half", [False, True])
def test_stablehlo_runs_with_jax_alone_and_equals_it(files, tiny_network, tmp_path, half):
    """Crops are rotated, so the hands must be rotated back."""
    network, inputs = tiny_network, inputs_of(tiny_network.image_size)
    (tmp_path / "hand.jaxexport").write_bytes(files[half])
    np.savez(tmp_path / "inputs.npz", **inputs)
    paths = [tmp_path / name for name in ("hand.jaxexport", "inputs.npz", "outputs.npz")]
    command = [sys.executable, "-c", PROGRAM, *paths]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    outputs = np.load(paths[2])
    params = network.params
    if half:
        params = jax.tree.map(rounded, params)
    regressor = load_builtin().joint_regressor
    step = make_crop_step(network.eval_graphdef, regressor, network.image_size)
    want = step(params, network.stats, *inputs.values())
    for b in (1, 3):
        got = {name.removesuffix(f"_{b}"): value for name, value in outputs.items()}
        root_m, want_root_m = got["joints_m"][:, :1], want.joints_m[:b, :1]
        np.testing.assert_allclose(
            got["vertices_m"] - root_m, want.verts_m[:b] - want_root_m, atol=1e-5
        )
        np.testing.assert_allclose(
            got["joints_m"] - root_m, want.joints_m[:b] - want_root_m, atol=1e-5
        )
        # The landmarks of an untrained network lie so close together that the hands are 15 m away.
        np.testing.assert_allclose(root_m, want_root_m, rtol=1e-4)
        np.testing.assert_allclose(got["landmarks_px"], want.landmarks_px[:b], atol=1e-3)
        covariance_m2 = want.root_covariance_m2[:b]
        np.testing.assert_allclose(got["root_covariance_m2"], covariance_m2, rtol=1e-2)
        np.testing.assert_allclose(got["noise_px"], want.noise_px[:b], rtol=1e-3)
