"""Thousands of images into Parquet, on the cores of this machine or a Ray cluster.

Progress is what the finished files contain, so an interrupted run resumes from there.
"""

import contextlib
import importlib.util
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
import tqdm
from pyarrow import fs

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.boxes import read_boxes
from m3dhmr_jax.predict.outputs import faces_as_json
from m3dhmr_jax.predict.predictor import load_predictor
from m3dhmr_jax.predict.run import IncompleteError, PredictOptions
from m3dhmr_jax.predict.shards import SETTINGS_KEY, Job, ShardWriter
from m3dhmr_jax.predict.storage import Location, find_images, open_location

OBJECT_STORE_BYTES = 100 * 2**20  # Ray's memory carries file names only, no images or meshes.
FILES_AT_ONCE = 16  # Read in parallel to find what is finished.


class Finished(NamedTuple):
    """The rows of an image."""

    error: str | None
    hands: int


def read_finished(out: Location, settings: dict[str, Any]) -> dict[str, Finished]:
    """The images in finished files.

    Corrupted files are reported and deleted: their images count as unfinished. Hidden files that a
    killed writer left are deleted too.

    Raises:
        UserError: if a file is of another network or camera, or two contain the same image.
    """
    listed = out.filesystem.get_file_info(fs.FileSelector(out.path))
    for each in listed:
        if each.base_name.startswith(".hands-"):
            out.filesystem.delete_file(each.path)
    paths = sorted(each.path for each in listed if each.base_name.startswith("hands-"))
    finished: dict[str, Finished] = {}
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        tables = pool.map(lambda path: _read_shard(out, path), paths)
        for path, table in zip(paths, tables, strict=True):
            if table is None:
                continue
            if json.loads(table.schema.metadata[SETTINGS_KEY]) != settings:
                raise UserError(
                    f"{path} was written with other weights or options, and their predictions must "
                    "not be mixed: choose another --out, or repeat the command as it was"
                )
            rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
            hands = Counter(image for image, _, hand in rows if hand is not None)
            found = {image: Finished(error, hands[image]) for image, error, _ in rows}
            duplicates = finished.keys() & found.keys()
            if duplicates:
                raise UserError(
                    f"{path} contains {min(duplicates)}, and so does another file, as if two runs "
                    "had written at once: delete one of the files"
                )
            finished |= found
    return finished


def _read_shard(out: Location, path: str) -> pa.Table | None:
    try:
        with out.filesystem.open_input_file(path) as file:
            return pq.read_table(file, columns=["image", "error", "hand"])
    except pa.ArrowInvalid as error:
        print(f"{path} is corrupted and will be written again: {error}", file=sys.stderr)
        out.filesystem.delete_file(path)
        return None


def predict_folder(
    checkpoint: str | None,
    hand: Path | None,
    images: str,
    out: str,
    options: PredictOptions,
    *,
    workers: int | None = None,
    batch_size: int = 256,
    gpus: float = 0.0,
    address: str = "local",
) -> None:
    """Writes the hands of all images at `images` that `out` does not contain yet.

    Args:
        workers: processes with a network; None: as many as the cluster has room for.
        batch_size: images per file, and what is repeated if their worker dies.
        gpus: GPUs per worker; less than 1 to share one.
        address: address of a Ray cluster; "local" starts one that ends with the call.

    Raises:
        UserError: if something is missing or wrong; IncompleteError at the end, if images could not
            be used; the others are written.
        ChildProcessError: if workers fail for another reason than being killed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError('Ray is not installed: pip install "m3dhmr_jax[ray]"')
    for name, count in (("workers", workers), ("batch-size", batch_size)):
        if count is not None and count < 1:
            raise UserError(f"--{name} {count} must be at least 1")
    source, names = find_images(images)
    boxes = None if options.boxes is None else read_boxes(options.boxes, options.handedness)
    if boxes is not None:
        _check_names(names, options.boxes)
    predictor = load_predictor(checkpoint, hand)
    target = open_location(out)
    target.filesystem.create_dir(target.path)
    job = Job(checkpoint, hand, predictor.weights_sha256, options, boxes, source, target)
    target.write_atomic("_faces.json", faces_as_json(predictor.hand.faces))
    finished = read_finished(target, job.settings)
    missing = [name for name in names if name not in finished]
    if missing:
        shards = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
        with connected(address, workers):
            write_shards(job, shards, workers, gpus)
        finished = read_finished(target, job.settings)
    done = [finished[name] for name in names if name in finished]
    problems = [each.error for each in done if each.error]
    usable = len(names) - len(problems)
    print(f"hands of {usable} of {len(names)} images written to {out}")
    empty = sum(each.hands == 0 and not each.error for each in done)
    if empty:
        print(f"no hand found in {empty} of {usable} images")
    if problems:
        raise IncompleteError(
            f"{len(problems)} of {len(names)} images could not be used, as their rows state: "
            + "; ".join(map(str, problems[:10]))
        )


def _check_names(names: Sequence[str], boxes: Path | None) -> None:
    name, count = Counter(each.rpartition("/")[2] for each in names).most_common(1)[0]
    if count > 1:
        raise UserError(
            f"{count} images are named {name}, and {boxes} identifies images by file name without "
            "folders: take one folder at a time"
        )


@contextlib.contextmanager
def connected(address: str, workers: int | None) -> Iterator[None]:
    """A connection to a cluster; one that is already open is used and stays open."""
    if address == "local":
        # Despite its name, this alone makes all of Ray's servers listen on 127.0.0.1 only, on
        # Linux too; it is read when Ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        local = {
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    else:
        local = {}
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        yield
    finally:
        ray.shutdown()


def write_shards(
    job: Job, shards: Sequence[Sequence[str]], workers: int | None, gpus: float
) -> None:
    """Writes all shards; Ray restarts a worker that dies and gives it its shard again.

    Raises:
        ChildProcessError: if workers fail for another reason than being killed.
    """
    import ray.data
    from ray.exceptions import RayError

    ray.data.DataContext.get_current().enable_progress_bars = False
    if workers is None:
        room = ray.cluster_resources()
        workers = int(room.get("GPU", 0) / gpus if gpus else room["CPU"])
    results = ray.data.from_items(
        [{"images": list(shard)} for shard in shards], override_num_blocks=len(shards)
    ).map(
        cast(Any, ShardWriter),  # Ray's annotation admits functions only.
        fn_constructor_args=[job],
        compute=ray.data.ActorPoolStrategy(size=max(min(workers, len(shards)), 1)),
        num_gpus=gpus or None,
    )
    try:
        with tqdm.tqdm(total=sum(map(len, shards)), unit="image", dynamic_ncols=True) as bar:
            for result in results.iter_rows():
                bar.update(result["images"])
    except RayError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise ChildProcessError(
            f"{reason}; what is written stays, and the same command resumes from it"
        ) from error
