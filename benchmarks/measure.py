"""What all benchmarks share: fair timing, and results that record their origin.

A script times callables in turn (`interleaved`), prints one `table` and calls `record`, which
appends one line of JSON to benchmarks/results.jsonl, or to the file that BENCHMARK_RESULTS names:

    {"benchmark": "latency", "date": ..., "machine": {...}, "versions": {...},
     what the script states of its settings and results...,
     "network_ms": median, ..., "spread_ms": {"network": [10th, 90th percentile], ...}}
"""

import datetime
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax
import jax
import jaxlib
import numpy as np

RESULTS = Path(__file__).with_name("results.jsonl")
CPUINFO = Path("/proc/cpuinfo")
VECTOR_EXTENSIONS = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_tile": "AMX", "asimd": "NEON"}


class Timing(NamedTuple):
    """Times of one callable over all rounds."""

    median_ms: float
    low_ms: float  # 10th percentile.
    high_ms: float  # 90th percentile.


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    rounds: int = 20,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Times each function once per round, in turn, so that all see the same noise of the machine.

    A call ends when its result is computed. The first `warm_up` rounds, which compile, do not
    count. `time.process_time` as the clock counts the seconds of all threads.

    Raises:
        ValueError: if `rounds` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1: a median needs a run")
    times_ms = {name: [] for name in functions}
    for number in range(warm_up + rounds):
        for name, function in functions.items():
            start = clock()
            jax.block_until_ready(function())
            elapsed_ms = 1000 * (clock() - start)
            if number >= warm_up:
                times_ms[name].append(elapsed_ms)
    return {name: timing(each) for name, each in times_ms.items()}


def timing(times_ms: Sequence[float]) -> Timing:
    low_ms, median_ms, high_ms = np.percentile(times_ms, [10, 50, 90]).tolist()
    return Timing(median_ms, low_ms, high_ms)


def peak_memory_mb() -> float:
    """Peak device memory of this process; on a CPU, the peak resident memory of the process."""
    stats = jax.devices()[0].memory_stats()  # None on a CPU.
    if stats:
        return stats["peak_bytes_in_use"] / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # Linux counts in kB.


def machine() -> dict[str, Any]:
    """The machine, without its host name."""
    devices = jax.devices()
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if CPUINFO.is_file() else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "device": f"{len(devices)} x {devices[0].device_kind}",
    }


def _cpu() -> str:
    """The CPU's name and its vector extensions."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    parts = [line.partition(":") for line in lines]
    facts = {name.strip(): value.strip() for name, _, value in parts}
    flags = facts.get("flags", facts.get("Features", "")).split()  # x86, ARM.
    wide = [name for flag, name in VECTOR_EXTENSIONS.items() if flag in flags]
    return ", ".join([facts.get("model name", platform.machine()), *wide])


def versions() -> dict[str, str]:
    modules = {"jax": jax, "jaxlib": jaxlib, "flax": flax, "numpy": np}
    return {"python": platform.python_version()} | {n: m.__version__ for n, m in modules.items()}


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table: numbers with four digits, None as an empty cell."""
    lines = [list(heads), *([_format(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    padded = [
        [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _format(cell: object) -> str:
    if not isinstance(cell, float):
        return "" if cell is None else str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"


def record(benchmark: str, timings: Mapping[str, Timing], **facts: Any) -> dict[str, Any]:
    """Appends the line of a benchmark and returns it; `facts` become keys of it.

    Raises:
        ValueError: if two values have the same key, or a number is not finite.
    """
    parts: list[dict[str, Any]] = [
        {"benchmark": benchmark, "date": datetime.date.today().isoformat()},
        {"machine": machine(), "versions": versions()},
        facts,
        {f"{name}_ms": round(t.median_ms, 4) for name, t in timings.items()},
        {"spread_ms": {n: [round(t.low_ms, 4), round(t.high_ms, 4)] for n, t in timings.items()}},
    ]
    names = [name for part in parts for name in part]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{benchmark}: {repeated} are given twice: rename facts or timings")
    line = {name: value for part in parts for name, value in part.items()}
    text = json.dumps(line, allow_nan=False)
    with _results().open("a") as file:
        file.write(text + "\n")
    return line


def recorded(benchmark: str) -> list[dict[str, Any]]:
    """The lines that a benchmark has recorded so far, oldest first."""
    text = _results().read_text(encoding="utf-8") if _results().is_file() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["benchmark"] == benchmark]


def _results() -> Path:
    return Path(os.environ.get("BENCHMARK_RESULTS", RESULTS))
