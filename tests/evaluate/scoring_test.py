import json

import jax
import numpy as np
import pytest

from m3dhmr_jax.evaluate.scoring import gather, score_batches, table, write_json
from m3dhmr_jax.metrics.freihand import batch_metrics
from m3dhmr_jax.metrics.reported import REPORTED_METRICS, format_score


def errors_of_shifted(batch):
    """The error of an example is its index in mm."""
    batch = jax.tree.map(np.asarray, batch)
    shift = np.float32(0.001) * batch.index[:, None, None].astype(np.float32)
    return batch_metrics(
        batch.joints_m + shift * np.float32([1, 0, 0]),
        batch.verts_m + shift * np.float32([1, 0, 0]),
        batch.joints_m,
        batch.verts_m,
    )


def test_gather_keeps_every_valid_example_once_in_order(hand_batch):
    batches = [
        hand_batch._replace(index=np.arange(i, i + 4, dtype=np.int32), valid=np.arange(4) < count)
        for i, count in ((0, 4), (4, 2))
    ]
    kept = gather(lambda batch: {"index": batch.index, "xyz": batch.joints_m}, batches)
    np.testing.assert_array_equal(kept["index"], np.arange(6))
    assert kept["xyz"].shape == (6, 21, 3)


def test_score_batches_counts_every_valid_example_once(hand_batch):
    """Batches of four with one padding example each, which holds NaN."""
    spoilt = hand_batch.verts_m.copy()
    spoilt[3] = np.nan
    batches = [
        hand_batch._replace(
            index=np.arange(i, i + 4, dtype=np.int32),
            verts_m=spoilt,
            valid=np.array([True, True, True, False]),
        )
        for i in (0, 10)
    ]
    scores = score_batches(errors_of_shifted, batches)
    np.testing.assert_allclose(1000 * scores["xyz_mean3d"], np.mean([0, 1, 2, 10, 11, 12]), 1e-3)


def test_table_has_a_row_per_entry_and_aligned_columns():
    entry = dict.fromkeys(REPORTED_METRICS, 12.3456) | {"f_5": 0.7, "f_15": 0.9}
    lines = table({"model": entry, "mean_hand": entry | {"f_5": 0.5}}).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["model", "mean hand"]
    assert "PA-MPJPE mm" in lines[0]
    assert "12.35" in lines[2]
    assert "0.500" in lines[3]


def test_write_json_keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "eval" / "scores.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": 2, "b": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["scores.json"]


@pytest.mark.parametrize(
    ("name", "text"), [("mpjpe_mm", "12.35"), ("landmark_error_px", "12.35"), ("f_5", "12.346")]
)
def test_format_score_rounds_by_unit(name, text):
    assert format_score(name, 12.3456) == text
