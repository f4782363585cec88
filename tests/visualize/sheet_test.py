import numpy as np
import pytest

from m3dhmr_jax.visualize.overlay import draw_landmarks, draw_meshes, scale_drawing
from m3dhmr_jax.visualize.sheet import (
    CAPTION_PX,
    GAP_PX,
    MAX_SHEET_PX,
    SheetTile,
    draw_contact_sheet,
    draw_tile,
    sheet_grid,
)
from tests.visualize.overlay_test import CAMERA, IMAGE, drawing


@pytest.mark.parametrize("count", [1, 2, 5, 12, 84, 500])
def test_sheet_grid_has_room_for_all_within_limits(count):
    rows, columns, tile_px = sheet_grid(count)
    assert rows * columns >= count > (rows - 1) * columns
    assert columns * (tile_px + GAP_PX) <= MAX_SHEET_PX
    assert rows * (tile_px + CAPTION_PX) <= MAX_SHEET_PX
    assert tile_px > 40


def test_draw_contact_sheet_places_tiles_row_by_row():
    levels = (40, 80, 120, 160, 200)
    tiles = [SheetTile(np.full((90, 120, 3), level, np.uint8), [], CAMERA) for level in levels]
    sheet = draw_contact_sheet(tiles)
    assert sheet.shape == (2 * (90 + CAPTION_PX), 3 * (120 + GAP_PX), 3)
    centres = sheet[45 :: 90 + CAPTION_PX, 60 :: 120 + GAP_PX, 0].ravel()
    assert centres.tolist() == [*levels, 255]


def test_draw_contact_sheet_writes_captions():
    plain, named = (
        draw_contact_sheet([SheetTile(IMAGE, [], CAMERA, caption)])
        for caption in ("", "a.jpg" * 50)
    )
    assert (plain[100:] == 255).all()
    assert (named[100:] < 128).any()
    np.testing.assert_array_equal(plain[:100], named[:100])


def test_draw_tile_scales_mesh_with_image():
    tile = SheetTile(np.tile(IMAGE, (4, 4, 1)), [drawing()], CAMERA)
    small, hands, intrinsics = scale_drawing(*tile[:3], 0.25)
    np.testing.assert_array_equal(draw_tile(tile, 120), draw_meshes(small, hands, intrinsics))
    assert (draw_tile(tile, 120) != small).any()
    both = draw_landmarks(draw_meshes(small, hands, intrinsics), hands)
    np.testing.assert_array_equal(draw_tile(tile, 120, landmarks=True), both)


def test_draw_tile_does_not_enlarge():
    assert draw_tile(SheetTile(IMAGE, [], CAMERA), 400).shape == IMAGE.shape


def test_draw_contact_sheet_rejects_no_images():
    with pytest.raises(ValueError, match="at least one"):
        draw_contact_sheet([])
