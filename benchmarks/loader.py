"""Images per second that the loader delivers, by threads and worker processes.

    python -m benchmarks.loader

Reads shuffled batches of 32 images of the full synthetic recipe, prepared as FreiHAND is, from
files in the page cache. A training step on the same cores leaves less.
"""

import tempfile
import time
from pathlib import Path

from benchmarks.measure import record, table, timing
from m3dhmr_jax.data import loader
from m3dhmr_jax.synthetic import FULL, write_dataset
from tfds_freihand.prepare import prepare

BATCH = 32
SETTINGS = ((1, 0), (2, 0), (4, 0), (2, 1), (2, 2))  # Threads, workers.


def batch_ms(data: Path, threads: int, workers: int, batches: int) -> float:
    """Mean time of a batch, after the prefetched ones are used up."""
    stream = loader.train_batches(data, BATCH, seed=0, threads=threads, workers=workers)
    for _ in range(2 * loader.PREFETCHED_BATCHES * max(1, workers)):
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return 1000 * (time.perf_counter() - start) / batches


def main(
    images: int = 512,
    settings: tuple[tuple[int, int], ...] = SETTINGS,
    batches: int = 60,
    rounds: int = 3,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        write_dataset(out / "images", images, 1, seed=0, workers=2, recipe=FULL)
        data = prepare(out / "images", out / "prepared")
        times = {setting: [] for setting in settings}
        for _ in range(rounds):  # A stream at a time: an open one reads ahead.
            for threads, workers in settings:
                times[threads, workers].append(batch_ms(data, threads, workers, batches))
    timings, rates, rows = {}, {}, []
    for (threads, workers), each in times.items():
        name = f"threads_{threads}_workers_{workers}"
        timings[name] = timing(each)
        rates[name] = round(1000 * BATCH / timings[name].median_ms, 1)
        rows.append([str(threads), workers, timings[name].median_ms, rates[name]])
    print(table(["threads", "workers", f"ms per {BATCH}", "images/s"], rows))
    record("loader", timings, batch=BATCH, images_per_s=rates)


if __name__ == "__main__":
    main()
