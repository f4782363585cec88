"""Loading: batches of decoded photos with their labels, out of a prepared dataset.

The host reads records and decodes JPEG; all that is random, but the order, happens later on the
device. The order is a function of seed and step alone: not of the numbers of threads, workers or
processes, nor of where a run was interrupted.
Axes: b batch, h w image.
"""

import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from absl import flags, logging

from m3dhmr_jax.data import freihand
from m3dhmr_jax.runtime import workers as worker_processes
from m3dhmr_jax.types import Batch

PREFETCHED_BATCHES = 4
STARTS = 3  # Of worker processes that die before they bring one batch.


@functools.cache
def open_split(dataset_dir: Path, split: str) -> Sequence[dict[str, Any]]:
    """The records of a split in official order, with images left as JPEG bytes.

    Raises:
        FileNotFoundError: if there is no prepared dataset.
        ValueError: if its files do not have the sizes that were recorded.
    """
    if not (dataset_dir / "dataset_info.json").is_file():
        raise FileNotFoundError(
            f"{dataset_dir}: no prepared dataset here; python -m tfds_freihand.prepare makes one"
        )
    builder = tfds.builder_from_directory(dataset_dir)
    info = builder.info.splits[split]
    n_bytes = sum(Path(path).stat().st_size for path in info.filepaths if path.exists())
    if n_bytes != info.num_bytes:
        raise ValueError(
            f"{dataset_dir}: the record files of {split} have {n_bytes} bytes, but "
            f"{info.num_bytes} were written; the dataset is damaged: delete it and prepare it again"
        )
    decoders = {"image": tfds.decode.SkipDecoding()}
    # TFDS's logging decorator hides the parameters from the type checker.
    return builder.as_data_source(split=split, decoders=decoders)  # pyright: ignore[reportCallIssue]


def size(dataset_dir: Path, split: str) -> int:
    """The number of photos of a split; raises as `open_split`."""
    return len(open_split(dataset_dir, split))


class TrainBatches(Iterator[Batch]):
    """An endless stream of batches, which outlives a worker process of its own.

    Attributes:
        skipped: the photos that could not be read so far, by index; their examples are in the
            batches with a black image and `valid` False.
    """

    def __init__(self, open_at: Callable[[int], grain.DatasetIterator[Batch]], start_step: int):
        self._open_at = open_at
        self._step = start_step  # Steps whose batches were handed out.
        self._batches = open_at(start_step)
        self.skipped: set[int] = set()

    def close(self) -> None:
        """Ends the worker processes."""
        self._batches.close()

    def _next(self) -> Batch:
        for _ in range(STARTS):
            try:
                return next(self._batches)
            except RuntimeError as error:  # Grain's, for a worker that died.
                logging.error("Loading starts anew at step %d: %s", self._step + 1, error)
            self._batches.close()
            self._batches = self._open_at(self._step)
        raise ChildProcessError(
            f"data.loader: no batch for step {self._step + 1} after {STARTS} starts. If the system "
            "kills workers for memory, set fewer data.loader.workers; the same command goes on "
            "from the last checkpoint"
        )

    def __next__(self) -> Batch:
        batch = self._next()
        self._step += 1
        for index in set(batch.index[~batch.valid].tolist()) - self.skipped:
            logging.warning("Skipped unreadable photo %s", freihand.image_name("train", index))
            self.skipped.add(index)
        return batch


def train_batches(
    dataset_dir: Path,
    batch_size: int,
    seed: int,
    *,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    workers: int = 0,
    skip_unreadable: bool = False,
) -> TrainBatches:
    """Endless batches in random order, each photo once per epoch, from `start_step` on.

    Args:
        batch_size: of all processes together; each gets its part of the rows, in their order.
        threads: that decode at the same time, in each worker.
        workers: processes that load; 0 loads in this one.
        skip_unreadable: go on past a photo that cannot be decoded, else stop.

    Raises:
        FileNotFoundError, ValueError: as `open_split`; for a batch that is larger than the split
            or cannot be shared out evenly; for an unreadable photo when its batch is drawn.
        ChildProcessError: if workers die again and again, when a batch is drawn.
    """
    n = size(dataset_dir, "train")
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size={batch_size} must be 1 to {n}, the number of training photos")
    rows = _rows_of_process(batch_size, process_index, process_count)
    load = _Loader(dataset_dir, "train", rows, skip_unreadable)
    order = grain.MapDataset.range(n).seed(seed).shuffle().repeat()
    batches = order.batch(batch_size, drop_remainder=True)
    if workers and not flags.FLAGS.is_parsed():  # Grain hands the flags on to its workers.
        flags.FLAGS.mark_as_parsed()

    def open_at(step: int) -> grain.DatasetIterator[Batch]:
        stream = (
            batches[step:]
            .map(load)
            .to_iter_dataset(
                grain.ReadOptions(num_threads=threads, prefetch_buffer_size=PREFETCHED_BATCHES)
            )
        )
        options = grain.MultiprocessingOptions(num_workers=workers)
        return iter(stream.mp_prefetch(options, _start_worker) if workers else stream)

    return TrainBatches(open_at, start_step)


def _start_worker(index: int, count: int) -> None:
    """Workers load until the run ends: clusters send SIGTERM to all, and the run still saves."""
    del index, count
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker_processes.end_with_parent()


def eval_batches(
    dataset_dir: Path,
    batch_size: int,
    split: str = "test",
    *,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> Iterator[Batch]:
    """A split once, in official order; the last batch is filled up with rows of `valid` False.

    Raises:
        FileNotFoundError, ValueError: as `train_batches`.
    """
    n = size(dataset_dir, split)
    rows = _rows_of_process(batch_size, process_index, process_count)
    padded = np.full(-(-n // batch_size) * batch_size, -1)
    padded[:n] = np.arange(n)
    load = _Loader(dataset_dir, split, rows, skip_unreadable=False)
    batches = grain.MapDataset.source(list(padded.reshape(-1, batch_size))).map(load)
    return iter(
        batches.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=PREFETCHED_BATCHES)
        )
    )


def _rows_of_process(batch_size: int, process_index: int, process_count: int) -> slice:
    share, rest = divmod(batch_size, process_count)
    if rest or share < 1 or not 0 <= process_index < process_count:
        raise ValueError(
            f"batch_size={batch_size} must be a positive multiple of process_count={process_count}"
            f" and process_index={process_index} below it, so that every process has as many rows"
        )
    return slice(process_index * share, (process_index + 1) * share)


@dataclasses.dataclass(frozen=True)
class _Loader:
    """Makes the rows of one process out of the indices of a whole batch; -1 stands for filler."""

    dataset_dir: Path
    split: str
    rows: slice
    skip_unreadable: bool

    def __call__(self, indices: np.ndarray) -> Batch:
        indices = indices[self.rows]
        source = open_split(self.dataset_dir, self.split)
        records = [source[max(int(index), 0)] for index in indices]
        images, readable = self._decode(records)
        return Batch(
            image=images,
            intrinsics=_stack(records, "K"),
            joints_m=_stack(records, "xyz"),
            verts_m=_stack(records, "verts"),
            bbox_px=_stack(records, "bbox"),
            index=_stack(records, "index").astype(np.int32),
            valid=readable & (indices >= 0),
        )

    def _decode(self, records: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """The photos (b, h, w, 3), black where unreadable, and which are readable (b)."""
        sizes = [self._try(simplejpeg.decode_jpeg_header, record) for record in records]
        shapes = {(size[0], size[1], 3) for size in sizes if size is not None}
        if len(shapes) != 1:
            names = [self._name(record) for record in records]
            raise ValueError(
                f"a batch has photos of shapes {sorted(shapes)}, but needs at least one that is "
                f"readable and all of one size; they are {', '.join(names)}"
            )
        images = np.zeros((len(records), *shapes.pop()), np.uint8)
        readable = np.zeros(len(records), bool)
        for row, record in enumerate(records):
            decode = functools.partial(simplejpeg.decode_jpeg, buffer=images[row])
            readable[row] = self._try(decode, record) is not None
        images[~readable] = 0
        return images, readable

    def _try(self, decode: Callable[[bytes], Any], record: dict[str, Any]) -> Any:
        """None for an unreadable photo where these may be skipped."""
        try:
            return decode(record["image"])
        except ValueError as error:
            if self.skip_unreadable:
                return None
            raise ValueError(
                f"{self._name(record)} (index {record['index']}) of {self.dataset_dir} is not a "
                f"readable JPEG ({error}): get the photo again and prepare the dataset anew, or "
                "allow unreadable photos to be skipped"
            ) from error

    def _name(self, record: dict[str, Any]) -> str:
        return freihand.image_name(self.split, int(record["index"]))


def _stack(records: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    return np.stack([record[name] for record in records])
