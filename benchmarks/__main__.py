"""Runs the benchmarks, each script in a process of its own, one after the other.

    python -m benchmarks cpu    # As `make bench`.
    python -m benchmarks gpu    # All but the last only need JAX, Flax, Optax and Orbax.

Each prints its table and appends its line to benchmarks/results.jsonl. If one fails, the others
still run, and the exit code is 1.
"""

import subprocess
import sys
import time

SCRIPTS = {
    "cpu": (
        "latency",
        "throughput",
        "parts",
        "training_step",
        "evaluation",
        "startup",
        "augmentation",
        "root_recovery",
        "fitting",
        "loader",
        "scoring",
    ),
    "gpu": (
        "latency",
        "latency --compute_dtype=bfloat16",
        "throughput",
        "parts",
        "training_step --compute_dtype=bfloat16 --batch_size=256 --steps=30",
        "evaluation",
        "startup",
        "end_to_end",
    ),
}


def main(where: str) -> None:
    if where not in SCRIPTS:
        raise SystemExit(f"{where!r} must be one of {', '.join(SCRIPTS)}")
    failed = []
    for line in SCRIPTS[where]:
        print(f"\n{line}", flush=True)
        script, *options = line.split()
        command = [sys.executable, "-m", f"benchmarks.{script}", *options]
        start = time.perf_counter()
        if subprocess.run(command, check=False).returncode:
            failed.append(script)
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    if failed:
        raise SystemExit(f"failed, not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
