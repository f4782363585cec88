import cv2
import numpy as np
import pytest


@pytest.fixture
def photos(tmp_path):
    """Ten photos in a folder and a folder of it, a file that is none, one that is no image."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    for i in range(10):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        pixels = cv2.resize(coarse, (90, 60 + i))
        assert cv2.imwrite(str(folder / ("more" if i % 3 else ".") / f"{i}.png"), pixels)
    (folder / "notes.txt").write_text("no photo")
    (folder / "broken.jpg").write_text("no photo")
    return folder
