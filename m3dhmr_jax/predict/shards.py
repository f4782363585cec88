"""A shard of many images: read, predicted, and written as one Parquet file, atomically.

Its task names the file, so a worker that repeats it, after a fault or alongside one that was
wrongly thought dead, writes the same file rather than a second one.
Axes: k hands, n = 21 landmarks or joints, v vertices. Camera frame: x right, y down, z forward,
metres.
"""

import hashlib
import json
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.boxes import BoxesByFile, HandBoxes, boxes_at
from m3dhmr_jax.predict.images import DecodedImage, decode_image
from m3dhmr_jax.predict.predictor import load_predictor
from m3dhmr_jax.predict.results import PredictedHands
from m3dhmr_jax.predict.run import PredictOptions, choose_intrinsics
from m3dhmr_jax.predict.shard_folder import SETTINGS_KEY, Version
from m3dhmr_jax.predict.shard_plan import ShardTask
from m3dhmr_jax.predict.storage import File, Location
from m3dhmr_jax.types import N_JOINTS, N_VERTICES

READ_AHEAD = 8  # Images that are read and decoded during the prediction of one.


def _numbers(*shape: int) -> pa.DataType:
    """A flat list in row-major order, as Parquet has no matrices."""
    return pa.list_(pa.float32(), int(np.prod(shape)))


HAND_COLUMNS = {
    "verts_m": _numbers(N_VERTICES, 3),
    "joints_m": _numbers(N_JOINTS, 3),
    "landmarks_px": _numbers(N_JOINTS, 2),
    "root_m": _numbers(3),
    "root_covariance_m2": _numbers(3, 3),
    "noise_px": pa.float32(),
    "handedness_probability": pa.float32(),  # Null if the side was given or assumed.
    "score": pa.float32(),
    "is_unsure": pa.bool_(),
    "crop_px": _numbers(4),  # (x, y, side, side) that was processed.
    "direction_rad": pa.float32(),
}
# One row per hand. An image without hands, or that could not be read, has one row, with the columns
# of the image only.
SCHEMA = pa.schema(
    [
        ("image", pa.string()),  # Path or address.
        ("hand", pa.int32()),  # In the order of the image's boxes, from 0.
        ("handedness", pa.string()),
        *HAND_COLUMNS.items(),
        ("K", _numbers(3, 3)),
        ("camera", pa.string()),  # given, exif or assumed.
        ("method", pa.string()),  # network or fit.
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("note", pa.string()),  # What was converted or left out.
        ("error", pa.string()),  # Why there is no prediction.
        # What the image was predicted from.
        ("file_bytes", pa.int64()),
        ("file_mtime_ns", pa.int64()),
        ("boxes_sha256", pa.string()),
    ]
)


class Job(NamedTuple):
    """What every worker needs, on any machine."""

    # The arguments of `load_predictor`.
    checkpoint: str | None
    hand: Path | None
    method: str | None
    runtime: str
    weights_sha256: str
    options: PredictOptions
    boxes: BoxesByFile | None
    source: Location
    out: Location

    @property
    def settings(self) -> dict[str, Any]:
        """What all predictions in a folder must have in common, named as users know it."""
        options = self.options
        k = options.intrinsics
        return {
            "weights": self.weights_sha256,
            "runtime": self.runtime,
            "K": None if k is None else k.tolist(),
            "fov": options.fov_deg,
            "freihand": options.freihand,
            "handedness": options.handedness,
            "views": options.views,
            "boxes": self.boxes is not None,
        }


class ShardWriter:
    """Predicts shard after shard; the network is loaded once.

    Raises:
        UserError: if this machine does not have the job's checkpoint.
    """

    def __init__(self, job: Job):
        self._job = job
        self._predictor = load_predictor(job.checkpoint, job.hand, job.method, job.runtime)
        if self._predictor.weights_sha256 != job.weights_sha256:
            origin = job.checkpoint or job.hand or "the package"
            raise UserError(
                f"{origin} holds other weights here than where the run was "
                "started: predictions of two networks must not be mixed; has training continued?"
            )
        settings = {SETTINGS_KEY: json.dumps(job.settings).encode()}
        self._schema = SCHEMA.with_metadata(settings)

    def __call__(self, task: ShardTask) -> int:
        """Writes the file of a task; returns the number of images predicted.

        Raises:
            UserError: if rows that are kept cannot be read, or the folder cannot be written to.
            DiskFullError: if the disk is full.
        """
        rows = [
            row | task.images[image]._asdict()
            for image, read in self._read_ahead(list(task.images))
            for row in self._rows(image, read)
        ]
        table = pa.Table.from_pylist(rows, schema=self._schema)
        if task.kept:
            table = pa.concat_tables([self._kept_rows(task), table])
        content = pa.BufferOutputStream()
        pq.write_table(table, content, compression="zstd")
        self._job.out.write_atomic(task.name, content.getvalue())
        return len(task.images)

    def _kept_rows(self, task: ShardTask) -> pa.Table:
        out = self._job.out
        with out.open(task.name) as file:
            try:
                table = pq.ParquetFile(file).read()
            except pa.ArrowInvalid as error:
                raise UserError(
                    f"{out.address}/{task.name} is corrupted ({error}): delete it, and start the "
                    "same command again"
                ) from error
        is_kept = pc.is_in(table["image"], pa.array(task.kept))  # pyright: ignore[reportAttributeAccessIssue]
        return table.filter(is_kept).cast(self._schema)

    def _read_ahead(self, images: Sequence[str]) -> Iterator[tuple[str, Future[DecodedImage]]]:
        waiting: deque[tuple[str, Future[DecodedImage]]] = deque()
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            for image in images:
                waiting.append((image, pool.submit(self._read, image)))
                if len(waiting) > READ_AHEAD:
                    yield waiting.popleft()
            yield from waiting

    def _read(self, image: str) -> DecodedImage:
        source = self._job.source
        with source.filesystem.open_input_stream(image.removeprefix(source.scheme)) as file:
            content = file.read()
        return decode_image(np.frombuffer(content, np.uint8), image)

    def _rows(self, image: str, read: Future[DecodedImage]) -> list[dict[str, Any]]:
        try:
            decoded = read.result()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                hands, camera = self._predict(image, decoded)
        except (UserError, OSError) as error:
            return [{"image": image, "error": str(error)}]
        height, width, _ = decoded.image.shape
        image_columns = {
            "image": image,
            "K": hands.intrinsics.ravel(),
            "camera": camera,
            "method": hands.method,
            "width": width,
            "height": height,
            "note": "; ".join(filter(None, [decoded.note, *map(_text, caught)])) or None,
        }
        return [
            image_columns
            | {"hand": i, "handedness": side}
            | {name: _plain(getattr(hands, name)[i]) for name in HAND_COLUMNS}
            for i, side in enumerate(hands.handedness)
        ] or [image_columns]

    def _predict(self, image: str, decoded: DecodedImage) -> tuple[PredictedHands, str]:
        options, boxes = self._job.options, self._job.boxes
        k, camera = choose_intrinsics(decoded.image, decoded.intrinsics, options)
        boxes_px, sides = None, options.handedness
        if boxes is not None:
            boxes_px, sides = image_boxes(boxes, image)
        hands = self._predictor(
            decoded.image, boxes_px, sides, k, freihand=options.freihand, views=options.views
        )
        return hands, camera


def _plain(values: np.ndarray | np.generic) -> list[float] | float | bool | None:
    if values.ndim:
        return values.ravel().tolist()
    return None if np.isnan(values) else values.item()


def _text(warning: warnings.WarningMessage) -> str:
    return str(warning.message)


def image_boxes(boxes: BoxesByFile, image: str) -> HandBoxes:
    """The boxes of an image, by its name without folders."""
    return boxes_at(boxes.get(image.rpartition("/")[2], {}), 0)


def image_version(image: File, boxes: BoxesByFile | None) -> Version:
    """What an image is predicted from, besides the settings."""
    boxes_sha256 = None
    if boxes is not None:
        boxes_px, sides = image_boxes(boxes, image.path)
        content = json.dumps([boxes_px.tolist(), sides])
        boxes_sha256 = hashlib.sha256(content.encode()).hexdigest()
    return Version(image.n_bytes, image.mtime_ns, boxes_sha256)
