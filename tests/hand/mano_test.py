import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin, load_mano
from m3dhmr_jax.hand.mano import SHAPES
from tests.hand.pickles import Ch, Select, csc_matrix, dump


def mano_of(hand):
    """The content of a MANO file of this hand."""
    mano_from_freihand = [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3]
    return {
        "v_template": hand.verts_m.astype(np.float64),
        "f": hand.faces.astype(np.uint32),
        "shapedirs": hand.shape_basis.transpose(1, 2, 0).astype(np.float64),
        "posedirs": np.zeros((778, 3, 135)),
        "J_regressor": hand.joint_regressor[mano_from_freihand].astype(np.float64),
        "weights": hand.skin_weights.astype(np.float64),
        "kintree_table": np.array([[2**32 - 1, *hand.parents[1:]], range(16)]),
        "hands_mean": np.linspace(-0.5, 0.5, 45),
        "bs_style": "lbs",
    }


@pytest.fixture
def content():
    return mano_of(load_builtin())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "MANO_RIGHT.pkl"


def assert_same(got, want):
    for name in vars(want):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


def test_load_mano_gives_the_arrays_of_the_file(path, content):
    hand, like = load_mano(dump(path, content)), load_builtin()
    np.testing.assert_array_equal(hand.verts_m, like.verts_m)
    np.testing.assert_array_equal(hand.faces, like.faces)
    np.testing.assert_array_equal(hand.parents, like.parents)
    np.testing.assert_array_equal(hand.skin_weights, like.skin_weights)
    np.testing.assert_array_equal(hand.shape_basis, like.shape_basis)
    np.testing.assert_allclose(hand.rest_joints, like.rest_joints, atol=0.003)
    np.testing.assert_array_equal(hand.pose_mean.reshape(-1), np.float32(content["hands_mean"]))
    joints_m = hand.joint_regressor @ hand.verts_m
    tips = [4, 8, 12, 16, 20]
    np.testing.assert_array_equal(joints_m[tips], hand.verts_m[[744, 320, 443, 555, 672]])
    joints = np.delete(np.arange(21), tips)
    np.testing.assert_array_equal(hand.joint_regressor[joints], like.joint_regressor[joints])
    assert (hand.regions == like.regions).mean() > 0.9
    assert hand.levels == ()


def test_load_mano_takes_chumpy_and_sparse_arrays(path, content):
    plain = load_mano(dump(path, content))
    wide = np.concatenate([content["shapedirs"], np.ones((778, 3, 5))], axis=2)
    chosen = np.arange(wide.size).reshape(wide.shape)[:, :, :10]
    content["shapedirs"] = Select(a=Ch(x=wide), idxs=chosen.ravel(), preferred_shape=chosen.shape)
    content["v_template"] = Ch(x=content["v_template"])
    content["J_regressor"] = csc_matrix(content["J_regressor"])
    for python2 in (False, True):
        assert_same(load_mano(dump(path, content, python2=python2)), plain)


@pytest.mark.parametrize("frame", [np.eye(3), -np.eye(3)[[1, 2, 0]]])
def test_load_mano_rejects_left_hand_in_any_frame(path, content, frame):
    frame = frame * np.linalg.det(frame)
    right = content["v_template"] @ frame
    load_mano(dump(path, content | {"v_template": right}))
    left = (content["v_template"] * [-1, 1, 1]) @ frame
    with pytest.raises(UserError, match=r"MANO_RIGHT\.pkl: .*left hand"):
        load_mano(dump(path, content | {"v_template": left, "f": content["f"][:, ::-1]}))


def test_load_mano_rejects_inverted_surface(path, content):
    with pytest.raises(UserError, match=r"MANO_RIGHT\.pkl: .*'f'"):
        load_mano(dump(path, content | {"f": content["f"][:, ::-1]}))


def test_load_mano_names_missing_arrays(path, content):
    del content["posedirs"], content["f"]
    with pytest.raises(UserError, match=r"MANO_RIGHT\.pkl: .*'f', 'posedirs'"):
        load_mano(dump(path, content))


@pytest.mark.parametrize("name", SHAPES)
def test_load_mano_names_array_of_another_shape(path, content, name):
    content[name] = content[name][:-1]
    shape = str(SHAPES[name]).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(UserError, match=rf"'{name}' .*{shape}"):
        load_mano(dump(path, content))


def test_load_mano_rejects_body_model(path, content):
    content |= {"v_template": np.zeros((6890, 3))}
    with pytest.raises(UserError, match=r"'v_template' .*\(6890, 3\).*\(778, 3\)"):
        load_mano(dump(path, content))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weights": np.full((778, 16), np.nan)}, "'weights'"),
        ({"weights": np.full((778, 16), 0.1)}, "sum to 1"),
        ({"f": np.full((1538, 3), 778)}, r"778\.\.778"),
        ({"kintree_table": np.array([[-1, *range(15)], range(16)])}, "kintree_table"),
        ({"v_template": "text"}, "'v_template'"),
        ({"v_template": np.full((778, 3), None)}, "'v_template'"),
    ],
)
def test_load_mano_names_bad_array(path, content, change, reason):
    with pytest.raises(UserError, match=f"MANO_RIGHT.pkl: .*{reason}"):
        load_mano(dump(path, content | change))


def test_load_mano_rejects_truncated_and_other_files(path, content):
    dump(path, content)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"MANO_RIGHT\.pkl: .*https://mano\.is\.tue\.mpg\.de"):
        load_mano(path)
    path.write_text("<html>Please log in</html>")
    with pytest.raises(UserError, match=r"MANO_RIGHT\.pkl: "):
        load_mano(path)
    path.unlink()
    with pytest.raises(UserError, match=r"https://mano\.is\.tue\.mpg\.de"):
        load_mano(path)
