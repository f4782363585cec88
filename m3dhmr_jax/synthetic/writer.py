"""A synthetic set on disk, in exactly FreiHAND's folder layout.

`training/rgb/%08d.jpg` i belongs to annotation i mod n and `training/mask/%08d.jpg` exists for the
first n; `evaluation/` likewise with one picture each. `training_{K,xyz,verts,scale}.json` and
`evaluation_...` hold one row per annotation. `synthetic.json` says what the set was made from; the
official data has no such file. It is the first to be written, as `synthetic.json.partial`, and gets
its name when everything else is there: an interrupted run never looks finished, and the next one
takes away what it left.
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

from m3dhmr_jax.hand import HandModel, hand_id, load_builtin
from m3dhmr_jax.runtime.files import explain_disk_full, file_lock
from m3dhmr_jax.runtime.preemption import defer_sigterm
from m3dhmr_jax.synthetic.example import SPLITS, Job, make_example, start_worker
from m3dhmr_jax.synthetic.recipe import FULL, Recipe

ANNOTATIONS = ("K", "xyz", "verts", "scale")
ORIGIN = "synthetic.json"
UNFINISHED = ORIGIN + ".partial"
LOCK = "synthetic.lock"  # Held by the process that writes.
CHUNK = 8


def check_request(out: Path, n_train: int, n_test: int, seed: int, workers: int, backgrounds: int):
    """Refuses what cannot be made.

    Raises:
        ValueError: for a bad number, or a file in the place of the folder.
    """
    for name, value in (("train", n_train), ("test", n_test), ("seed", seed)):
        if value < 0:
            raise ValueError(f"{name}={value} must not be negative")
    if n_train + n_test == 0:
        raise ValueError(
            "train=0 and test=0 ask for an empty dataset: ask for at least one picture"
        )
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1: somebody has to draw")
    if backgrounds not in (1, 4):
        raise ValueError(
            f"backgrounds={backgrounds} must be 1 or 4: FreiHAND has four versions of each picture"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder for the dataset")


def _refuse_taken(out: Path) -> None:
    taken = [name for split in SPLITS for name in out.glob(f"{split}*")]
    if taken:
        raise ValueError(
            f"{out} already holds {taken[0].name}: remove the old dataset or choose another folder"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot write the dataset to {folder} ({error.strerror}): "
            "choose a folder you may write"
        ) from error


def is_finished(out: Path) -> bool:
    """Whether a whole set is there, synthetic or not."""
    return (out / "training_xyz.json").is_file() and not (out / UNFINISHED).exists()


def _remove_unfinished(out: Path) -> None:
    """Takes away what a run left that was killed; the last to go is what says so."""
    if not (out / UNFINISHED).exists():
        return
    for split in SPLITS:
        shutil.rmtree(out / split, ignore_errors=True)
        for path in out.glob(f"{split}_*.json*"):
            path.unlink()
    (out / UNFINISHED).unlink()


def _results(pool: Executor, jobs: list[Job]) -> Iterator[tuple[str, str, str, str]]:
    """In order. The first example runs alone, so that loops are compiled once and then shared."""
    try:
        with defer_sigterm():  # A pool starts its processes when it is given work.
            first = pool.submit(make_example, jobs[0])
        yield first.result()
        with defer_sigterm():
            others = pool.map(make_example, jobs[1:], chunksize=CHUNK)
        yield from others
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"{jobs[0].out}: a process that rendered photos was killed, by the system if memory is "
            "short; use fewer workers. The same command starts the set anew"
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
        pool.shutdown(cancel_futures=True)  # After a failure nobody waits for the rest.


def _partial(out: Path, split: str, kind: str) -> Path:
    return out / f"{split}_{kind}.json.partial"


def _write_split(pool: Executor, jobs: list[Job], bar: tqdm.tqdm) -> None:
    out, split = jobs[0].out, jobs[0].split
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_partial(out, split, kind).open("w")) for kind in ANNOTATIONS]
        for number, rows in enumerate(_results(pool, jobs)):
            for file, row in zip(files, rows, strict=True):
                file.write(("," if number else "[") + row)
            bar.update(jobs[0].backgrounds)
        for file in files:
            file.write("]")


def origin_of(
    n_train: int, n_test: int, seed: int, recipe: Recipe, backgrounds: int, hand: HandModel
) -> dict[str, Any]:
    """What a set is made from, as `synthetic.json` has it."""
    made_from = {
        "train": n_train,
        "test": n_test,
        "seed": seed,
        "backgrounds": backgrounds,
        "hand": hand_id(hand),
        "recipe": dataclasses.asdict(recipe),
    }
    return json.loads(json.dumps(made_from))  # Tuples become lists, as in the file.


def check_origin(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuses a synthetic set in `folder` that was made from something else than is `wanted`.

    Raises:
        ValueError: naming what differs. A folder without `synthetic.json` is no synthetic set.
    """
    path = folder / ORIGIN
    if not path.is_file():
        return
    found = json.loads(path.read_text())
    differences = [
        f"{name} is {found.get(name)!r} there and {value!r} here"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differences:
        raise ValueError(
            f"{folder} holds a synthetic set that was made from other settings: "
            f"{'; '.join(differences)}. Delete it, or name another data.source.folder and "
            "data.source.prepared"
        )


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
        backgrounds: pictures per training hand, 1 or FreiHAND's 4: the same hand in the same pose
            under other light, with other skin, before another background.
        workers: processes; they do not change the result.
        hand: the built-in one if None.

    Raises:
        ValueError: as `check_request`, or if `out` cannot be written or holds (part of) a dataset;
            nothing is written then.
        DiskFullError, ChildProcessError: on the way; the next call starts anew, as after a kill.
    """
    out, hand = Path(out), hand or load_builtin()
    check_request(out, n_train, n_test, seed, workers, backgrounds)
    wanted = [
        (split, count, versions)
        for split, count, versions in zip(SPLITS, (n_train, n_test), (backgrounds, 1), strict=True)
        if count
    ]
    total = sum(count * versions for _, count, versions in wanted)
    origin = origin_of(n_train, n_test, seed, recipe, backgrounds, hand)
    _make_folder(out)
    with file_lock(out / LOCK), explain_disk_full(out):
        _remove_unfinished(out)
        _refuse_taken(out)
        (out / UNFINISHED).write_text(json.dumps(origin, indent=2) + "\n")
        with (
            _workers(workers, hand) as pool,
            tqdm.tqdm(total=total, unit="image", desc=f"rendering to {out}") as bar,
        ):
            for split, count, versions in wanted:
                for kind in ("rgb", "mask"):
                    _make_folder(out / split / kind)
                jobs = [Job(out, split, i, count, versions, seed, recipe) for i in range(count)]
                _write_split(pool, jobs, bar)
        for split, _, _ in wanted:
            for kind in ANNOTATIONS:
                _partial(out, split, kind).rename(out / f"{split}_{kind}.json")
        (out / UNFINISHED).rename(out / ORIGIN)
