"""Timing, tables and records of the benchmarks."""

import json

import jax
import pytest

from benchmarks.measure import Timing, interleaved, record, table


@pytest.fixture
def results(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    monkeypatch.setenv("BENCHMARK_RESULTS", str(path))
    return path


def test_interleaved_alternates_and_skips_the_warm_up():
    clock_s, calls = [0.0], []

    def taking(name, *seconds):
        left = list(seconds)

        def function():
            calls.append(name)
            clock_s[0] += left.pop(0)

        return function

    functions = {"a": taking("a", 90, 90, 1, 3, 2), "b": taking("b", 90, 90, 30, 10, 20)}
    found = interleaved(functions, rounds=3, warm_up=2, clock=lambda: clock_s[0])
    assert "".join(calls) == "ab" * 5
    assert found["a"] == pytest.approx((2000, 1200, 2800))
    assert found["b"] == pytest.approx((20000, 12000, 28000))


def test_interleaved_waits_for_results(monkeypatch):
    waited_for = []
    monkeypatch.setattr(jax, "block_until_ready", waited_for.append)
    interleaved({"a": lambda: "result"}, rounds=2, warm_up=1)
    assert waited_for == ["result"] * 3


def test_interleaved_rejects_zero_rounds():
    with pytest.raises(ValueError, match="rounds=0"):
        interleaved({"a": lambda: None}, rounds=0)


def test_record_appends_lines_with_machine_and_versions(results):
    record("latency", {"network": Timing(2.0, 1.0, 3.5)}, config="configs/resnet18.py")
    record("loader", {}, images_per_s=7.0)
    first, second = map(json.loads, results.read_text().splitlines())
    assert first["benchmark"] == "latency"
    assert first["config"] == "configs/resnet18.py"
    assert first["network_ms"] == 2.0
    assert first["spread_ms"] == {"network": [1.0, 3.5]}
    assert set(first["machine"]) == {"cpu", "cores", "memory_gb", "device"}
    assert first["machine"]["cores"] >= 1
    assert {"python", "jax", "flax", "numpy"} <= set(first["versions"])
    assert second["images_per_s"] == 7.0


def test_record_rejects_repeated_keys(results):
    with pytest.raises(ValueError, match="network_ms"):
        record("latency", {"network": Timing(2.0, 1.0, 3.0)}, network_ms=1.0)
    with pytest.raises(ValueError, match="machine"):
        record("latency", {}, machine="mine")
    assert not results.exists()


def test_record_rejects_nan(results):
    with pytest.raises(ValueError, match="JSON"):
        record("latency", {}, ratio=float("nan"))
    assert not results.exists()


def test_table_is_aligned_markdown():
    shown = table(
        ["part", "ms"], [["stem", 1.23456], ["all of it", 12345.6], ["cells", 7], ["none", None]]
    )
    assert shown.splitlines() == [
        "| part      |     ms |",
        "| --------- | ------ |",
        "| stem      |  1.235 |",
        "| all of it | 12,346 |",
        "| cells     |      7 |",
        "| none      |        |",
    ]
