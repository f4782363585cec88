import numpy as np
import pytest

from m3dhmr_jax.data.units import N_CHECKED, check_metres
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin

VERTS_M = load_builtin().verts_m - load_builtin().verts_m.mean(axis=0)


def hands(n, depth_m=0.6):
    return np.tile(VERTS_M + np.float32([0, 0, depth_m]), (n, 1, 1))


@pytest.mark.parametrize("depth_m", [0.15, 0.6, 4.5])
def test_check_metres_takes_hands_of_every_size_and_any_number(depth_m):
    for scale in (0.6, 1.2):  # Of a small child, of a large man.
        check_metres("a", scale * hands(1, depth_m / scale))
    check_metres("a", hands(0))
    check_metres("a", hands(2 * N_CHECKED + 1))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda x: 1000 * x, "in millimetres"),
        (lambda x: 100 * x, "in centimetres"),
        (lambda x: x / 1000, "another unit"),
        (lambda x: x - np.float32([0, 0, 0.6]), "relative to the wrist"),
        (lambda x: -x, "z axis"),
    ],
)
def test_check_metres_names_the_likely_cause(change, cause):
    with pytest.raises(UserError, match=f"^a: .*{cause}"):
        check_metres("a", change(hands(3)))


@pytest.mark.filterwarnings("error")
def test_check_metres_tolerates_single_absurd_hands():
    points_m = hands(5)
    points_m[2, :, 0] = 3e38
    check_metres("a", points_m)
