import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.synthetic.contact_sheet import write_contact_sheet


@pytest.fixture
def folder(tmp_path):
    """Six images of 8 x 16 px, brighter one by one."""
    images_dir = tmp_path / "training" / "rgb"
    images_dir.mkdir(parents=True)
    for i in range(6):
        image = np.full((8, 16, 3), 40 * i, np.uint8)
        cv2.imwrite(str(images_dir / f"{i:08d}.jpg"), image)
    return tmp_path


def test_contact_sheet_tiles_images_row_by_row(folder):
    write_contact_sheet(folder, folder / "sheet.jpg", rows=2, columns=3)
    sheet = cv2.imread(str(folder / "sheet.jpg"))
    assert sheet.shape == (16, 48, 3)
    want = 40 * np.arange(6).reshape(2, 3)
    np.testing.assert_allclose(sheet[4::8, 8::16, 0], want, atol=3)


def test_contact_sheet_rejects_too_few_images(folder):
    with pytest.raises(UserError, match="6 images"):
        write_contact_sheet(folder, folder / "sheet.jpg")


def test_contact_sheet_rejects_corrupted_image(folder):
    (folder / "training/rgb/00000000.jpg").write_bytes(b"not a JPEG")
    with pytest.raises(UserError, match=r"00000000\.jpg"):
        write_contact_sheet(folder, folder / "sheet.jpg", rows=1, columns=1)


def test_contact_sheet_rejects_empty_sheet(folder):
    with pytest.raises(UserError, match="0 x 3"):
        write_contact_sheet(folder, folder / "sheet.jpg", rows=0, columns=3)


def test_contact_sheet_rejects_output_in_missing_folder(folder):
    with pytest.raises(UserError, match=r"nowhere/sheet\.jpg"):
        write_contact_sheet(folder, folder / "nowhere/sheet.jpg", rows=1, columns=1)
