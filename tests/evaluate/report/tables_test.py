from m3dhmr_jax.evaluate.report.tables import (
    ALIGNED,
    PAPER,
    RELATIVE,
    camera_table,
    cell,
    score_table,
)

SCORES = dict.fromkeys([*ALIGNED, *RELATIVE], 0.5) | {"pa_mpjpe_mm": 10.04}


def test_score_table_separates_paper_columns():
    table = score_table({"network": SCORES, "mean hand": SCORES}, "6 synthetic images")
    assert table.groups == [("here: 6 synthetic images", 2), ("paper: FreiHAND", len(PAPER))]
    assert table.heads[: table.own] == ["network", "mean hand"]
    label, cells = table.rows[0]
    assert label == "PA-MPJPE, mm"
    assert cells == ["10.04", "10.04", "6.5", "6.6", "6.7"]
    assert {len(cells) for _, cells in table.rows} == {2 + len(PAPER)}


def test_score_table_marks_missing_scores():
    table = score_table({"network": SCORES}, "nothing")
    cells = dict(table.rows)["MPJPE, mm, root-relative"]
    assert cells == ["0.50", "-", "-", "-"]


def test_camera_table_is_in_millimetres():
    given = {"xyz_mean3d": 0.0657, "mesh_mean3d": 0.0653, "root_mm": 63.9, "xyz_auc3d": 0.2144}
    rows = dict(camera_table({"K as given": given}).rows)
    assert rows["MPJPE, mm"] == ["65.70"]
    assert rows["root (wrist), mm"] == ["63.90"]
    assert rows["AUC of joints"] == ["0.214"]
    assert rows["F@5 mm"] == ["-"]
    assert cell("f_5", None) == "-"
