import cv2
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict import demo


def test_demo_rejects_a_folder_with_other_content(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "truth.json").write_text("mine")
    with pytest.raises(UserError, match="nothing of yours"):
        demo.show_demo(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="nothing of yours"):
        demo.show_demo(tmp_path / "file")
    assert (photos / "truth.json").read_text() == "mine"


@pytest.mark.long
def test_demo_draws_a_sheet_twice(detector_weights, tmp_path, capsys):
    for _ in range(2):
        demo.show_demo(tmp_path / "demo")
        printed = capsys.readouterr().out
        assert "of 10 hands found" in printed
        assert "m3dhmr predict my_photo.jpg" in printed
        (tmp_path / "demo" / "photos" / "mine.txt").write_text("mine")
    sheet = cv2.imread(str(tmp_path / "demo" / "hands.jpg"))
    assert sheet is not None
    assert len(list((tmp_path / "demo" / "photos").glob("*.jpg"))) == 6
    assert (tmp_path / "demo" / "photos" / "mine.txt").read_text() == "mine"
