import numpy as np
import pytest

from m3dhmr_jax.synthetic.tubes import Tube, draw_tubes

FLAT_TEXTURE = np.zeros((60, 60), np.float32)
RED, BLUE = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)


def drawn(*tubes, level=0.5):
    image = np.full((60, 60, 3), level, np.float32)
    draw_tubes(np.random.default_rng(0), image, tubes, FLAT_TEXTURE)
    return image


def test_tube_covers_its_length_and_nothing_else():
    image = drawn(Tube((20, 30), (40, 30), (5, 5), RED, shadow=0.0, gloss=0.0))
    rows, columns = np.nonzero((image != 0.5).any(2))
    assert (rows.min(), rows.max()) == (25, 35)
    assert (columns.min(), columns.max()) == (15, 45)
    assert image[30, 30, 0] > 2 * image[30, 30, 1]


def test_flat_ends_stop_at_the_end():
    tube = Tube((20, 30), (40, 30), (5, 5), RED, shadow=0.0, round_ends=False)
    assert drawn(tube)[30, 43, 0] == pytest.approx(0.5)
    assert drawn(tube._replace(round_ends=True))[30, 43, 0] != pytest.approx(0.5, abs=0.01)


def test_shadow_darkens_beside_the_tube():
    tube = Tube((20, 30), (40, 30), (5, 5), RED, shadow=0.0)
    plain, shaded = drawn(tube), drawn(tube._replace(shadow=0.6))
    assert (shaded <= plain + 1e-6).all()
    assert shaded.min() < 0.9 * plain[10, 10, 1]


def test_band_has_the_second_colour():
    image = drawn(Tube((10, 30), (50, 30), (6, 6), RED, BLUE, band=(0.5, 1.0), shadow=0.0))
    assert image[30, 20, 0] > image[30, 20, 2]
    assert image[30, 40, 2] > image[30, 40, 0]


def test_later_tubes_hide_earlier_ones():
    first = Tube((30, 10), (30, 50), (4, 4), RED, shadow=0.0)
    second = Tube((10, 30), (50, 30), (4, 4), BLUE, shadow=0.0)
    image = drawn(first, second)
    assert image[30, 30, 2] > image[30, 30, 0]
    assert image[15, 30, 0] > image[15, 30, 2]
