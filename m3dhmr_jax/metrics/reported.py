"""The scores that papers report: their names there, and how they are printed."""

REPORTED_METRICS = {
    "pa_mpjpe_mm": "PA-MPJPE mm",
    "pa_mpvpe_mm": "PA-MPVPE mm",
    "f_5": "F@5",
    "f_15": "F@15",
    "mpjpe_mm": "MPJPE mm (root-relative)",
}
REPORTED_LANDMARK_METRICS = {
    "landmark_error_px": "mean error px",
    "landmark_median_px": "median error px",
    "pck_5px": "PCK@5px",
}


def format_score(name: str, value: float) -> str:
    """A score as printed: lengths in mm and px with two digits, fractions with three."""
    return f"{value:.{2 if name.endswith(('_mm', '_px')) else 3}f}"
