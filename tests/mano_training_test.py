"""A set rendered from the user's MANO goes through the same commands as any other."""

import json

import pytest

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def hand_flag(reference):
    return f"--config.hand={reference / 'mano' / 'MANO_RIGHT.pkl'}"


@pytest.fixture(scope="module")
def trained_on_mano(run_main, hand_flag, tmp_path_factory):
    """The place of a run of one epoch on twelve photos, and what it said."""
    place = tmp_path_factory.mktemp("mano")
    result = run_main(
        place / "run",
        hand_flag,
        "--config.epochs=1.0",
        f"--config.data.source.folder={place / 'photos'}",
        f"--config.data.source.prepared={place / 'prepared'}",
    )
    assert result.returncode == 0, result.stderr
    return place, result


def test_one_epoch_trains_and_is_scored(trained_on_mano):
    place, result = trained_on_mano
    assert "mean hand" in result.stdout
    scores = json.loads((place / "run" / "eval" / "scores.json").read_text())
    assert scores["step"] == 3
    assert 0 < scores["model"]["pa_mpjpe_mm"] < 100


def test_a_photo_is_answered(run_main, trained_on_mano, hand_flag):
    place, _ = trained_on_mano
    photo = place / "photos" / "evaluation" / "rgb" / "00000000.jpg"
    result = run_main(
        place / "run", hand_flag, "--mode=predict", f"--images={photo}", f"--out={place / 'out'}"
    )
    assert result.returncode == 0, result.stderr
    mesh = (place / "out" / "00000000.obj").read_text()
    assert mesh.count("\nf ") == 1538
