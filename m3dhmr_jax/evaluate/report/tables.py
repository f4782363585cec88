"""The tables of the report: what was measured, beside what the paper reports."""

from collections.abc import Mapping
from typing import NamedTuple

# Tab. 4 of the paper, trained and tested on FreiHAND.
PAPER = {
    "M3DHMR ResNet34": {"pa_mpjpe_mm": 6.5, "pa_mpvpe_mm": 6.6, "f_5": 0.739, "f_15": 0.980},
    "M3DHMR ResNet18": {"pa_mpjpe_mm": 6.6, "pa_mpvpe_mm": 6.7, "f_5": 0.734, "f_15": 0.978},
    "MobRecon ResNet18": {"pa_mpjpe_mm": 6.7, "pa_mpvpe_mm": 6.8, "f_5": 0.727, "f_15": 0.979},
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
    """Cells as they are printed; the first `own` columns are ours, the others the paper's."""

    groups: list[tuple[str, int]]  # Heading and number of columns.
    heads: list[str]
    own: int
    rows: list[tuple[str, list[str]]]


def shown(key: str, value: float | None) -> str:
    """A score as it is printed: lengths in mm to a tenth, shares to a thousandth, "-" for none."""
    if value is None:
        return "-"
    if key.endswith("mean3d"):  # The official script's, in metres.
        return f"{1000 * value:.1f}"
    return f"{value:.1f}" if key.endswith("_mm") else f"{value:.3f}"


def score_table(entries: Mapping[str, Mapping[str, float]], trained_on: str) -> Table:
    """Root-relative scores, with and without alignment: of entries, and the paper's apart."""
    columns = [*entries.values(), *PAPER.values()]
    return Table(
        groups=[(f"here: {trained_on}", len(entries)), ("paper: FreiHAND", len(PAPER))],
        heads=[*entries, *PAPER],
        own=len(entries),
        rows=[
            (label, [shown(key, column.get(key)) for column in columns])
            for key, label in (
                ALIGNED | {k: f"{v}, root-relative" for k, v in RELATIVE.items()}
            ).items()
        ],
    )


def camera_table(entries: Mapping[str, Mapping[str, float]]) -> Table:
    """Scores in camera space, of entries that differ in the K that they were given."""
    return Table(
        groups=[],
        heads=list(entries),
        own=len(entries),
        rows=[
            (label, [shown(key, column.get(key)) for column in entries.values()])
            for key, label in IN_CAMERA.items()
        ],
    )
