"""Thousands of images into Parquet, on the cores of this machine or a Ray cluster.

Progress is what the finished files contain, so an interrupted run resumes from there.
"""

import contextlib
import importlib.util
import logging
import os
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import tqdm

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.boxes import BoxesByFile, read_boxes
from m3dhmr_jax.predict.left_out import describe
from m3dhmr_jax.predict.predictor import load_predictor
from m3dhmr_jax.predict.run import IncompleteError, PredictOptions
from m3dhmr_jax.predict.runtimes import JAX
from m3dhmr_jax.predict.shard_folder import prepare_folder, read_folder
from m3dhmr_jax.predict.shard_plan import ShardTask, plan_shards
from m3dhmr_jax.predict.shards import Job, ShardWriter, image_version
from m3dhmr_jax.predict.storage import describe_unnameable, find_images, open_location

OBJECT_STORE_BYTES = 100 * 2**20  # Ray's memory carries file names only, no images or meshes.


def predict_folder(
    checkpoint: str | None,
    hand: Path | None,
    method: str | None,
    images: str,
    out: str,
    options: PredictOptions,
    *,
    runtime: str = JAX,
    workers: int | None = None,
    batch_size: int = 256,
    gpus: float = 0.0,
    address: str = "local",
) -> None:
    """Writes the hands of all images at `images` that `out` does not contain as they are now.

    Images whose file, boxes or options differ from those of an earlier call are predicted again.

    Args:
        checkpoint, hand, method, runtime: as `load_predictor` takes them.
        workers: processes with a network; None: as many as the cluster has room for.
        batch_size: images per file, and what is repeated if their worker dies.
        gpus: GPUs per worker; less than 1 to share one.
        address: address of a Ray cluster; "local" starts one that ends with the call.

    Raises:
        UserError: if something is missing or wrong, before anything is written; IncompleteError at
            the end, if images could not be used; the others are written.
        DiskFullError: if the disk is full.
        ChildProcessError: if workers fail for another reason than being killed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError('Ray is not installed: pip install "m3dhmr_jax[ray]"')
    for name, count in (("workers", workers), ("batch-size", batch_size)):
        if count is not None and count < 1:
            raise UserError(f"--{name} {count} must be at least 1")
    target = open_location(out)
    folder = read_folder(target)
    found = find_images(images)
    boxes = None
    if options.boxes is not None:
        boxes = read_boxes(options.boxes, options.handedness)
        for line in _match_boxes(boxes, [each.name for each in found.images], options.boxes):
            print(line)
    predictor = load_predictor(checkpoint, hand, method, runtime)
    job = Job(
        checkpoint,
        hand,
        method,
        runtime,
        predictor.weights_sha256,
        options,
        boxes,
        found.source,
        target,
    )
    wanted = {each.path: image_version(each, boxes) for each in found.images}
    plan = plan_shards(wanted, folder.shards, job.settings, batch_size)
    print(f"{len(wanted)} images: {plan}")
    prepare_folder(target, folder, predictor.hand.faces)
    if plan.tasks:
        with connected(address, workers):
            write_shards(job, plan.tasks, workers, gpus)
    finished = read_folder(target).finished
    done = [finished[image] for image in wanted if image in finished]
    problems = [each.error for each in done if each.error]
    usable, n_images = len(wanted) - len(problems), len(wanted) + len(found.unnameable)
    print(f"hands of {usable} of {n_images} images written to {out}")
    empty = sum(each.hands == 0 and not each.error for each in done)
    if empty:
        print(f"no hand found in {empty} of {usable} images")
    if found.left_out:
        print(f"left out: {describe(found.left_out.items())}")
    if problems or found.unnameable:
        reasons = [*map(str, problems[:10])]
        if found.unnameable:
            reasons.insert(0, describe_unnameable(found.unnameable))
        raise IncompleteError(
            f"{n_images - usable} of {n_images} images could not be used, as their rows state: "
            + "; ".join(reasons)
        )


def _match_boxes(boxes: BoxesByFile, names: Sequence[str], path: Path) -> Iterator[str]:
    """What of boxes and images does not match, in sentences.

    Raises:
        UserError: if nothing matches, or two images have the same name.
    """
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UserError(
            f"{count} images are named {name}, and {path} identifies images by file name without "
            "folders: take one folder at a time"
        )
    unmatched = sorted(boxes.keys() - set(names))
    if len(unmatched) == len(boxes):
        raise UserError(
            f"{path} describes hands of {', '.join(unmatched[:3])}, and none of these is among the "
            'images: its column "image" is a file name without folders'
        )
    if unmatched:
        rows = sum(len(at.boxes_px) for each in unmatched for at in boxes[each].values())
        yield f"{rows} rows of {path} match no image: {', '.join(unmatched[:3])}"
    later = {each: frames for each in names if (frames := boxes.get(each, {}).keys() - {0})}
    if later:
        rows = sum(len(boxes[each][at].boxes_px) for each, frames in later.items() for at in frames)
        yield f"{rows} rows of {path} are left out: the frame of an image is 0 ({min(later)})"
    n_without = len(set(names) - boxes.keys())
    if n_without:
        yield f"{n_without} of {len(names)} images have no row in {path}: they get no hand"


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


class ShardWorker:
    """A `ShardWriter` in a process of Ray.

    It returns what it fails of, since Ray reports its own advice before the cause.
    """

    def __init__(self, job: Job):
        self._job = job
        self._writer: ShardWriter | None = None

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        task: ShardTask = pickle.loads(item["task"])
        try:
            if self._writer is None:
                self._writer = ShardWriter(self._job)
            return {"images": self._writer(task), "user_error": "", "error": ""}
        except UserError as error:
            return {"images": 0, "user_error": str(error), "error": ""}
        except Exception as error:
            text = f"{type(error).__name__} in {task.name}: {' '.join(str(error).split())}"
            return {"images": 0, "user_error": "", "error": text}


def write_shards(job: Job, tasks: Sequence[ShardTask], workers: int | None, gpus: float) -> None:
    """Writes all shards; Ray restarts a worker that dies and gives it its shard again.

    Raises:
        UserError: that of a worker.
        ChildProcessError: if workers fail for another reason than being killed.
    """
    import ray.data
    from ray.exceptions import RayError

    ray.data.DataContext.get_current().enable_progress_bars = False
    if workers is None:
        room = ray.cluster_resources()
        workers = int(room.get("GPU", 0) / gpus if gpus else room["CPU"])
    results = ray.data.from_items(
        [{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks)
    ).map(
        cast(Any, ShardWorker),  # Ray's annotation admits functions only.
        fn_constructor_args=[job],
        compute=ray.data.ActorPoolStrategy(size=max(min(workers, len(tasks)), 1)),
        num_gpus=gpus or None,
    )
    resume = "what is written stays, and the same command resumes from it"
    n_images = sum(len(task.images) for task in tasks)
    try:
        with tqdm.tqdm(total=n_images, unit="image", dynamic_ncols=True) as bar:
            for result in results.iter_rows():
                if result["user_error"]:
                    raise UserError(result["user_error"])
                if result["error"]:
                    raise ChildProcessError(f"{result['error']}; {resume}")
                bar.update(result["images"])
    except RayError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise ChildProcessError(f"{reason}; {resume}") from error
