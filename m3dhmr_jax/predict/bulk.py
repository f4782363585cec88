"""`python -m m3dhmr_jax.predict.bulk --checkpoint runs/x --images s3://photos --out s3://hands`.

Thousands of photos, on the cores of this machine or the machines of a Ray cluster, into Parquet.
What is done is what the finished files hold, so a run that was broken off goes on from there.
"""

import argparse
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
from typing import Any, cast

import jax
import pyarrow as pa
import pyarrow.parquet as pq
import tqdm
from pyarrow import fs

from m3dhmr_jax.predict.boxes import read_boxes
from m3dhmr_jax.predict.command import add_view_options, view_wishes
from m3dhmr_jax.predict.outputs import faces_as_json
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.run import IncompleteError, Wishes
from m3dhmr_jax.predict.shards import SETTINGS_KEY, Job, PartWriter
from m3dhmr_jax.predict.storage import Place, find_photos, place_of, write_whole

LISTS_BYTES = 100 * 2**20  # Only lists of names go through Ray's memory, photos and meshes do not.
FILES_AT_ONCE = 16  # Read while looking for what is done.


def read_done(out: Place, settings: dict[str, Any]) -> dict[str, str | None]:
    """The photos of which finished files hold the answer, and why there is none for some.

    Files that are damaged are named and deleted: their photos count as not done. So are the hidden
    ones that a broken writer left.

    Raises:
        ValueError: if a file is of another network or camera, or two hold the same photo.
    """
    listed = out.filesystem.get_file_info(fs.FileSelector(out.path))
    for each in listed:
        if each.base_name.startswith(".hands-"):
            out.filesystem.delete_file(each.path)
    paths = sorted(each.path for each in listed if each.base_name.startswith("hands-"))
    done: dict[str, str | None] = {}
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        tables = pool.map(lambda path: _read_part(out, path), paths)
        for path, table in zip(paths, tables, strict=True):
            if table is None:
                continue
            if json.loads(table.schema.metadata[SETTINGS_KEY]) != settings:
                raise ValueError(
                    f"{path} was made with other weights or options: answers that differ in these "
                    "must not be mixed, so give another --out, or repeat the call as it was"
                )
            answers = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
            twice = done.keys() & answers.keys()
            if twice:
                raise ValueError(
                    f"{path} holds {min(twice)}, and so does another file: two runs wrote at once; "
                    "delete one of the files"
                )
            done |= answers
    return done


def _read_part(out: Place, path: str) -> pa.Table | None:
    try:
        with out.filesystem.open_input_file(path) as file:
            return pq.read_table(file, columns=["image", "error"])
    except pa.ArrowInvalid as error:
        print(f"{path} is damaged, its photos are looked at again: {error}", file=sys.stderr)
        out.filesystem.delete_file(path)
        return None


def predict_folder(
    checkpoint: str,
    images: str,
    out: str,
    wishes: Wishes,
    *,
    workers: int | None = None,
    batch_size: int = 256,
    gpus: float = 0.0,
    address: str = "local",
) -> None:
    """Writes the hands of all photos at `images` that `out` does not hold yet.

    Args:
        workers: processes with the network; None: as many as there is room for.
        batch_size: photos in a file, and what is done again if their worker dies.
        gpus: that each worker has to itself; less than 1 if they share.
        address: of a Ray cluster; "local" starts one that ends with the call.

    Raises:
        FileNotFoundError, ValueError, OSError: if something is missing or wrong.
        IncompleteError: at the end, if photos could not be used; the others are written.
    """
    source, photos = find_photos(images)
    targets = None if wishes.boxes is None else read_boxes(wishes.boxes, wishes.handedness)
    if targets is not None:
        _check_names(photos, wishes.boxes)
    predictor = HandMeshPredictor.from_checkpoint(checkpoint)
    target = place_of(out)
    target.filesystem.create_dir(target.path)
    job = Job(checkpoint, predictor.weights_sha256, wishes, targets, source, target)
    faces = faces_as_json(predictor.hand.faces)
    write_whole(target.filesystem, f"{target.path}/_faces.json", faces)
    done = read_done(target, job.settings)
    missing = [photo for photo in photos if photo not in done]
    if missing:
        parts = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
        with connected(address, workers):
            write_parts(job, parts, workers, gpus)
        done = read_done(target, job.settings)
    problems = [done[photo] for photo in photos if done.get(photo)]
    print(f"{len(photos) - len(problems)} of {len(photos)} photos answered in {out}")
    if problems:
        raise IncompleteError(
            f"{len(problems)} of {len(photos)} photos could not be used; their rows say why: "
            + "; ".join(map(str, problems[:10]))
        )


def _check_names(photos: Sequence[str], boxes: Path | None) -> None:
    name, count = Counter(photo.rpartition("/")[2] for photo in photos).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"{count} photos are named {name}, and {boxes} tells photos by their names without "
            "folders: take one folder at a time"
        )


@contextlib.contextmanager
def connected(address: str, workers: int | None) -> Iterator[None]:
    """A connection to a cluster; one that is open already is used and stays."""
    if address == "local":
        # Its name says otherwise, but this alone makes all of Ray's servers listen on 127.0.0.1
        # only, on Linux too; it is read when Ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        local = {
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": LISTS_BYTES,
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


def write_parts(job: Job, parts: Sequence[Sequence[str]], workers: int | None, gpus: float) -> None:
    """Has every part written; Ray starts a worker that dies anew and gives it its part again.

    Raises:
        OSError: if workers fail for another reason than being killed.
    """
    import ray.data
    from ray.exceptions import RayError

    ray.data.DataContext.get_current().enable_progress_bars = False
    if workers is None:
        room = ray.cluster_resources()
        workers = int(room.get("GPU", 0) / gpus if gpus else room["CPU"])
    results = ray.data.from_items(
        [{"images": list(part)} for part in parts], override_num_blocks=len(parts)
    ).map(
        cast(Any, PartWriter),  # Ray's annotation knows functions only.
        fn_constructor_args=[job],
        compute=ray.data.ActorPoolStrategy(size=max(min(workers, len(parts)), 1)),
        num_gpus=gpus or None,
    )
    try:
        with tqdm.tqdm(total=sum(map(len, parts)), unit="photo", dynamic_ncols=True) as bar:
            for result in results.iter_rows():
                bar.update(result["images"])
    except RayError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise OSError(f"{reason}; what is written stays, the same call goes on from it") from error


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command line options."""
    parser = argparse.ArgumentParser(
        "python -m m3dhmr_jax.predict.bulk", description="Finds hands in thousands of photos."
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="workdir of a run, or a weights file; on a cluster, "
        "where every machine finds it")  # fmt: skip
    add("--images", required=True, help="folder with folders, file, or pattern in quotes; on a "
        "disk that all machines share or in a bucket, such as s3://bucket/photos")  # fmt: skip
    add("--out", required=True, help="folder of the same kinds for the Parquet files")
    add_view_options(parser)
    add("--workers", type=int, metavar="N", help="processes with the network; one a core or, with "
        "--gpus, as many as there is room for")  # fmt: skip
    add("--batch-size", type=int, default=256, metavar="N", help="photos in a file; 256 if none")
    add("--gpus", type=float, default=0.0, metavar="N", help="of each worker, less than 1 to share")
    add("--address", default=os.environ.get("RAY_ADDRESS", "local"), help="of a Ray cluster; "
        "RAY_ADDRESS if none; without both, this machine alone")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Predicts; 2 if something was refused or could not be used, and what was written stays."""
    options = parse(arguments)
    # The network is only looked at here; the accelerator's memory is for the workers.
    jax.config.update("jax_platforms", "cpu")
    try:
        if importlib.util.find_spec("ray") is None:
            raise ValueError('Ray is not installed: pip install "m3dhmr_jax[ray]"')
        for name in ("workers", "batch_size"):
            count = getattr(options, name)
            if count is not None and count < 1:
                raise ValueError(f"--{name.replace('_', '-')} {count} must be at least 1")
        predict_folder(
            options.checkpoint,
            options.images,
            options.out,
            view_wishes(options),
            workers=options.workers,
            batch_size=options.batch_size,
            gpus=options.gpus,
            address=options.address,
        )
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
