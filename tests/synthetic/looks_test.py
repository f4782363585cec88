import numpy as np
import pytest

from m3dhmr_jax.synthetic import shading
from m3dhmr_jax.synthetic.backgrounds import KINDS, sample_background
from m3dhmr_jax.synthetic.color import linear_rgb, srgb
from m3dhmr_jax.synthetic.imaging import SHOULDER, CameraLook, develop, hand_mask, meter
from m3dhmr_jax.synthetic.lights import Lights, cast_shadow
from m3dhmr_jax.synthetic.occluders import grid_faces, superquadric
from m3dhmr_jax.synthetic.raster import rasterise
from m3dhmr_jax.synthetic.skin import sample_skin
from m3dhmr_jax.synthetic.surface import vertex_normals

K = np.array([[200.0, 0, 32], [0, 200, 32], [0, 0, 1]])
CLEAN = CameraLook(exposure=1.0, contrast=1.0, blur_px=0.0, noise_01=0.0, jpeg_quality=90)


def lit_balls(to_lamp, centres):
    """A picture of matt grey balls of 3 cm under one lamp and a little light from everywhere."""
    ball = superquadric(np.full(3, 0.03), 1.0, 1.0)
    points = np.concatenate([ball + centre for centre in centres]).astype(np.float32)
    faces = np.concatenate([grid_faces() + i * len(ball) for i in range(len(centres))])
    looks = np.zeros((len(points), shading.LOOKS), np.float32)
    looks[:, :3] = vertex_normals(points, faces)
    looks[:, shading.ALBEDO : shading.ALBEDO + 3] = 0.5
    dim = np.full(3, 0.1, np.float32)
    lamp = np.array([to_lamp], np.float32)
    lights = Lights(lamp / np.linalg.norm(lamp), np.ones((1, 3), np.float32), dim, dim, 1.0)
    found = rasterise(points, faces, K, 64, 1)
    shadow = cast_shadow(points, faces, points, lights.directions[0])
    nail = np.zeros(3)
    return shading.shade(found, 1, K, looks, faces, nail, 0.5, lights, shadow, 1.0)[..., 1]


def test_the_side_towards_the_lamp_is_the_bright_one():
    picture = lit_balls([-1, 0, -0.5], [[0, 0, 0.4]])
    assert picture[32, 22] > 2 * picture[32, 42] > 0


def test_what_stands_between_lamp_and_ball_casts_a_shadow():
    free = lit_balls([0, -1, -1], [[0, 0, 0.4]])
    shaded = lit_balls([0, -1, -1], [[0, 0, 0.4], [0, -0.07, 0.33]])
    assert shaded[28, 32] < 0.7 * free[28, 32]


def test_colour_scales_are_inverse():
    values = np.linspace(0, 1, 50)
    np.testing.assert_allclose(srgb(linear_rgb(values)), values, atol=1e-6)


def test_a_clean_camera_averages_samples_and_keeps_grey_grey():
    samples = np.full((16, 16, 3), 0.2, np.float32)
    face = np.full((16, 16), -1, np.int32)
    face[:, ::2] = 0
    background = np.zeros((8, 8, 3), np.float32)
    photo = develop(samples, face, background, CLEAN, np.random.default_rng(0))
    exposed = 0.2 * meter(samples, face, background)
    light = 0.5 * exposed / (1 + SHOULDER * exposed)
    assert (photo == photo[0, 0, 0]).all()
    assert photo[0, 0, 0] == pytest.approx(255 * srgb(np.array(light)), abs=1)


def test_the_meter_dims_bright_scenes_and_lifts_dark_ones():
    face, dark = np.full((16, 16), 0, np.int32), np.full((8, 8, 3), 0.1, np.float32)
    exposures = [
        meter(np.full((16, 16, 3), light, np.float32), face, dark) for light in (0.1, 0.6, 2.0)
    ]
    assert exposures[0] > 1.3
    assert 0.9 < exposures[1] < 1.1
    assert exposures[2] < 0.7


def test_the_mask_holds_the_hand_and_not_its_arm():
    face = np.full((8, 8), -1, np.int32)
    face[:4], face[4:, :4] = 3, 10
    mask = hand_mask(face, 5, 4)
    assert (mask[:2] == 255).all()
    assert (mask[2:] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_background_is_finite_and_varied(kind):
    pictures = np.stack([kind(np.random.default_rng(i), 112) for i in range(4)])
    assert pictures.shape == (4, 112, 112, 3)
    assert np.isfinite(pictures).all()
    assert pictures.mean((1, 2)).std(0).max() > 0.01


def test_backgrounds_have_a_sensible_brightness():
    rng = np.random.default_rng(0)
    means = np.array([sample_background(rng, 224).mean() for _ in range(20)])
    assert (means > 0.01).all()
    assert (means < 1).all()


def test_skins_range_from_light_to_dark_with_palms_no_darker_than_the_back():
    skins = [sample_skin(np.random.default_rng(i)) for i in range(200)]
    back = np.array([skin.base.mean() for skin in skins])
    palm = np.array([skin.palm.mean() for skin in skins])
    assert back.max() > 0.5
    assert back.min() < 0.06
    assert (palm > 0.95 * back).all()
