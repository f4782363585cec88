import numpy as np
import pytest
import scipy.stats

from m3dhmr_jax.evaluate.comparison.statistics import apart_mm, by_source, paired_difference


def test_the_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    before_mm = rng.uniform(5, 30, 12)
    after_mm = before_mm + rng.normal(-1, 2, 12)
    found = paired_difference("a", before_mm, after_mm)
    test = scipy.stats.ttest_rel(after_mm, before_mm)
    np.testing.assert_allclose(found.interval_mm, test.confidence_interval(0.95))
    assert found.difference_mm == pytest.approx(found.after_mm - found.before_mm)


def test_the_interval_holds_the_true_difference_in_95_of_100_cases():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(2000):
        before_mm = rng.uniform(5, 30, 8)
        low, high = paired_difference("a", before_mm, before_mm + rng.normal(0.5, 1, 8)).interval_mm
        hits += low < 0.5 < high
    assert 0.935 < hits / 2000 < 0.965


def test_a_single_hand_has_no_interval():
    assert paired_difference("a", np.array([3.0]), np.array([2.0])).interval_mm is None


def test_sources_keep_their_order_and_are_summed_up():
    sources, before_mm = ["b", "a", "b"], np.array([1.0, 2.0, 3.0])
    found = by_source(sources, before_mm, before_mm + np.array([1.0, 0.0, 2.0]))
    assert [(each.source, each.hands) for each in found] == [("b", 2), ("a", 1), ("all", 3)]
    assert [each.difference_mm for each in found] == [1.5, 0.0, 1.0]
    assert [each.source for each in by_source(["b", "b"], before_mm[:2], before_mm[:2])] == ["b"]


def test_meshes_are_apart_by_what_is_left_when_wrists_meet():
    verts_m = np.random.default_rng(2).normal(0, 0.05, (2, 9, 3))
    root_m, shift_m = verts_m[:, 0], np.array([0.3, -0.1, 0.7])
    assert apart_mm(verts_m, verts_m + shift_m, root_m, root_m + shift_m).max() < 1e-9
    moved = verts_m.copy()
    moved[1, 1:] += [0.003, 0.004, 0]  # 5 mm for eight of nine.
    np.testing.assert_allclose(apart_mm(verts_m, moved, root_m, root_m), [0, 5 * 8 / 9])
