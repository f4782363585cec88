"""The tables of the report: measured scores next to those of the paper."""

from collections.abc import Mapping
from typing import NamedTuple

from m3dhmr_jax.metrics.reported import format_score

# Table 4 of the paper, trained and tested on FreiHAND, with the digits given there.
PAPER: dict[str, Mapping[str, str]] = {
    name: dict(zip(("pa_mpjpe_mm", "pa_mpvpe_mm", "f_5", "f_15"), row, strict=True))
    for name, row in {
        "M3DHMR ResNet34": ("6.5", "6.6", "0.739", "0.980"),
        "M3DHMR ResNet18": ("6.6", "6.7", "0.734", "0.978"),
        "MobRecon ResNet18": ("6.7", "6.8", "0.727", "0.979"),
    }.items()
}
ALIGNED = {
    "pa_mpjpe_mm": "PA-MPJPE, mm",
    "pa_mpvpe_mm": "PA-MPVPE, mm",
    "f_5": "F@5 mm",
    "f_15": "F@15 mm",
    "xyz_al_auc3d": "AUC of joints",
    "mesh_al_auc3d": "AUC of mesh",
}
RELATIVE = {"mpjpe_mm": "MPJPE, mm", "mpvpe_mm": "MPVPE, mm"}
IN_CAMERA = {
    "xyz_mean3d": "MPJPE, mm",
    "mesh_mean3d": "MPVPE, mm",
    "root_mm": "root (wrist), mm",
    "xyz_auc3d": "AUC of joints",
    "mesh_auc3d": "AUC of mesh",
    "f_score_5": "F@5 mm",
    "f_score_15": "F@15 mm",
}


class Table(NamedTuple):
    """Cells as text; the first `own` columns are ours, the others the paper's."""

    groups: list[tuple[str, int]]  # Heading and number of columns.
    heads: list[str]
    own: int
    rows: list[tuple[str, list[str]]]


def cell(key: str, value: float | str | None) -> str:
    """A score as text, lengths in mm; "-" if there is none."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if key.endswith("mean3d"):  # The official script's scores are in metres.
        return format_score("mean3d_mm", 1000 * value)
    return format_score(key, value)


def score_table(entries: Mapping[str, Mapping[str, float]], trained_on: str) -> Table:
    """Scores with alignment and root-relative ones: of the entries, and the paper's."""
    columns: list[Mapping[str, float | str]] = [*entries.values(), *PAPER.values()]
    return Table(
        groups=[(f"here: {trained_on}", len(entries)), ("paper: FreiHAND", len(PAPER))],
        heads=[*entries, *PAPER],
        own=len(entries),
        rows=[
            (label, [cell(key, column.get(key)) for column in columns])
            for key, label in (
                ALIGNED | {k: f"{v}, root-relative" for k, v in RELATIVE.items()}
            ).items()
        ],
    )


def camera_table(entries: Mapping[str, Mapping[str, float]]) -> Table:
    """Scores in camera space of entries that differ in K."""
    return own_table(IN_CAMERA, entries)


def own_table(labels: Mapping[str, str], entries: Mapping[str, Mapping[str, float]]) -> Table:
    """The scores in `labels`, by their keys, of the entries."""
    return Table(
        groups=[],
        heads=list(entries),
        own=len(entries),
        rows=[
            (label, [cell(key, column.get(key)) for column in entries.values()])
            for key, label in labels.items()
        ],
    )
