"""A part of many photos: read, answered, and written as one Parquet file, whole or not at all.

A part's file is named after its photos, so that whoever answers it again, after a fault or beside a
worker that was thought dead, writes the same file and no second one.
Axes: k hands, n = 21 landmarks, v vertices. Camera frame: x right, y down, z forward, metres.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from m3dhmr_jax.predict.boxes import TargetsOf
from m3dhmr_jax.predict.images import ReadPhoto, decode_photo
from m3dhmr_jax.predict.predictor import SIDES, HandMeshPredictor, PredictedHands
from m3dhmr_jax.predict.run import Wishes, camera_of
from m3dhmr_jax.predict.storage import Place, write_whole
from m3dhmr_jax.predict.tracking import Tracker
from m3dhmr_jax.types import N_JOINTS, N_VERTICES

READ_AHEAD = 8  # Photos that are read and decoded while one is looked at.
SETTINGS_KEY = b"m3dhmr_jax"


def _numbers(*shape: int) -> pa.DataType:
    """Row by row; a flat list, as Parquet has no matrices."""
    return pa.list_(pa.float32(), int(np.prod(shape)))


# One row a hand. A photo without a box, or that could not be read, has one row, and nothing in it
# but what is known of the photo.
SCHEMA = pa.schema(
    [
        ("image", pa.string()),  # Path or address.
        ("hand", pa.int32()),  # In the order of the photo's boxes, from 0.
        ("handedness", pa.string()),
        ("verts_m", _numbers(N_VERTICES, 3)),
        ("joints_m", _numbers(N_JOINTS, 3)),
        ("landmarks_px", _numbers(N_JOINTS, 2)),
        ("root_m", _numbers(3)),
        ("root_covariance_m2", _numbers(3, 3)),
        ("noise_px", pa.float32()),
        ("square_px", _numbers(4)),  # What the network looked at: (x, y, side, side).
        ("K", _numbers(3, 3)),
        ("camera", pa.string()),  # given, exif or assumed.
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("note", pa.string()),  # What was converted.
        ("error", pa.string()),  # Why there is no answer.
    ]
)
OF_A_HAND = (
    "verts_m",
    "joints_m",
    "landmarks_px",
    "root_m",
    "root_covariance_m2",
    "noise_px",
    "square_px",
)


class Job(NamedTuple):
    """What all workers do, on whatever machine."""

    checkpoint: str
    weights_sha256: str
    wishes: Wishes
    targets: TargetsOf | None
    source: Place
    out: Place

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for all answers in a folder."""
        wishes = self.wishes
        k = wishes.intrinsics
        return {
            "weights_sha256": self.weights_sha256,
            "K": None if k is None else k.tolist(),
            "field_deg": wishes.field_deg,
            "handedness": wishes.handedness,
            "with_boxes": self.targets is not None,
        }


class PartWriter:
    """Answers the photos of one part after the other; the network is loaded once.

    Raises:
        FileNotFoundError, ValueError: if this machine has not the checkpoint that the job is about.
    """

    def __init__(self, job: Job):
        self._job = job
        self._predictor = HandMeshPredictor.from_checkpoint(job.checkpoint)
        if self._predictor.weights_sha256 != job.weights_sha256:
            raise ValueError(
                f"{job.checkpoint} holds other weights here than where the run was started: "
                "answers of two networks must not be mixed; has training gone on?"
            )
        settings = {SETTINGS_KEY: json.dumps(job.settings).encode()}
        self._schema = SCHEMA.with_metadata(settings)

    def __call__(self, part: dict[str, Any]) -> dict[str, int]:
        """Writes the answers for `part["images"]`, and says how many photos and hands that were."""
        images = [str(image) for image in part["images"]]
        rows = [row for each in self._read_ahead(images) for row in self._rows(*each)]
        content = pa.BufferOutputStream()
        table = pa.Table.from_pylist(rows, schema=self._schema)
        pq.write_table(table, content, compression="zstd")
        out = self._job.out
        write_whole(out.filesystem, f"{out.path}/{part_name(images)}", content.getvalue())
        return {"images": len(images), "hands": sum("hand" in row for row in rows)}

    def _read_ahead(self, images: Sequence[str]) -> Iterator[tuple[str, Future[ReadPhoto]]]:
        waiting: deque[tuple[str, Future[ReadPhoto]]] = deque()
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            for image in images:
                waiting.append((image, pool.submit(self._read, image)))
                if len(waiting) > READ_AHEAD:
                    yield waiting.popleft()
            yield from waiting

    def _read(self, image: str) -> ReadPhoto:
        source = self._job.source
        with source.filesystem.open_input_stream(image.removeprefix(source.scheme)) as file:
            content = file.read()
        return decode_photo(np.frombuffer(content, np.uint8), image)

    def _rows(self, image: str, read: Future[ReadPhoto]) -> list[dict[str, Any]]:
        try:
            photo = read.result()
            hands, camera = self._look(image, photo)
        except (ValueError, OSError) as error:
            return [{"image": image, "error": str(error)}]
        height, width, _ = photo.image.shape
        of_photo = {
            "image": image,
            "K": hands.intrinsics.ravel(),
            "camera": camera,
            "width": width,
            "height": height,
            "note": photo.note or None,
        }
        return [
            of_photo
            | {"hand": i, "handedness": SIDES[int(hands.is_left[i])]}
            | {name: _plain(getattr(hands, name)[i]) for name in OF_A_HAND}
            for i in range(len(hands.is_left))
        ] or [of_photo]

    def _look(self, image: str, photo: ReadPhoto) -> tuple[PredictedHands, str]:
        wishes, targets = self._job.wishes, self._job.targets
        k, camera = camera_of(photo.image, photo.intrinsics, wishes)
        given = None if targets is None else targets.get(image.rpartition("/")[2], {})
        boxes_px, sides = Tracker(given, wishes.handedness, follows=False).look_at(0)
        return self._predictor(photo.image, boxes_px, sides, k), camera


def _plain(values: np.ndarray | np.floating) -> list[float] | float:
    return values.ravel().tolist() if values.ndim else values.item()


def part_name(images: Sequence[str]) -> str:
    name = hashlib.sha256("\n".join(images).encode()).hexdigest()[:16]
    return f"hands-{name}.parquet"
