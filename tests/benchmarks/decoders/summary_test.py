"""Tables and plots of the decoder benchmark, from lines written by hand."""

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from benchmarks.decoders.summary import (
    Estimate,
    comparisons,
    curves,
    estimate,
    paired_difference,
    plot,
    summary,
)
from benchmarks.decoders.systems import FULL

SETTINGS = {
    "channels": [8, 8, 8, 4],
    "steps": 12,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "features": "ab",
}


def line(system, seed, verts_mm, joints_mm=5.0, **settings):
    return SETTINGS | {
        "system": system,
        "seed": seed,
        "parameters": 12_345,
        "multiply_adds": 6_700_000,
        "pa_mpvpe_mm": verts_mm,
        "pa_mpjpe_mm": joints_mm,
        "curve": [[6, 9.0, 2 * verts_mm], [12, joints_mm, verts_mm]],
        **settings,
    }


def test_paired_difference_is_that_of_common_seeds():
    # Differences 1, 2 and 6 on the seeds 1, 2 and 5: mean 3, variance (4 + 1 + 9) / 2 = 7.
    found = paired_difference({0: 9.0, 1: 4.0, 2: 6.0, 5: 8.0}, {1: 3.0, 2: 4.0, 5: 2.0, 7: 0.0})
    assert found.mean == pytest.approx(3)
    assert found.error == pytest.approx(math.sqrt(7 / 3))


def test_paired_difference_without_common_seed_is_none():
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_paired_difference_cancels_what_seeds_share():
    seeds = {0: 5.0, 1: 50.0, 2: 500.0}
    assert paired_difference({s: e + 0.5 for s, e in seeds.items()}, seeds).error == 0


def test_estimate_of_one_value_has_no_error():
    assert estimate([2.0]) == Estimate(2.0, None)
    assert Estimate(2.0, None).text() == "2.00"


def test_summary_compares_with_the_full_model():
    lines = [line(FULL.name, seed, value) for seed, value in enumerate((7.0, 8.0))]
    lines += [line("spiral", seed, value) for seed, value in enumerate((7.5, 8.1))]
    head, _, full, other = (
        [cell.strip() for cell in row.split("|")[1:-1]] for row in summary(lines).splitlines()
    )
    assert head[:3] == ["decoder", "seeds", "parameters, k"]
    assert full[:6] == [FULL.name, "2", "12", "7", "7.50 ± 0.50", ""]
    assert other[:6] == ["spiral", "2", "12", "7", "7.80 ± 0.30", "+0.30 ± 0.20"]


def test_comparisons_separate_settings_and_keep_the_newest_line():
    lines = [line("spiral", 0, 7.0), line("spiral", 0, 6.0), line("spiral", 0, 5.0, steps=24)]
    assert comparisons(lines) == [[lines[1]], [lines[2]]]


def test_curves_are_means_over_seeds():
    found = curves([line("spiral", 0, 6.0), line("spiral", 1, 8.0)])
    np.testing.assert_allclose(found["spiral"], [[6, 14], [12, 7]])


def test_plot_draws_a_line_for_each_system():
    root = ET.fromstring(plot([line(FULL.name, 0, 6.0), line("spiral", 0, 7.0)]))
    kinds = [element.tag.rpartition("}")[2] for element in root]
    assert kinds.count("polyline") == 2
    texts = {element.text for element in root if element.text}
    assert {FULL.name, "spiral"} <= texts
