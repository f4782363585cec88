import pytest

pytest.importorskip("litert_converter", reason='the extra "litert" is not installed')
pytest.importorskip("ai_edge_litert", reason='the extra "litert" is not installed')

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.litert import export_litert
from m3dhmr_jax.export.trained import Trained
from m3dhmr_jax.hand import load_builtin


@pytest.fixture
def trained(tiny_network):
    return Trained(tiny_network, load_builtin(), "{}")


@pytest.mark.long
def test_litert_equals_jax(trained, tmp_path, capsys):
    """The converter computed `sample_at` wrongly while it contracted two axes at once."""
    export_litert(trained, tmp_path / "hand.tflite", False)
    assert (tmp_path / "hand.tflite").stat().st_size > 100_000
    assert "64 drawn hands" in capsys.readouterr().out


def test_litert_has_no_half(trained, tmp_path):
    with pytest.raises(UserError, match="--half"):
        export_litert(trained, tmp_path / "hand.tflite", True)
