"""The harness of the benchmarks."""

import json
import time

import jax
import pytest

from benchmarks.measure import Timing, interleaved, record, table


@pytest.fixture
def results(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    monkeypatch.setenv("BENCHMARK_RESULTS", str(path))
    return path


def test_functions_take_turns_and_the_warm_up_does_not_count(monkeypatch):
    clock_s, calls = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock_s[0])

    def taking(name, *seconds):
        left = list(seconds)

        def function():
            calls.append(name)
            clock_s[0] += left.pop(0)

        return function

    functions = {"a": taking("a", 90, 90, 1, 3, 2), "b": taking("b", 90, 90, 30, 10, 20)}
    found = interleaved(functions, rounds=3, warm_up=2)
    assert "".join(calls) == "ab" * 5
    assert found["a"] == pytest.approx((2000, 1200, 2800))
    assert found["b"] == pytest.approx((20000, 12000, 28000))


def test_a_run_lasts_until_its_result_is_there(monkeypatch):
    waited_for = []
    monkeypatch.setattr(jax, "block_until_ready", waited_for.append)
    interleaved({"a": lambda: "answer"}, rounds=2, warm_up=1)
    assert waited_for == ["answer"] * 3


def test_no_median_without_a_run():
    with pytest.raises(ValueError, match="rounds=0 must be at least 1"):
        interleaved({"a": lambda: None}, rounds=0)


def test_lines_are_appended_and_say_where_they_come_from(results):
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


def test_a_value_is_never_hidden_by_another(results):
    with pytest.raises(ValueError, match=r"latency: \['network_ms'\] would be written twice"):
        record("latency", {"network": Timing(2.0, 1.0, 3.0)}, network_ms=1.0)
    with pytest.raises(ValueError, match=r"\['machine'\] would be written twice"):
        record("latency", {}, machine="mine")
    assert not results.exists()


def test_what_is_no_number_is_not_written(results):
    with pytest.raises(ValueError, match="not JSON compliant"):
        record("latency", {}, ratio=float("nan"))
    assert not results.exists()


def test_a_table_is_markdown_with_aligned_columns():
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
