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


def test_drawn_hands_differ(exact, trained):
    """Else a network that ignored its input would pass."""
    rotations = np.roll(random_rotations(64), 1, axis=0)
    others = drawn_hands(trained.hand, rotations, trained.network.image_size)
    changes = np.abs(exact.crops.astype(int) - others).sum(axis=-1) > 20
    assert changes.mean(axis=(1, 2)).min() > 0.05
    assert changes.mean(axis=(1, 2)).max() < 0.9
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


@pytest.mark.parametrize(
    ("row", "field", "shift", "half", "told"),
    [
        (0, "vertices_m", 2e-5, False, "2e-05 m"),
        (2, "joints_m", 1e-3, True, "0.001 m"),
        (63, "landmarks_px", 0.1, False, "0.1 px"),
    ],
)
def test_a_file_that_miscomputes_one_hand_is_removed(
    exact, trained, tmp_path, row, field, shift, half, told
):
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
