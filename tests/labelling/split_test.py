import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.labelling.split import check_split, split_hands


def groups_of(**counts):
    groups = [name for name, count in counts.items() for _ in range(count)]
    return groups, list(range(len(groups)))


def chosen(groups, is_evaluation):
    return {group for group, each in zip(groups, is_evaluation, strict=True) if each}


def test_the_smallest_groups_are_for_evaluation_as_long_as_they_fit():
    groups, images = groups_of(a=40, b=6, c=4, d=50)
    is_evaluation, how = split_hands(groups, images, 0.1)
    assert (chosen(groups, is_evaluation), how) == ({"b", "c"}, "source")
    assert is_evaluation.sum() == 10


def test_no_group_is_on_both_sides():
    rng = np.random.default_rng(0)
    for _ in range(50):
        groups = rng.choice(list("abcdef"), 60).tolist()
        is_evaluation, _ = split_hands(groups, list(range(60)), rng.uniform(0.05, 0.6))
        rest = {g for g, each in zip(groups, is_evaluation, strict=True) if not each}
        assert chosen(groups, is_evaluation)
        assert rest
        assert not rest & chosen(groups, is_evaluation)


def test_one_group_is_cut_between_two_images():
    """Both hands of an image are on the same side."""
    images = [0, 0, 1, 2, 2, 3, 3, 4, 4]
    is_evaluation, how = split_hands(["clip"] * 9, images, 0.3)
    assert how == "order"
    assert is_evaluation.tolist() == [False] * 5 + [True] * 4
    is_evaluation, _ = split_hands(["clip"] * 3, [0, 1, 1], 0.9)
    assert is_evaluation.tolist() == [False, True, True]


def test_one_image_cannot_be_split():
    with pytest.raises(UserError, match="of one image"):
        split_hands(["photos"] * 2, [7, 7], 0.1)


@pytest.mark.parametrize("split", [0.0, 1.0, -0.1, float("nan")])
def test_both_parts_need_hands(split):
    with pytest.raises(UserError, match="--split"):
        check_split(split)
