"""The benchmarks of training, on tiny networks."""

import pytest

from benchmarks import training_step

pytestmark = pytest.mark.long


def test_training_step_times_every_round(tiny_config):
    times_ms, program_mb = training_step.measured(tiny_config(), rounds=2, steps=1)
    assert len(times_ms) == 2
    assert min(times_ms) > 0
    assert program_mb is not None
    assert 0.1 < program_mb < 1000


def test_end_to_end_times_the_run_and_its_halves(tiny_config, freihand_folder, tmp_path):
    pytest.importorskip("grain")
    from benchmarks import end_to_end
    from tfds_freihand.prepare import prepare

    data = prepare(freihand_folder, tmp_path)
    times_ms = end_to_end.measured(tiny_config(), data, steps=2, rounds=3)
    assert set(times_ms) == {"end_to_end", "step", "loader"}
    assert all(len(each) == 3 and min(each) > 0 for each in times_ms.values())


def test_peak_tflops_depends_on_device_and_dtype():
    assert training_step.peak_tflops("NVIDIA H200", "bfloat16") == 989.4
    assert training_step.peak_tflops("NVIDIA H100 80GB HBM3", "float32") == 494.7
    assert training_step.peak_tflops("cpu", "float32") is None
