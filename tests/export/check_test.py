import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.check import (
    BATCHES,
    CropOutputs,
    difference_from_jax,
    drawn_hands,
    random_rotations,
    run_jax,
    write_checked,
)
from m3dhmr_jax.export.trained import Trained
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import predict


@pytest.fixture(scope="module")
def trained(tiny_network):
    return Trained(tiny_network, load_builtin(), "{}")


@pytest.fixture(scope="module")
def exact(trained):
    """What JAX computes, by the crops' bytes: a perfect export."""
    crops = drawn_hands(trained.hand, random_rotations(64), trained.network.image_size)
    outputs = run_jax(trained, crops)
    rows = {crop.tobytes(): i for i, crop in enumerate(crops)}

    def run(batch):
        run.batches.append(len(batch))
        index = [rows[crop.tobytes()] for crop in batch]
        return CropOutputs(*(x[index] for x in outputs))

    run.batches, run.crops, run.outputs = [], crops, outputs
    return run


def test_jax_runs_the_network(exact, trained):
    """The outputs that exports are compared with are those of the network, in metres and pixels."""
    network = trained.network
    image = np.float32(exact.crops[:2]) / 255 * 2 - 1
    verts, landmarks_01 = predict(network.eval_graphdef, network.params, network.stats, image)
    np.testing.assert_allclose(exact.outputs.vertices_m[:2], verts * 0.2, atol=1e-4)
    np.testing.assert_allclose(exact.outputs.landmarks_px[:2], landmarks_01 * 64, atol=1e-2)
    regressor = trained.hand.joint_regressor
    joints_m = np.einsum("nv,bvc->bnc", regressor, exact.outputs.vertices_m)
    np.testing.assert_allclose(exact.outputs.joints_m, joints_m, atol=1e-5)


def test_drawn_hands_cover_a_part_of_every_crop(exact, trained):
    """Different hands: a network that ignored its input would not pass."""
    far = trained.hand
    covered = [
        (np.abs(crop.astype(int) - other.astype(int)).sum(axis=-1) > 20).mean()
        for crop, other in zip(
            exact.crops, drawn_hands(far, np.roll(random_rotations(64), 1, axis=0), 64), strict=True
        )
    ]
    assert min(covered) > 0.1
    assert max(covered) < 0.9
    assert np.ptp(exact.outputs.vertices_m, axis=0).max() > 1e-3


def test_every_hand_is_compared_in_batches_of_several_sizes(exact, trained):
    exact.batches.clear()
    assert difference_from_jax(exact, trained) == (0, 0)
    assert tuple(exact.batches) == BATCHES
    assert sum(BATCHES) == 64


def shifted(exact, field, shift, row):
    """An export that is wrong in one place of one hand."""

    def run(batch):
        outputs = exact(batch)
        changed = getattr(outputs, field).copy()
        for i, crop in enumerate(batch):
            if crop.tobytes() == exact.crops[row].tobytes():
                changed[i, 3, 1] += shift
        return outputs._replace(**{field: changed})

    return run


WRONG = {
    "vertices_m": (2e-5, False, "2e-05 m"),
    "joints_m": (1e-3, True, "0.001 m"),
    "landmarks_px": (0.1, False, "0.1 px"),
}


@pytest.mark.parametrize("field", WRONG)
@pytest.mark.parametrize("row", [0, 2, 63])
def test_a_file_that_miscomputes_one_hand_is_removed(exact, trained, tmp_path, field, row):
    shift, half, told = WRONG[field]
    out = tmp_path / "hand.format"
    with (
        pytest.raises(UserError, match=told),
        write_checked(out, trained, lambda _: shifted(exact, field, shift, row), half=half) as path,
    ):
        path.write_text("wrong")
    assert not list(tmp_path.iterdir())


def test_nan_is_no_small_difference(exact, trained, tmp_path):
    with (
        pytest.raises(UserError, match="nan m"),
        write_checked(
            tmp_path / "x", trained, lambda _: shifted(exact, "vertices_m", np.nan, 5), half=True
        ) as path,
    ):
        path.write_text("wrong")
    assert not list(tmp_path.iterdir())


def test_half_files_have_wider_limits(exact, trained, tmp_path, capsys):
    run = shifted(exact, "vertices_m", 1e-4, 7)
    with write_checked(tmp_path / "x", trained, lambda _: run, half=True) as path:
        path.write_text("right")
    assert (tmp_path / "x").read_text() == "right"
    assert "at most 0.0001 m and 0 px" in capsys.readouterr().out
