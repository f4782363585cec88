import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.data import freihand
from m3dhmr_jax.data.mano_annotations import CHUNK, posed_vertices_m, roots_m
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin, load_mano
from m3dhmr_jax.hand.skinning import pose_hand, rotations_from_pose

N = 5  # As freihand_folder has hands to train on.


@pytest.fixture(scope="module", params=["builtin", pytest.param("mano", marks=pytest.mark.parity)])
def hand(request):
    if request.param == "builtin":
        return load_builtin()
    return load_mano(request.getfixturevalue("reference") / "mano" / "MANO_RIGHT.pkl")


def posed(hand, pose, shape):
    rotations = rotations_from_pose(hand, jnp.asarray(pose, jnp.float32))
    return pose_hand(hand, rotations, jnp.asarray(shape, jnp.float32))


def labels_of(hand, n, seed=0):
    """Poses and shapes, K, and the meshes and joints at random positions, in FreiHAND's format."""
    rng = np.random.default_rng(seed)
    poses, shapes = 0.4 * rng.normal(size=(n, 16, 3)), rng.normal(size=(n, 10))
    focal = rng.uniform(350, 500, n)
    intrinsics = np.zeros((n, 3, 3))
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2] = rng.uniform(105, 119, (n, 2))
    intrinsics[:, 2, 2] = 1
    roots = rng.uniform([-0.1, -0.1, 0.4], [0.1, 0.1, 1.0], (n, 3))
    verts = np.stack([posed(hand, *pair).verts_m for pair in zip(poses, shapes, strict=True)])
    xyz = hand.joint_regressor @ verts
    verts = verts + (roots - xyz[:, 9])[:, None]
    projected = np.einsum("nab,nb->na", intrinsics, roots)
    uv, scale = projected[:, :2] / projected[:, 2:], focal / roots[:, 2]
    parameters = np.concatenate([poses.reshape(n, 48), shapes, uv, scale[:, None]], axis=1)
    return parameters, intrinsics, verts, hand.joint_regressor @ verts


@pytest.fixture(scope="module")
def labels(hand):
    return labels_of(hand, N)


@pytest.fixture
def folder(freihand_folder, labels, tmp_path):
    """A release with parameters instead of the training set's vertices, and these vertices."""
    folder = shutil.copytree(freihand_folder, tmp_path / "set")
    parameters, intrinsics, verts, xyz = labels
    (folder / "training_verts.json").unlink()
    annotations = {"mano": parameters[:, None], "K": intrinsics, "xyz": xyz}
    for name, values in annotations.items():
        (folder / f"training_{name}.json").write_text(json.dumps(values.tolist()))
    return folder, verts


def test_vertices_of_parameters_equal_annotated_ones(folder, hand):
    folder, verts = folder
    posed_by_hand = freihand.read_annotations(folder, "train", hand)
    (folder / "training_verts.json").write_text(json.dumps(verts.tolist()))
    annotated = freihand.read_annotations(folder, "train")
    np.testing.assert_allclose(posed_by_hand.verts_m, annotated.verts_m, atol=1e-6)
    np.testing.assert_array_equal(posed_by_hand.joints_m, annotated.joints_m)


@pytest.mark.parametrize("hand", ["builtin"], indirect=True)
def test_read_parameters_without_second_brackets(folder, hand):
    folder, verts = folder
    path = folder / "training_mano.json"
    plain = [record[0] for record in json.loads(path.read_text())]
    path.write_text(json.dumps(plain, indent=1))
    read = freihand.read_annotations(folder, "train", hand)
    np.testing.assert_allclose(read.verts_m, verts, atol=1e-6)


@pytest.mark.parametrize("n", [1, CHUNK + 1])
def test_posed_vertices_take_any_number_of_hands(n):
    hand = load_builtin()
    parameters = np.zeros((n, 61), np.float32)
    parameters[:, 9] = np.linspace(0, 1, n)
    parameters[:, 60] = 700
    intrinsics = np.tile(np.diag([490, 490, 1]).astype(np.float32), (n, 1, 1))
    last = posed(hand, parameters[-1, :48].reshape(16, 3), np.zeros(10))
    offset = np.array([0, 0, 0.7]) - last.joints_m[9]
    got = posed_vertices_m(hand, parameters, intrinsics)
    np.testing.assert_allclose(got[-1], last.verts_m + offset[None], atol=1e-6)


def test_roots_are_scaled_orthographic():
    """Scaled orthographic: one focal length, the mean of the two, for both directions."""
    intrinsics = np.array([[[500.0, 0, 112], [0, 460, 110], [0, 0, 1]]])
    got = roots_m(np.array([[172.0, 80]]), np.array([600.0]), intrinsics)
    np.testing.assert_allclose(got, [[0.1, -0.05, 0.8]])


@pytest.mark.parametrize("hand", ["builtin"], indirect=True)
def test_parameters_need_a_hand(folder):
    with pytest.raises(UserError, match=r"training_mano\.json: .*MANO_RIGHT\.pkl"):
        freihand.read_annotations(folder[0], "train")


@pytest.mark.parametrize("hand", ["builtin"], indirect=True)
def test_parameters_of_another_hand_are_rejected(folder, hand):
    path = folder[0] / "training_xyz.json"
    xyz = np.array(json.loads(path.read_text()))
    path.write_text(json.dumps((xyz + np.array([0.03, 0, 0])).tolist()))
    with pytest.raises(UserError, match=r"_mano\.json: .* 30 mm"):
        freihand.read_annotations(folder[0], "train", hand)


@pytest.mark.parametrize("hand", ["builtin"], indirect=True)
def test_corrupted_parameters_are_named(folder, hand):
    path = folder[0] / "training_mano.json"
    records = json.loads(path.read_text())
    records[3][0][60] = -700.0
    path.write_text(json.dumps(records))
    with pytest.raises(UserError, match=r"training_mano\.json: record 3 .*-700"):
        freihand.read_annotations(folder[0], "train", hand)
    path.write_text(json.dumps(records)[:-1500])
    with pytest.raises(UserError, match=r"training_mano\.json: record 3 .*5 records"):
        freihand.read_annotations(folder[0], "train", hand)
    path.write_text(json.dumps(records[:4]))
    with pytest.raises(UserError, match=r"training_mano\.json: 4 .*5"):
        freihand.read_annotations(folder[0], "train", hand)
    path.write_text("")
    with pytest.raises(UserError, match=r"training_mano\.json: .*5 records"):
        freihand.read_annotations(folder[0], "train", hand)
