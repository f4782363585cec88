"""A set rendered from the user's MANO is trained on and evaluated like any other."""

import json

import pytest

pytestmark = pytest.mark.long


@pytest.mark.parity
def test_run_with_mano_trains_and_evaluates(run_main, reference, tmp_path):
    result = run_main(
        tmp_path / "run",
        f"--config.hand={reference / 'mano' / 'MANO_RIGHT.pkl'}",
        "--config.epochs=1.0",
        f"--config.data.source.folder={tmp_path / 'images'}",
        f"--config.data.source.prepared={tmp_path / 'prepared'}",
    )
    assert result.returncode == 0, result.stderr
    assert "mean hand" in result.stdout
    scores = json.loads((tmp_path / "run" / "eval" / "scores.json").read_text())
    assert scores["step"] == 3
    assert 0 < scores["model"]["pa_mpjpe_mm"] < 100
