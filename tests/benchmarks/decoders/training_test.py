"""Training decoders on given features: small and few, but the real hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.decoders import training
from benchmarks.decoders.features import Examples, Features
from benchmarks.decoders.modules import AttentionDecoder, locate
from benchmarks.decoders.systems import FULL, SYSTEMS, Surroundings, channels_of, size_of
from m3dhmr_jax.camera.pinhole import rotate_about_optical_axis
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import build_hierarchy
from m3dhmr_jax.types import MESH_UNIT_M

ENCODING, FINEST = 8, 4
SETTINGS = training.Settings((8, 8, 8, 4), 24, 2, 1e-3, "features")
SMALLEST = SYSTEMS["dsconv"]


@pytest.fixture(scope="module")
def around():
    hand = load_builtin()
    return Surroundings(ENCODING, FINEST, hand, build_hierarchy(hand))


def make_examples(hand, images, crops, seed=0):
    rng = np.random.default_rng(seed)

    def random(*shape):
        return rng.normal(size=(images, crops, *shape)).astype(np.float16)

    maps = random(2, 2, ENCODING), random(16, 16, FINEST)
    landmarks_01 = rng.uniform(size=(images, crops, 21, 2)).astype(np.float16)
    verts = (hand.verts_m - hand.verts_m[0]) / MESH_UNIT_M
    verts = verts + 0.1 * rng.normal(size=(images, crops, 778, 3))
    angle_rad = np.zeros((images, crops), np.float32)
    return Examples(Features(*maps, landmarks_01), verts.astype(np.float32), angle_rad)


@pytest.fixture(scope="module")
def examples(around):
    return make_examples(around.hand, 5, 2), make_examples(around.hand, 5, 1, seed=1)


@pytest.fixture(scope="module")
def program(around):
    return training.create_program(SMALLEST, SETTINGS, around)


def assert_equal_trees(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def run(program, examples, file, **kwargs):
    return training.train(SMALLEST, 3, SETTINGS, program, *examples, file, **kwargs)


def test_train_resumes_to_the_bit(program, examples, tmp_path):
    expected, whole = run(program, examples, tmp_path / "whole.safetensors")
    part = tmp_path / "part.safetensors"
    _, before = run(program, examples, part, until=11)
    assert before.step == 10  # The last step at which it was saved.
    found, after = run(program, examples, part)
    assert_equal_trees(found, expected)
    assert after.curve == whole.curve
    assert [step for step, *_ in whole.curve] == list(range(2, 25, 2))
    assert after.cpu_s > before.cpu_s


def test_train_depends_on_the_seed(program, examples, tmp_path):
    _, one = run(program, examples, tmp_path / "one.safetensors", until=2)
    other = training.train(
        SMALLEST, 4, SETTINGS, program, *examples, tmp_path / "other.safetensors", until=2
    )
    assert other[1].curve != one.curve


def test_train_rejects_too_few_images(program, examples, tmp_path):
    few = jax.tree.map(lambda x: x[:1], examples[0])
    with pytest.raises(UserError, match="batch_size=2 must be at most 1"):
        run(program, (few, examples[1]), tmp_path / "few.safetensors")


def test_settings_reject_too_few_steps():
    with pytest.raises(UserError, match="steps=11 must be at least 12"):
        training.Settings((8, 8, 8, 4), 11, 2, 1e-3, "features")


def test_state_files_of_other_settings_differ():
    runs = [training.settings_id(SMALLEST, seed, SETTINGS) for seed in (0, 1)]
    assert len({training.state_file(training.Path("x"), each) for each in runs}) == 2


@pytest.mark.long
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_learns_from_finite_gradients(name, around, examples):
    system = SYSTEMS[name]
    program = training.create_program(system, SETTINGS, around)
    pairs = jax.tree.map(lambda x: x[:2], examples[0])
    key = jax.random.key(0)
    start = program.init(key)
    state = program.step(program.step(program.init(key), pairs), pairs)
    moved = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), start.params, state.params)
    assert np.isfinite(jax.tree.leaves(moved)).all()
    assert max(jax.tree.leaves(moved)) > 0
    assert np.isfinite(training.score(program, state, examples[1])).all()


@pytest.mark.long
@pytest.mark.parametrize("name", ["dsconv, ROI, equal", "dsc, K=16, ROI, equal"])
def test_equal_systems_have_the_parameters_of_the_full_model(name, around):
    channels = (32, 16, 8, 8)
    crop = jax.tree.map(lambda x: x[:1, 0], make_examples(around.hand, 1, 1).features)
    goal = size_of(FULL, channels, around, crop).parameters
    system = SYSTEMS[name]
    own = size_of(system, channels_of(system, channels, around), around, crop)
    assert own.parameters == pytest.approx(goal, rel=0.05)
    assert channels_of(FULL, channels, around) == channels


def test_loss_terms_vanish_for_true_and_consistent_meshes(around):
    hand = around.hand
    first = jnp.asarray(make_examples(hand, 2, 1).verts[:, 0])
    angle_rad = jnp.array([[0.1, 0.4], [0.0, -1.0]])
    second = jax.vmap(rotate_about_optical_axis)(first, angle_rad[:, 1] - angle_rad[:, 0])
    verts = jnp.stack([first, second], axis=1).reshape(4, 778, 3)
    terms = training.loss_terms(verts, verts, angle_rad, hand)
    for name in ("mesh", "joints", "edge", "con3d"):
        assert terms[name] == pytest.approx(0, abs=1e-6), name
    moved = training.loss_terms(verts + jnp.array([[[0.5, 0, 0]]]), verts, angle_rad, hand)
    assert moved["joints"] == pytest.approx(0.5 / 3, rel=1e-4)
    assert moved["con3d"] > 0.01


def test_aligned_errors_ignore_similarity_and_are_in_mm(around):
    true = jnp.asarray(make_examples(around.hand, 2, 1).verts[:, 0])
    same = 1.5 * true[..., jnp.array([1, 0, 2])] * jnp.array([[[1, -1, 1]]]) + 2
    joints, verts = training.aligned_errors_mm(same, true, around.hand)
    assert np.abs([joints, verts]).max() < 0.01
    joints, verts = training.aligned_errors_mm(0 * true, true, around.hand)
    assert 20 < verts.min() < verts.max() < 100  # A hand's mean radius.


def test_locate_inverts_a_weak_perspective_camera(around):
    verts = jnp.asarray(make_examples(around.hand, 2, 1).verts[:, 0])
    true_01 = 0.3 * verts[..., :2] + jnp.array([[[0.4, 0.6]]])
    landmarks_01 = jnp.einsum("nv,bvc->bnc", around.hand.joint_regressor, true_01)
    found = locate(verts, landmarks_01, around.hand.joint_regressor)
    np.testing.assert_allclose(found, true_01, atol=1e-4)


@pytest.mark.long
def test_refined_decoder_starts_as_the_plain_one(around, examples):
    model = SYSTEMS["refined"].create(around, (8, 8, 8, 4), nnx.Rngs(0))
    crops = jax.tree.map(lambda x: jnp.asarray(x[:2, 0], jnp.float32), examples[0].features)
    plain = model.sampled(crops)
    np.testing.assert_allclose(model(crops), plain, atol=1e-6)
    model.residual.bias[...] = jnp.array([1.0, 0, 0])
    np.testing.assert_allclose(
        model(crops) - plain, [[[1, 0, 0]]] * np.ones((2, 778, 1)), atol=1e-5
    )


def test_attention_lift_weighs_landmarks_by_the_image(around):
    decoder = AttentionDecoder(21, ENCODING, (8, 8, 8, 4), around.hierarchy, rngs=nnx.Rngs(0))
    pose_features = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, 21, ENCODING)), jnp.float32
    )
    lifted = decoder.lift(pose_features)
    assert lifted.shape == (2, around.hierarchy.coarsest, ENCODING)
    # Linear in the features only if the weights are fixed.
    assert np.abs(decoder.lift(2 * pose_features) - 2 * lifted).max() > 0.01
