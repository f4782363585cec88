"""Writes a synthetic dataset in exactly FreiHAND's folder layout.

`training/rgb/%08d.jpg` i belongs to annotation i mod n and `training/mask/%08d.jpg` exists for the
first n; `evaluation/` has one image per annotation. Some recipes also write
`coverage/%08d.png` for the first n, which the official data does not have: 255 where hand, arm or
anything else is in front of the background. `training_{K,xyz,verts,scale}.json` and
`evaluation_...` hold one row per annotation.

The manifest `synthetic.json`, which the official data does not have, records the settings. It is
written first, as `synthetic.json.partial`, and renamed last: an interrupted run never looks
finished, and the next run removes its files, unless there are others among them.
"""

import contextlib
import dataclasses
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import tqdm

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel, hand_id, load_builtin
from m3dhmr_jax.runtime.files import expand_home, explain_disk_full, file_lock, write_atomic
from m3dhmr_jax.runtime.preemption import defer_sigterm
from m3dhmr_jax.synthetic.example import SPLITS, Job, render_example, start_worker
from m3dhmr_jax.synthetic.recipe import FULL, Recipe
from m3dhmr_jax.synthetic.surface import wrist_rim

ANNOTATIONS = ("K", "xyz", "verts", "scale")
IMAGE_FOLDERS = ("rgb", "mask", "coverage")
MANIFEST = "synthetic.json"
UNFINISHED = MANIFEST + ".partial"
LOCK = "synthetic.lock"  # Held by the writing process.
CHUNK = 8  # Jobs that a worker takes at once.


def check_request(out: Path, n_train: int, n_test: int, seed: int, workers: int, backgrounds: int):
    """Raises UserError for a number out of range, or if `out` is a file."""
    for name, value in (("train", n_train), ("test", n_test), ("seed", seed)):
        if value < 0:
            raise UserError(f"{name}={value} must not be negative")
    if n_train + n_test == 0:
        raise UserError(
            "train=0 and test=0 would write an empty dataset: ask for at least one image"
        )
    if workers < 1:
        raise UserError(f"workers={workers} must be at least 1: worker processes render the images")
    if backgrounds not in (1, 4):
        raise UserError(
            f"backgrounds={backgrounds} must be 1 or 4: FreiHAND has four versions of each image"
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose a folder for the dataset")


def _check_empty(out: Path) -> None:
    existing = [path for split in SPLITS for path in out.glob(f"{split}*")]
    existing += out.glob(MANIFEST)
    if existing:
        raise UserError(
            f"{out} already contains {existing[0].name}, which is not replaced: choose another "
            "folder"
        )


def make_folder(folder: Path) -> None:
    """Creates a folder to write to, or raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write the dataset to {folder} ({error.strerror}): "
            "choose a folder with write permission"
        ) from error


def is_finished(out: Path) -> bool:
    """Whether a complete dataset is there, synthetic or not."""
    return (out / "training_xyz.json").is_file() and not (out / UNFINISHED).exists()


def _remove_unfinished(out: Path) -> None:
    """Removes the files of an interrupted run, and its partial manifest last.

    Raises:
        UserError: if something is there that this run has not written; nothing is removed then.
    """
    if not (out / UNFINISHED).exists():
        return
    own = _own_files(out)
    paths = [path for split in SPLITS for path in out.glob(f"{split}*")]
    paths += [path for split in SPLITS for path in (out / split).rglob("*")]
    foreign = [path for path in paths if path not in own]
    if foreign:
        raise UserError(
            f"{out} holds an unfinished dataset, which would be removed, and {foreign[0]}, which "
            "is not a part of it: move that away or choose another folder"
        )
    for split in SPLITS:
        shutil.rmtree(out / split, ignore_errors=True)
        for path in out.glob(f"{split}_*"):
            path.unlink()
    (out / UNFINISHED).unlink()


def _own_files(out: Path) -> set[Path]:
    """What the run that left its partial manifest in `out` may have written there."""
    try:
        settings = json.loads((out / UNFINISHED).read_text())
        counts, backgrounds = (settings["train"], settings["test"]), (settings["backgrounds"], 1)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{out / UNFINISHED} is not a manifest of this program: choose another folder"
        ) from error
    own = set()
    for split, count, versions in zip(SPLITS, counts, backgrounds, strict=True):
        own |= {out / split, *(out / split / kind for kind in IMAGE_FOLDERS)}
        own |= {out / split / "rgb" / f"{i:08d}.jpg" for i in range(count * versions)}
        own |= {out / split / "mask" / f"{i:08d}.jpg" for i in range(count)}
        own |= {out / split / "coverage" / f"{i:08d}.png" for i in range(count)}
        own |= {out / f"{split}_{kind}.json" for kind in ANNOTATIONS}
        own |= {_partial_path(out, split, kind) for kind in ANNOTATIONS}
    return own


def _run_jobs(pool: Executor, jobs: list[Job]) -> Iterator[tuple[str, str, str, str]]:
    """Rows in order. The first job runs alone: it compiles the numba loops for the others."""
    try:
        with defer_sigterm():  # A pool starts its processes when it is given work.
            first = pool.submit(render_example, jobs[0])
        yield first.result()
        with defer_sigterm():
            others = pool.map(render_example, jobs[1:], chunksize=CHUNK)
        yield from others
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"{jobs[0].out}: a worker process was killed, perhaps for lack of memory: run the same "
            "command again, with fewer workers; it restarts the dataset"
        ) from error


@contextlib.contextmanager
def _workers(count: int, hand: HandModel) -> Iterator[Executor]:
    spawning = multiprocessing.get_context("spawn")  # Forking a process that holds JAX may hang.
    pool = ProcessPoolExecutor(
        count, mp_context=spawning, initializer=start_worker, initargs=(hand,)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # After a failure, do not wait for pending jobs.


def _partial_path(out: Path, split: str, kind: str) -> Path:
    return out / f"{split}_{kind}.json.partial"


def _write_split(pool: Executor, jobs: list[Job], bar: tqdm.tqdm) -> None:
    out, split = jobs[0].out, jobs[0].split
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(_partial_path(out, split, kind).open("w")) for kind in ANNOTATIONS
        ]
        for number, rows in enumerate(_run_jobs(pool, jobs)):
            for file, row in zip(files, rows, strict=True):
                file.write(("," if number else "[") + row)
            bar.update(jobs[0].backgrounds)
        for file in files:
            file.write("]")


def manifest(
    n_train: int, n_test: int, seed: int, recipe: Recipe, backgrounds: int, hand: HandModel
) -> dict[str, Any]:
    """The settings of a dataset, as stored in `synthetic.json`."""
    settings = {
        "train": n_train,
        "test": n_test,
        "seed": seed,
        "backgrounds": backgrounds,
        "hand": hand_id(hand),
        "recipe": dataclasses.asdict(recipe),
    }
    return json.loads(json.dumps(settings))  # Tuples become lists, as in the file.


def check_manifest(folder: Path, wanted: dict[str, Any]) -> None:
    """Compares the manifest in `folder`, if there is one, with the `wanted` settings.

    Raises:
        UserError: naming the differences.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return
    found = json.loads(path.read_text())
    if isinstance(found.get("recipe"), dict):  # Older manifests lack what is off by default.
        found["recipe"] = json.loads(json.dumps(dataclasses.asdict(FULL))) | found["recipe"]
    differences = [
        f"{name} is {found.get(name)!r} instead of {value!r}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differences:
        raise UserError(
            f"{folder} contains a synthetic dataset with other settings: {'; '.join(differences)}. "
            "Set these again, or another data.source.folder and data.source.prepared"
        )


@expand_home
def write_dataset(
    out: Path,
    n_train: int,
    n_test: int,
    seed: int,
    workers: int,
    recipe: Recipe = FULL,
    backgrounds: int = 1,
    hand: HandModel | None = None,
) -> None:
    """Renders `n_train` and `n_test` hands into `out`; the same seed gives the same bytes.

    Args:
        workers: number of processes; the result does not depend on it.
        backgrounds: images per training hand, 1 or FreiHAND's 4: the same hand in the same pose
            with other skin, lights and background.
        hand: default: the built-in hand.

    Raises:
        UserError: for a number out of range, a hand that is not open at the wrist only, or if
            `out` is not writable or contains a dataset; nothing is written then.
        DiskFullError, ChildProcessError: while rendering; the next call restarts the dataset.
    """
    out, hand = Path(out), hand or load_builtin()
    check_request(out, n_train, n_test, seed, workers, backgrounds)
    wrist_rim(hand.faces)  # Rejects an unsuitable hand here, not in every worker.
    splits = [
        (split, count, versions)
        for split, count, versions in zip(SPLITS, (n_train, n_test), (backgrounds, 1), strict=True)
        if count
    ]
    total = sum(count * versions for _, count, versions in splits)
    settings = manifest(n_train, n_test, seed, recipe, backgrounds, hand)
    make_folder(out)
    with file_lock(out / LOCK), explain_disk_full(out):
        _remove_unfinished(out)
        _check_empty(out)
        with write_atomic(out / UNFINISHED) as partial:
            partial.write_text(json.dumps(settings, indent=2) + "\n")
        with (
            _workers(workers, hand) as pool,
            tqdm.tqdm(total=total, unit="image", desc=f"rendering to {out}") as bar,
        ):
            for split, count, versions in splits:
                for kind in IMAGE_FOLDERS if recipe.keeps_coverage else IMAGE_FOLDERS[:2]:
                    make_folder(out / split / kind)
                jobs = [Job(out, split, i, count, versions, seed, recipe) for i in range(count)]
                _write_split(pool, jobs, bar)
        for split, _, _ in splits:
            for kind in ANNOTATIONS:
                _partial_path(out, split, kind).rename(out / f"{split}_{kind}.json")
        (out / UNFINISHED).rename(out / MANIFEST)
