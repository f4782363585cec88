from m3dhmr_jax.evaluate.report.tables import (
    ALIGNED,
    PAPER,
    RELATIVE,
    camera_table,
    score_table,
    shown,
)

SCORES = dict.fromkeys([*ALIGNED, *RELATIVE], 0.5) | {"pa_mpjpe_mm": 10.04}


def test_ours_and_the_papers_numbers_stand_in_columns_of_their_own():
    table = score_table({"network": SCORES, "mean hand": SCORES}, "6 synthetic photos")
    assert table.groups == [("here: 6 synthetic photos", 2), ("paper: FreiHAND", len(PAPER))]
    assert table.heads[: table.own] == ["network", "mean hand"]
    label, cells = table.rows[0]
    assert label == "PA-MPJPE, mm"
    assert cells == ["10.0", "10.0", "6.5", "6.6", "6.7"]
    assert {len(cells) for _, cells in table.rows} == {2 + len(PAPER)}


def test_what_the_paper_does_not_report_stays_empty():
    table = score_table({"network": SCORES}, "nothing")
    cells = dict(table.rows)["MPJPE, mm, root-relative"]
    assert cells == ["0.5", "-", "-", "-"]


def test_metres_of_the_official_keys_are_shown_in_millimetres():
    given = {"xyz_mean3d": 0.0657, "mesh_mean3d": 0.0653, "root_mm": 63.9, "xyz_auc3d": 0.2144}
    rows = dict(camera_table({"K as given": given}).rows)
    assert rows["MPJPE, mm"] == ["65.7"]
    assert rows["root (wrist), mm"] == ["63.9"]
    assert rows["AUC of joints"] == ["0.214"]
    assert rows["F@5 mm"] == ["-"]
    assert shown("f_5", None) == "-"
