"""Measures everything: each script in a process of its own, one after the other.

    python -m benchmarks cpu    # As `make bench`.
    python -m benchmarks gpu    # Needs JAX, Flax, Optax and Orbax alone, and no files.

Each prints its table and appends its line to benchmarks/results.jsonl. If one fails the others
still run, and the exit code is 1.
"""

import subprocess
import sys
import time

DEVICE = ("latency", "throughput", "parts", "training_step", "evaluation", "startup")
SCRIPTS = {
    "cpu": (*DEVICE, "augmentation", "root_recovery", "loader", "scoring"),
    "gpu": DEVICE,
}


def main(where: str) -> None:
    if where not in SCRIPTS:
        raise SystemExit(f"{where!r} must be one of {', '.join(SCRIPTS)}")
    failed = []
    for script in SCRIPTS[where]:
        print(f"\n{script}", flush=True)
        start = time.perf_counter()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{script}"], check=False).returncode:
            failed.append(script)
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    if failed:
        raise SystemExit(f"failed, so not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
