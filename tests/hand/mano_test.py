import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin, load_mano
from m3dhmr_jax.hand.mano import SHAPES
from tests.hand.pickles import Ch, Select, csc_matrix, dump


def mano_of(hand):
    """What a MANO file would hold if it were this hand."""
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


def test_a_file_is_a_hand(path, content):
    hand, like = load_mano(dump(path, content)), load_builtin()
    np.testing.assert_array_equal(hand.verts_m, like.verts_m)
    np.testing.assert_array_equal(hand.faces, like.faces)
    np.testing.assert_array_equal(hand.parents, like.parents)
    np.testing.assert_array_equal(hand.skin_weights, like.skin_weights)
    np.testing.assert_array_equal(hand.shape_basis, like.shape_basis)
    np.testing.assert_allclose(hand.rest_joints, like.rest_joints, atol=0.003)
    np.testing.assert_array_equal(hand.pose_mean.reshape(-1), np.float32(content["hands_mean"]))
    landmarks = hand.joint_regressor @ hand.verts_m
    tips = [4, 8, 12, 16, 20]
    np.testing.assert_array_equal(landmarks[tips], hand.verts_m[[744, 320, 443, 555, 672]])
    joints = np.delete(np.arange(21), tips)
    np.testing.assert_array_equal(hand.joint_regressor[joints], like.joint_regressor[joints])
    assert (hand.regions == like.regions).mean() > 0.9
    assert hand.levels == ()


def test_a_file_with_chumpy_and_sparse_parts_is_the_same_hand(path, content):
    plain = load_mano(dump(path, content))
    wide = np.concatenate([content["shapedirs"], np.ones((778, 3, 5))], axis=2)
    chosen = np.arange(wide.size).reshape(wide.shape)[:, :, :10]
    content["shapedirs"] = Select(a=Ch(x=wide), idxs=chosen.ravel(), preferred_shape=chosen.shape)
    content["v_template"] = Ch(x=content["v_template"])
    content["J_regressor"] = csc_matrix(content["J_regressor"])
    for python2 in (False, True):
        assert_same(load_mano(dump(path, content, python2=python2)), plain)


@pytest.mark.parametrize("frame", [np.eye(3), -np.eye(3)[[1, 2, 0]]])
def test_a_left_hand_is_refused_however_it_is_turned(path, content, frame):
    frame = frame * np.linalg.det(frame)
    right = content["v_template"] @ frame
    load_mano(dump(path, content | {"v_template": right}))
    left = (content["v_template"] * [-1, 1, 1]) @ frame
    with pytest.raises(ValueError, match=r"MANO_RIGHT\.pkl: this is a left hand.*MANO_RIGHT\.pkl"):
        load_mano(dump(path, content | {"v_template": left, "f": content["f"][:, ::-1]}))


def test_a_surface_turned_inside_out_is_refused(path, content):
    with pytest.raises(ValueError, match="the faces of 'f' look inwards"):
        load_mano(dump(path, content | {"f": content["f"][:, ::-1]}))


def test_a_missing_array_is_named(path, content):
    del content["posedirs"], content["f"]
    with pytest.raises(ValueError, match=r"has no 'f', 'posedirs'; expected MANO_RIGHT\.pkl"):
        load_mano(dump(path, content))


@pytest.mark.parametrize("name", SHAPES)
def test_another_size_is_named_with_what_was_expected(path, content, name):
    content[name] = content[name][:-1]
    shape = str(SHAPES[name]).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"'{name}' has shape .*, expected {shape}"):
        load_mano(dump(path, content))


def test_a_body_model_is_refused(path, content):
    content |= {"v_template": np.zeros((6890, 3))}
    with pytest.raises(
        ValueError, match=r"'v_template' has shape \(6890, 3\), expected \(778, 3\)"
    ):
        load_mano(dump(path, content))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weights": np.full((778, 16), np.nan)}, "'weights' holds numbers that are not finite"),
        ({"weights": np.full((778, 16), 0.1)}, "must sum to 1"),
        ({"f": np.full((1538, 3), 778)}, r"778\.\.778"),
        ({"kintree_table": np.array([[-1, *range(15)], range(16)])}, "names the parents"),
        ({"v_template": "text"}, "'v_template' is not an array of numbers"),
        ({"v_template": np.full((778, 3), None)}, "'v_template' is not an array of numbers"),
    ],
)
def test_bad_content_is_named(path, content, change, reason):
    with pytest.raises(ValueError, match=f"MANO_RIGHT.pkl: .*{reason}"):
        load_mano(dump(path, content | change))


def test_a_cut_file_and_one_that_is_no_pickle_are_named(path, content):
    dump(path, content)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(
        ValueError, match=r"no pickle, or cut short.*https://mano\.is\.tue\.mpg\.de"
    ):
        load_mano(path)
    path.write_text("<html>Please log in</html>")
    with pytest.raises(ValueError, match="no pickle, or cut short"):
        load_mano(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"https://mano\.is\.tue\.mpg\.de"):
        load_mano(path)
