import json

import numpy as np
import pytest

from m3dhmr_jax.evaluate.report.figures import (
    histogram_figure,
    joints_figure,
    pck_figure,
    regions_figure,
    surface_figure,
)
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.metrics.freihand import SampleMetrics


@pytest.fixture(scope="module")
def hand():
    return load_builtin()


def errors(**fields) -> SampleMetrics:
    """Twelve hands with zero errors except for `fields` (metres)."""
    widths = {"joint": 21, "vert": 778}
    values = {
        name: np.zeros((12, widths[name.split("_")[0]]), np.float32)
        for name in SampleMetrics._fields
        if not name.startswith("matched")
    }
    counts = np.zeros((12, 2, 2), np.int32)
    return SampleMetrics(**values, matched=counts, matched_al=counts)._replace(**fields)


def test_pck_figure_shows_curve_and_area():
    alike = np.full((12, 21), 0.02, np.float32)
    figure = pck_figure({"network": errors(joint_errors_al_m=alike)}, aligned=True)
    joints, mesh = figure["data"]
    x, y = np.array(joints["x"]), np.array(joints["y"])
    assert (y[x < 20] == 0).all()
    assert (y[x > 20.1] == 100).all()
    assert "AUC 0.60" in joints["name"]
    assert set(mesh["y"]) == {100.0}


def test_pck_figure_selects_aligned_or_camera_errors():
    one = errors(joint_errors_m=np.full((12, 21), 0.04, np.float32))
    halves = [
        pck_figure({"network": one}, aligned)["data"][0]["y"][50] for aligned in (True, False)
    ]
    assert halves == [100.0, 0.0]


def test_joints_figure_orders_bars_by_joint():
    each = np.tile(np.arange(21, dtype=np.float32) / 1000, (12, 1))
    figure = joints_figure(errors(joint_errors_al_m=each, joint_errors_rel_m=2 * each))
    relative, aligned = figure["data"]
    np.testing.assert_allclose(aligned["y"], np.arange(21), atol=0.01)
    np.testing.assert_allclose(relative["y"], 2 * np.arange(21), atol=0.01)
    named = dict(zip(aligned["text"], aligned["y"], strict=True))
    assert named["wrist"] == 0
    assert named["thumb CMC"] == 1
    assert named["index tip"] == 8
    assert named["little tip"] == 20
    assert len(set(aligned["x"])) == 21
    assert aligned["marker"]["color"][8] == "--index"


def test_regions_figure_averages_over_vertices(hand):
    field = np.tile(hand.regions.astype(np.float32) / 1000, (12, 1))
    relative, aligned = regions_figure(errors(vert_errors_al_m=field), hand)["data"]
    np.testing.assert_allclose(aligned["y"], np.arange(6), atol=0.01)
    assert set(relative["y"]) == {0.0}


def test_histogram_figure_counts_each_hand_once():
    per_hand = np.array([3, 3, 3, 4, 4, 5, 5, 5, 6, 7, 8, 900], np.float32) / 1000
    field = np.tile(per_hand[:, None], (1, 778))
    figure = histogram_figure({"network": errors(vert_errors_al_m=field), "mean hand": errors()})
    assert [sum(entry["y"]) for entry in figure["data"]] == [12, 12]
    assert "median 5.0 mm" in figure["data"][0]["name"]


def test_surface_figure_has_mesh_and_vertex_errors(hand):
    field = np.tile(np.linspace(0, 0.02, 778, dtype=np.float32), (12, 1))
    figure = surface_figure(errors(vert_errors_rel_m=field), hand)
    trace, choices = figure["data"][0], figure["choices"]
    np.testing.assert_array_equal(np.stack([trace[k] for k in "ijk"], 1), hand.faces)
    corners = np.stack([trace[k] for k in "xyz"], 1)
    rest = hand.verts_m - hand.verts_m.mean(0)
    a, b, _ = hand.faces.T
    sides = [np.linalg.norm(v[a] - v[b], axis=1) for v in (corners, rest)]
    np.testing.assert_allclose(*sides, atol=3e-4)  # The same surface, rotated.
    rotated, given = (np.linalg.det(v[hand.faces[:9]]) for v in (corners, rest))
    np.testing.assert_array_equal(np.sign(rotated), np.sign(given))  # A right hand stays one.
    np.testing.assert_allclose(choices["root-relative"]["intensity"], 1000 * field[0], atol=0.01)
    assert choices["root-relative"]["cmax"] == pytest.approx(20)
    assert set(choices["aligned"]["intensity"]) == {0.0}


def test_figures_are_json(hand):
    for figure in (surface_figure(errors(), hand), joints_figure(errors())):
        json.dumps(figure, allow_nan=False)
