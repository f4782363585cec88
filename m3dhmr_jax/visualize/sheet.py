"""A contact sheet: many images with their meshes, in one picture of bounded size.

Axes: h w image, a b sheet.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.visualize.hands import HandDrawing
from m3dhmr_jax.visualize.overlay import Image, draw_landmarks, draw_meshes, scale_drawing
from m3dhmr_jax.visualize.text import draw_text, text_width

TILE_PX, MAX_SHEET_PX, GAP_PX = 400, 2400, 6
CAPTION_PX, CAPTION_TEXT_PX = 20, 13
PAPER, INK = (255, 255, 255), (60, 60, 60)


class SheetTile(NamedTuple):
    """An image, the hands to draw over it, and K of the image as given."""

    image: UInt8[np.ndarray, "h w 3"]
    hands: Sequence[HandDrawing]
    intrinsics: Float[np.ndarray, "3 3"]
    caption: str = ""


def sheet_grid(count: int, tile_px: int = TILE_PX) -> tuple[int, int, int]:
    """Rows, columns and tile size of a sheet no wider or higher than MAX_SHEET_PX."""
    columns = min(count, int(np.ceil(np.sqrt(count * 4 / 3))))
    rows = -(-count // columns)
    longer = max(columns, rows)
    return rows, columns, min(tile_px, MAX_SHEET_PX // longer - GAP_PX - CAPTION_PX)


def draw_tile(tile: SheetTile, tile_px: int, landmarks: bool = False) -> Image:
    """Image and meshes, scaled to fit a square of `tile_px`; images are never enlarged."""
    factor = min(1.0, tile_px / max(tile.image.shape[:2]))
    image, hands, intrinsics = scale_drawing(tile.image, tile.hands, tile.intrinsics, factor)
    image = draw_meshes(image, hands, intrinsics)
    return draw_landmarks(image, hands) if landmarks else image


def draw_contact_sheet(
    tiles: Sequence[SheetTile], tile_px: int = TILE_PX, landmarks: bool = False
) -> UInt8[np.ndarray, "a b 3"]:
    """One tile per image, row by row, each with its meshes and its caption below.

    Args:
        tile_px: largest side of a tile; less where many images must fit MAX_SHEET_PX.
        landmarks: draw the skeletons over the meshes as well.

    Raises:
        ValueError: without tiles, or if all hands of an image are behind the camera.
    """
    if not tiles:
        raise ValueError("a contact sheet needs at least one image")
    rows, columns, tile_px = sheet_grid(len(tiles), tile_px)
    drawn = [draw_tile(tile, tile_px, landmarks) for tile in tiles]
    width_px = max(image.shape[1] for image in drawn)
    bands = []
    for first in range(0, rows * columns, columns):
        images = drawn[first : first + columns]
        height_px = max(image.shape[0] for image in images)
        band = np.full((height_px + CAPTION_PX, columns * (width_px + GAP_PX), 3), PAPER, np.uint8)
        for column, image in enumerate(images):
            left = column * (width_px + GAP_PX) + (width_px - image.shape[1]) // 2
            top = height_px - image.shape[0]
            band[top:height_px, left : left + image.shape[1]] = image
            caption = _fitting(tiles[first + column].caption, width_px)
            start = (
                column * (width_px + GAP_PX) + (width_px - text_width(caption, CAPTION_TEXT_PX)) / 2
            )
            draw_text(band, caption, start, height_px + CAPTION_PX - 6, CAPTION_TEXT_PX, INK)
        bands.append(band)
    return np.concatenate(bands)


def _fitting(caption: str, width_px: int) -> str:
    """The end of a caption, if all of it is too wide."""
    while caption and text_width(caption, CAPTION_TEXT_PX) > width_px:
        caption = caption[1:]
    return caption
