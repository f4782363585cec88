"""A set rendered from the user's MANO goes through the same commands as any other."""

import json

import pytest

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def hand_flag(reference):
    return f"--config.hand={reference / 'mano' / 'MANO_RIGHT.pkl'}"


@pytest.fixture(scope="module")
def trained_on_mano(run_main, hand_flag, tmp_path_factory):
    """The workdir and the data flags of a run of one epoch on twelve photos, and what it said."""
    place = tmp_path_factory.mktemp("mano")
    data = (
        f"--config.data.source.folder={place / 'photos'}",
        f"--config.data.source.prepared={place / 'prepared'}",
    )
    result = run_main(place / "run", hand_flag, "--config.epochs=1.0", *data)
    assert result.returncode == 0, result.stderr
    return place, data, result


def test_one_epoch_trains_and_is_scored(trained_on_mano):
    place, _, result = trained_on_mano
    assert "mean hand" in result.stdout
    scores = json.loads((place / "run" / "eval" / "scores.json").read_text())
    assert scores["step"] == 3
    assert 0 < scores["model"]["pa_mpjpe_mm"] < 100


def test_another_hand_is_refused_for_the_data_and_for_the_checkpoint(run_main, trained_on_mano):
    place, data, _ = trained_on_mano
    result = run_main(place / "other", "--config.epochs=1.0", *data)
    assert result.returncode == 1
    assert "made from other settings: hand is" in result.stderr
    result = run_main(
        place / "other", "--config.epochs=1.0", *data, "--config.data.source.synthetic_train=0"
    )
    assert result.returncode == 1
    assert "numbered as another hand's: set --config.hand" in result.stderr
    result = run_main(place / "run", "--mode=evaluate", *data)
    assert result.returncode == 1
    assert "belongs to another network" in result.stderr
    assert "hand is" in result.stderr


def test_a_photo_is_answered(run_main, trained_on_mano, hand_flag):
    place, _, _ = trained_on_mano
    photo = place / "photos" / "evaluation" / "rgb" / "00000000.jpg"
    result = run_main(
        place / "run", hand_flag, "--mode=predict", f"--images={photo}", f"--out={place / 'out'}"
    )
    assert result.returncode == 0, result.stderr
    mesh = (place / "out" / "00000000.obj").read_text()
    assert mesh.count("\nf ") == 1538
