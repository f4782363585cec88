"""Compares two networks on a folder of images: a page, and its numbers as JSON.

Axes: b hands.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import tqdm
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.evaluate.comparison.hands import (
    ComparedHand,
    HandPoints,
    Pair,
    PhotoHands,
    is_labelled,
    labelled_hands,
)
from m3dhmr_jax.evaluate.comparison.statistics import PairedDifference, apart_mm, by_source
from m3dhmr_jax.evaluate.report.comparison import ComparisonPage, render_comparison
from m3dhmr_jax.evaluate.report.entry import Entry
from m3dhmr_jax.hand import hand_id
from m3dhmr_jax.metrics.freihand import SampleMetrics, batch_metrics, scores
from m3dhmr_jax.predict.fit_method import FitMethod
from m3dhmr_jax.predict.inputs import Input, find_inputs
from m3dhmr_jax.predict.methods import NetworkMethod
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.run import IncompleteError
from m3dhmr_jax.runtime.files import readable
from m3dhmr_jax.runtime.results_folder import ResultsFolder, check_results_folder, free_folder

DEFAULT_OUT = Path("comparison")
PAGE, NUMBERS = "report.html", "comparison.json"


class Compared(NamedTuple):
    """All hands, and what is measured of them."""

    hands: list[ComparedHand]
    apart_mm: Float[np.ndarray, " b"]
    # Scores and errors of both, and differences by source; None without truth.
    entries: tuple[Entry, Entry] | None
    differences: list[PairedDifference]

    @property
    def errors_mm(self) -> Float[np.ndarray, "2 b"] | None:
        """Mean joint error of each hand after alignment, before and after."""
        if self.entries is None:
            return None
        errors_m = [each.errors.joint_errors_al_m for each in self.entries]
        return 1000 * np.stack(errors_m).astype(np.float64).mean(axis=2)


def compare(
    names: tuple[str, str], folder: Path, out: Path | None = None, *, replace: bool = False
) -> None:
    """Writes `report.html` and `comparison.json`, and prints a summary.

    Args:
        names: before and after: each "fit", "network" (the built-in one), a run's workdir or a
            weights file.
        folder: a set in FreiHAND's layout, of which the evaluation split is taken, or photos.
        out: a folder that is new or empty; default: the first such one of comparison,
            comparison-2, ...
        replace: `out` may have the results of an earlier call, which are removed first.

    Raises:
        UserError: before anything is written, if one of them cannot be used, both predict different
            hands, or no hand is found; IncompleteError at the end, if photos were skipped.
    """
    if out is None:
        if replace:
            raise UserError("--replace needs --out: the folder whose results are replaced")
        out = free_folder(DEFAULT_OUT)
    check_results_folder(out, "compare", (PAGE, NUMBERS), replace=replace)
    photos = None if is_labelled(folder) else find_photos(folder)
    pair = load_pair(names)
    skipped: list[str] = []
    if photos is None:
        hands = _with_progress(labelled_hands(folder, pair))
    else:
        seen = PhotoHands(photos, pair, lambda text: tqdm.tqdm.write(text, file=sys.stderr))
        hands, skipped = _with_progress(seen), seen.skipped
        if not hands:
            raise UserError(
                f"no hand was found in {folder}: {seen.photos} images were looked at; there is "
                "nothing to compare, and nothing was written"
            )
    compared = measure(hands)
    page = ComparisonPage(names, str(folder), *compared, errors_mm=compared.errors_mm)
    text = render_comparison(page)
    with ResultsFolder(out, "compare", (PAGE, NUMBERS), replace=replace) as results:
        results.write(PAGE, text.encode())
        results.write(NUMBERS, orjson.dumps(numbers(names, compared), option=orjson.OPT_INDENT_2))
    print_summary(compared)
    print(f"look at {readable(out / PAGE)}")
    if skipped:
        raise IncompleteError(f"skipped: {'; '.join(skipped[:10])}")


def find_photos(folder: Path) -> list[Input]:
    """The images in a folder and its subfolders.

    Raises:
        UserError: if it is not a folder, or there are none.
    """
    if not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder")
    photos = [each for each in find_inputs([str(folder)]).inputs if not each.is_video]
    if not photos:
        raise UserError(f"--images {folder} holds videos only: label them with m3dhmr label first")
    return photos


def load_pair(names: tuple[str, str]) -> Pair:
    """Both predictors.

    Raises:
        UserError: if one cannot be loaded, or they are of different hands.
    """
    before, after = map(load_named, names)
    if hand_id(before.hand) != hand_id(after.hand):
        raise UserError(
            f"{names[0]} and {names[1]} predict different hand models, whose vertices do not "
            "correspond, so their meshes cannot be compared: compare networks of one hand"
        )
    return before, after


def load_named(name: str) -> HandMeshPredictor:
    """The fit and the built-in network by their names, other networks by their path."""
    if name in (FitMethod.name, NetworkMethod.name):
        return HandMeshPredictor(name)
    return HandMeshPredictor.from_checkpoint(name)


def _with_progress(hands: Iterable[ComparedHand]) -> list[ComparedHand]:
    return list(tqdm.tqdm(hands, unit="hand", dynamic_ncols=True, mininterval=1))


def measure(hands: list[ComparedHand]) -> Compared:
    """Distances and, where there is truth, errors."""
    before, after = (_stack([getattr(h, name) for h in hands]) for name in ("before", "after"))
    roots_m = before.joints_m[:, 0], after.joints_m[:, 0]
    apart = apart_mm(before.verts_m, after.verts_m, *roots_m)
    truths = [hand.truth for hand in hands if hand.truth is not None]
    if not truths:
        return Compared(hands, apart, None, [])
    truth = _stack(truths)
    errors = [SampleMetrics(*map(np.asarray, batch_metrics(*x, *truth))) for x in (before, after)]
    entries = Entry(scores(errors[0]), errors[0]), Entry(scores(errors[1]), errors[1])
    compared = Compared(hands, apart, entries, [])
    assert compared.errors_mm is not None
    sources = [hand.source for hand in hands]
    return compared._replace(differences=by_source(sources, *compared.errors_mm))


def _stack(points: Sequence[HandPoints]) -> HandPoints:
    """With a leading b."""
    return HandPoints(*(np.stack(x).astype(np.float32) for x in zip(*points, strict=True)))


def numbers(names: tuple[str, str], compared: Compared) -> dict[str, Any]:
    """The content of `comparison.json`."""
    errors_mm = compared.errors_mm
    rows = []
    for i, hand in enumerate(compared.hands):
        row = {"image": hand.name, "source": hand.source, "apart_mm": float(compared.apart_mm[i])}
        if errors_mm is not None:
            row |= {"before_pa_mpjpe_mm": errors_mm[0, i], "after_pa_mpjpe_mm": errors_mm[1, i]}
        rows.append({name: float(x) if isinstance(x, np.generic) else x for name, x in row.items()})
    content: dict[str, Any] = {"before": names[0], "after": names[1]}
    if compared.entries is not None:
        kinds = ("before", "after")
        pairs = zip(kinds, compared.entries, strict=True)
        content["scores"] = {kind: dict(entry.scores) for kind, entry in pairs}
        content["pa_mpjpe_by_source"] = [each._asdict() for each in compared.differences]
    return content | {"hands": rows}


def print_summary(compared: Compared) -> None:
    print(
        f"{len(compared.hands)} hands; both meshes lie {compared.apart_mm.mean():.1f} mm apart "
        "with their wrists at the same place"
    )
    for each in compared.differences:
        text = (
            f"{each.source}: {each.hands} hands, PA-MPJPE {each.before_mm:.2f} before, "
            f"{each.after_mm:.2f} mm after: {each.difference_mm:+.2f}"
        )
        if each.interval_mm is not None:
            text += " (95 % interval {:+.2f} to {:+.2f})".format(*each.interval_mm)
        print(text)
