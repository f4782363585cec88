import cv2
import numpy as np
import pytest

from m3dhmr_jax.synthetic import people
from m3dhmr_jax.synthetic.backgrounds import sample_background
from m3dhmr_jax.synthetic.clutter import FLAT, ROUND, add_clutter
from m3dhmr_jax.synthetic.tubes import draw_tubes

SIDE = 112


def sharpness(image):
    grey = np.sqrt(np.clip(image, 0, 1)).mean(2).astype(np.float64)
    return cv2.Laplacian(grey, cv2.CV_64F).std()


@pytest.mark.parametrize("draw", FLAT)
def test_flat_things_change_the_canvas_and_repeat(draw):
    canvases = np.full((2, 6, SIDE, SIDE, 3), 127, np.uint8)
    for repeat in canvases:
        for number, canvas in enumerate(repeat):
            draw(np.random.default_rng(number), canvas)
    np.testing.assert_array_equal(*canvases)
    assert (canvases[0] != 127).any((1, 2, 3)).sum() >= 4


@pytest.mark.parametrize("sample", [*ROUND, *people.KINDS])
def test_round_things_are_drawn(sample):
    changed = 0
    for number in range(6):
        rng = np.random.default_rng(number)
        image = np.full((SIDE, SIDE, 3), 0.5, np.float32)
        tubes = sample(rng, SIDE)
        assert all(min(tube.radius) > 0 for tube in tubes)
        draw_tubes(rng, image, tubes, np.zeros((SIDE, SIDE), np.float32))
        assert np.isfinite(image).all()
        changed += (image != 0.5).any()
    assert changed >= 4


def test_hands_of_others_have_four_fingers_and_a_thumb():
    skin = np.array([0.5, 0.3, 0.2])
    tubes = people.hand(np.random.default_rng(0), np.zeros(2), 100.0, skin, 0.0)
    assert sum(np.array_equal(tube.colour, skin) for tube in tubes) == 4 + 4 + 1


def test_add_clutter_sharpens_a_smooth_ground():
    ground = np.full((SIDE // 4, SIDE // 4, 3), 0.4, np.float32)
    images = [add_clutter(np.random.default_rng(i), ground, SIDE) for i in range(12)]
    assert all(image.shape == (SIDE, SIDE, 3) and np.isfinite(image).all() for image in images)
    assert np.median([sharpness(image) for image in images]) > 0.05


def test_sample_background_is_sharper_with_clutter():
    plain, cluttered = (
        np.mean(
            [
                sharpness(
                    sample_background(np.random.default_rng(i), 224, is_cluttered=is_cluttered)
                )
                for i in range(12)
            ]
        )
        for is_cluttered in (False, True)
    )
    assert cluttered > 3 * plain
