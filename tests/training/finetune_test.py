"""Fine-tuning as a run: from another run, on two datasets, with all augmentation for photos."""

import json

import pytest

from tests.workdirs import meta, steps_in

pytestmark = pytest.mark.long


def test_finetuning_continues_a_network_on_mixed_datasets(run_main, trained, tmp_path):
    mix = ((str(run_main.data / "prepared"), 0.7),)
    flags = (f"--config.data.mix={mix}", "--config.eval.every_epochs=1.0")
    config = f"finetune.py:{trained[0]}"
    result = run_main(tmp_path / "run", *flags, "--config.epochs=1.0", config=config)
    assert result.returncode == 0, result.stderr
    assert f"Starting from {trained[0]}" in result.stdout
    assert steps_in(tmp_path / "run")[-1] == 6  # 12 + 12 images in batches of 4.
    assert json.loads((tmp_path / "run/config.json").read_text())["data"]["mix"] == [list(mix[0])]
    assert (tmp_path / "run/eval/scores.json").is_file()

    again = run_main(tmp_path / "run", *flags, "--config.epochs=2.0", config=config)
    assert "Resuming from step 6" in again.stdout
    whole = run_main(tmp_path / "whole", *flags, "--config.epochs=2.0", config=config)
    assert whole.returncode == 0, whole.stderr
    assert meta(tmp_path / "run", 12)["sha256"] == meta(tmp_path / "whole", 12)["sha256"]
