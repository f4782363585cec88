"""Batches of decoded images with their labels, from a prepared dataset.

The host reads records and decodes JPEG; all randomness but the order comes later, on the device.
The order is a function of seed and step alone: not of the numbers of threads, workers or processes,
nor of where a run was interrupted.
Axes: b batch, h w image.
"""

import bisect
import dataclasses
import functools
import itertools
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import grain
import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from absl import flags, logging

from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime import workers as worker_processes
from m3dhmr_jax.types import Batch

PREFETCHED_BATCHES = 4
MAX_RESTARTS = 3  # In a row, without a batch in between.


@functools.cache
def open_split(dataset_dir: Path, split: str) -> Sequence[dict[str, Any]]:
    """The records of a split in official order, with images left as JPEG bytes.

    Raises:
        UserError: if there is no prepared dataset, or its files do not have the recorded sizes.
    """
    if not (dataset_dir / "dataset_info.json").is_file():
        raise UserError(f"{dataset_dir}: not a prepared dataset; create one with m3dhmr prepare")
    builder = tfds.builder_from_directory(dataset_dir)
    info = builder.info.splits[split]
    n_bytes = sum(Path(path).stat().st_size for path in info.filepaths if path.exists())
    if n_bytes != info.num_bytes:
        raise UserError(
            f"{dataset_dir}: the record files of {split} have {n_bytes} bytes, but "
            f"{info.num_bytes} were written: it is corrupted; prepare it "
            "again into another folder"
        )
    decoders = {"image": tfds.decode.SkipDecoding()}
    # TFDS's logging decorator hides the parameters from the type checker.
    return builder.as_data_source(split=split, decoders=decoders)  # pyright: ignore[reportCallIssue]


def size(dataset_dir: Path, split: str) -> int:
    """The number of images of a split; raises as `open_split`."""
    return len(open_split(dataset_dir, split))


def sample_labels(dataset_dir: Path, names: Sequence[str], most: int) -> list[np.ndarray]:
    """Labels of at most `most` training examples, evenly spaced; one array for each name.

    Raises:
        UserError: as `open_split`.
    """
    source = open_split(dataset_dir, "train")
    rows = np.linspace(0, len(source) - 1, min(len(source), most)).astype(int)
    records = [source[int(row)] for row in rows]
    return [np.stack([record[name] for record in records]) for name in names]


class TrainBatches(Iterator[Batch]):
    """An endless stream of batches; restarts its worker processes if one dies.

    Attributes:
        skipped: indices of the images that could not be read so far; their examples are in the
            batches with a black image and `valid` False.
    """

    def __init__(
        self,
        open_at: Callable[[int], grain.DatasetIterator[Batch]],
        start_step: int,
        name_of: Callable[[int], str],
    ):
        self._open_at, self._name_of = open_at, name_of
        self._step = start_step  # Steps whose batches were handed out.
        self._batches = open_at(start_step)
        self.skipped: set[int] = set()

    def close(self) -> None:
        """Ends the worker processes."""
        self._batches.close()

    def _next(self) -> Batch:
        for _ in range(MAX_RESTARTS):
            try:
                return next(self._batches)
            except RuntimeError as error:  # Grain's, for a worker that died.
                logging.error("Restarting the loader at step %d: %s", self._step + 1, error)
            self._batches.close()
            self._batches = self._open_at(self._step)
        raise ChildProcessError(
            f"data.loader: no batch for step {self._step + 1} after {MAX_RESTARTS} restarts. If "
            "the system kills workers for memory, set fewer data.loader.workers; the same command "
            "resumes from the newest checkpoint"
        )

    def __next__(self) -> Batch:
        batch = self._next()
        self._step += 1
        for index in set(batch.index[~batch.valid].tolist()) - self.skipped:
            logging.warning("Skipped unreadable image %s", self._name_of(index))
            self.skipped.add(index)
        return batch


def train_batches(
    dataset_dir: Path,
    batch_size: int,
    seed: int,
    *,
    mix: Sequence[tuple[Path, float]] = (),
    coverage: bool = False,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    workers: int = 0,
    skip_unreadable: bool = False,
) -> TrainBatches:
    """Endless batches in random order, each image once per epoch, starting at `start_step`.

    Args:
        batch_size: global batch size; each process gets its slice of the rows, in their order.
        mix: further datasets and their shares of the examples; `dataset_dir` has the rest. Each
            dataset is read in an order of its own, from its start again after its last image.
            Indices in batches count on from dataset to dataset.
        coverage: whether batches have it.
        threads: number of decoding threads in each worker.
        workers: number of loading processes; 0 loads in this one.
        skip_unreadable: continue past an image that cannot be decoded, else stop.

    Raises:
        UserError: as `open_split`; if the batch is larger than the split or cannot be divided
            evenly; for an unreadable image, when its batch is loaded.
        ChildProcessError: if workers die repeatedly, when a batch is loaded.
    """
    shares = [1 - sum(share for _, share in mix), *(share for _, share in mix)]
    dirs = (dataset_dir, *(each for each, _ in mix))
    rows = _rows_of_process(batch_size, process_index, process_count)
    load = _Loader(dirs, "train", rows, skip_unreadable, coverage)
    n = load.starts[-1]
    if not 1 <= batch_size <= n:
        raise UserError(f"batch_size={batch_size} must be 1 to {n}, the number of training images")
    orders = [
        grain.MapDataset.range(start, stop).seed(seed).shuffle().repeat()
        for start, stop in itertools.pairwise(load.starts)
    ]
    order = grain.MapDataset.mix(orders, shares) if mix else orders[0]
    batches = order.batch(batch_size, drop_remainder=True)
    if workers and not flags.FLAGS.is_parsed():  # Grain passes the flags to its workers.
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

    return TrainBatches(open_at, start_step, load.name)


def _start_worker(index: int, count: int) -> None:
    """Workers ignore SIGTERM: clusters send it to all processes, and the run still has to save."""
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
    """A split once, in official order; the last batch is padded with rows of `valid` False.

    Raises:
        UserError: as `train_batches`.
    """
    n = size(dataset_dir, split)
    rows = _rows_of_process(batch_size, process_index, process_count)
    padded = np.full(-(-n // batch_size) * batch_size, -1)
    padded[:n] = np.arange(n)
    load = _Loader((dataset_dir,), split, rows, skip_unreadable=False, coverage=False)
    batches = grain.MapDataset.source(list(padded.reshape(-1, batch_size))).map(load)
    return iter(
        batches.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=PREFETCHED_BATCHES)
        )
    )


def _rows_of_process(batch_size: int, process_index: int, process_count: int) -> slice:
    n_rows, rest = divmod(batch_size, process_count)
    if rest or n_rows < 1 or not 0 <= process_index < process_count:
        raise UserError(
            f"batch_size={batch_size} must be a positive multiple of process_count={process_count}"
            f" and process_index={process_index} below it, so that all have equally many rows"
        )
    return slice(process_index * n_rows, (process_index + 1) * n_rows)


@dataclasses.dataclass(frozen=True)
class _Loader:
    """Loads the rows of one process from the indices of a global batch; -1 stands for padding.

    Indices count on from dataset to dataset.
    """

    dataset_dirs: tuple[Path, ...]
    split: str
    rows: slice
    skip_unreadable: bool
    coverage: bool

    @functools.cached_property
    def starts(self) -> list[int]:
        """The first index of each dataset, and the number of all images."""
        sizes = [size(each, self.split) for each in self.dataset_dirs]
        return list(itertools.accumulate(sizes, initial=0))

    def name(self, index: int) -> str:
        """The image's dataset and official name."""
        dataset_dir, row = self._place(index)
        return f"{dataset_dir}: {freihand.image_name(self.split, row)}"

    def _place(self, index: int) -> tuple[Path, int]:
        """The dataset of an index, and the row there."""
        number = bisect.bisect(self.starts, index) - 1
        return self.dataset_dirs[number], index - self.starts[number]

    def __call__(self, indices: np.ndarray) -> Batch:
        indices = indices[self.rows]
        index = np.maximum(indices, 0).astype(np.int32)
        places = [self._place(each) for each in index.tolist()]
        records = [open_split(where, self.split)[row] for where, row in places]
        images, readable = self._decode(records, index)
        return Batch(
            image=images,
            intrinsics=_stack(records, "K"),
            joints_m=_stack(records, "xyz"),
            verts_m=_stack(records, "verts"),
            bbox_px=_stack(records, "bbox"),
            index=index,
            valid=readable & (indices >= 0),
            quality=np.array([record.get("quality", 1) for record in records], np.float32),
            coverage=self._coverage(records, index, images) if self.coverage else None,
        )

    def _decode(
        self, records: Sequence[dict[str, Any]], index: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The images (b, h, w, 3), black where unreadable, and whether each is readable (b)."""
        names = [self.name(each) for each in index.tolist()]
        headers = [
            self._try(simplejpeg.decode_jpeg_header, *pair)
            for pair in zip(records, names, strict=True)
        ]
        shapes = {(size[0], size[1], 3) for size in headers if size is not None}
        if len(shapes) != 1:
            raise UserError(
                f"a batch has images of the shapes {sorted(shapes)}: at least one must be "
                f"readable, and all must have one size; they are {', '.join(names)}"
            )
        images = np.zeros((len(records), *shapes.pop()), np.uint8)
        readable = np.zeros(len(records), bool)
        for row, pair in enumerate(zip(records, names, strict=True)):
            decode = functools.partial(simplejpeg.decode_jpeg, buffer=images[row])
            readable[row] = self._try(decode, *pair) is not None
        images[~readable] = 0
        return images, readable

    def _try(self, decode: Callable[[bytes], Any], record: dict[str, Any], name: str) -> Any:
        """None for an unreadable image if these may be skipped."""
        try:
            return decode(record["image"])
        except ValueError as error:
            if self.skip_unreadable:
                return None
            raise UserError(
                f"{name} is not a readable JPEG ({error}): get the image again and prepare the "
                "dataset again, or set data.loader.skip_unreadable"
            ) from error

    def _coverage(
        self, records: Sequence[dict[str, Any]], index: np.ndarray, images: np.ndarray
    ) -> np.ndarray:
        """The coverage (b, h, w); complete where it is not known."""
        coverage = np.full(images.shape[:3], 255, np.uint8)
        for row, record in enumerate(records):
            png = record.get("coverage")
            if not png:
                continue
            decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
            if decoded is None or decoded.shape != coverage.shape[1:]:
                raise UserError(
                    f"{self.name(int(index[row]))}: its coverage is not a PNG of the image's "
                    f"{images.shape[2]} x {images.shape[1]} px: render the folder again and "
                    "prepare it again"
                )
            coverage[row] = decoded
        return coverage


def _stack(records: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    return np.stack([record[name] for record in records])
