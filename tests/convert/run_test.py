import numpy as np
import pytest

from m3dhmr_jax import cli
from m3dhmr_jax.builders import hierarchy_id
from m3dhmr_jax.checkpoints.weights import load_weights
from m3dhmr_jax.convert import torch_file
from m3dhmr_jax.convert.run import abstract_network
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import build_hierarchy
from m3dhmr_jax.mesh.hierarchy_file import load_hierarchy
from tests.conftest import exit_code
from tests.convert.pytorch_files import BLOCKS, mobrecon, torchvision_resnet
from tests.convert.torch_writer import Call, Name, save_legacy, save_zip

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of a ResNet-18, of a MobRecon, and of its mesh hierarchy."""
    folder = tmp_path_factory.mktemp("public")
    hierarchy = build_hierarchy(load_builtin())
    save_legacy(folder / "resnet18.pth", torchvision_resnet(BLOCKS[18]))
    checkpoint = {
        "model_state_dict": mobrecon("dsconv", lambda a: abstract_network(a, hierarchy)),
        "epoch": 38,
    }
    save_zip(folder / "mobrecon.pt", checkpoint)
    write_hierarchy(folder / "hierarchy.npz", hierarchy, hierarchy.coarsest)
    return folder


def write_hierarchy(path, hierarchy, coarsest):
    arrays = {
        f"{name}_{i}": getattr(level, name)
        for name in ("spirals", "up_indices", "up_weights")
        for i, level in enumerate(hierarchy.levels)
    }
    np.savez(path, coarsest=coarsest, **arrays)


def convert(*arguments):
    return exit_code(cli.main, ["convert", *map(str, arguments)])


def error_of(capsys, *arguments):
    """The line of an error."""
    assert convert(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_convert_writes_a_resnet_as_an_initial_encoder(folder, tmp_path, capsys):
    out = tmp_path / "weights" / "resnet18.safetensors"
    assert convert(folder / "resnet18.pth", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "resnet18.pth: ResNet-18" in printed
    assert "used: 100 tensors, for 195 of the network's" in printed
    assert "ignored: 2, ImageNet classifier, not needed: fc.weight, fc.bias" in printed
    assert "ignored: 20, BatchNorm counters, not needed: bn1.num_batches_tracked, " in printed
    assert (
        "random: 115 of the network's, which such files do not contain: backbone/encoding_conv, "
        in printed
    )
    assert "decoder, landmark_head" in printed
    written = load_weights(out)
    assert len(written.params) + len(written.stats) == 195
    assert written.metadata["network"] == "ResNet-18"
    assert written.metadata["from"] == "resnet18.pth"
    assert "hierarchy" not in written.metadata


def test_convert_writes_mobrecon_as_a_network(folder, tmp_path, capsys):
    out = tmp_path / "mobrecon.safetensors"
    hierarchy = folder / "hierarchy.npz"
    assert convert(folder / "mobrecon.pt", "--hierarchy", hierarchy, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "MobRecon-DenseStack (dsconv)" in printed
    assert "layers MobRecon never calls: model_state_dict.backbone.dense_stack1.dense4" in printed
    assert "ignored: 1, not tensors: epoch=38" in printed
    assert "random" not in printed
    assert load_weights(out).metadata["hierarchy"] == hierarchy_id(load_hierarchy(hierarchy))


def test_convert_rejects_mobrecon_with_another_hierarchy(folder, tmp_path, capsys):
    file, out = folder / "mobrecon.pt", tmp_path / "mobrecon.safetensors"
    assert "--hierarchy" in error_of(capsys, file, "--out", out)
    hierarchy = load_hierarchy(folder / "hierarchy.npz")
    write_hierarchy(tmp_path / "other.npz", hierarchy, hierarchy.coarsest + 1)
    printed = error_of(capsys, file, "--out", out, "--hierarchy", tmp_path / "other.npz")
    assert "decoder3d.upsample (49, 21) for decoder/lifting_matrix (50, 21)" in printed
    assert not list(tmp_path.glob("*.safetensors*"))


def test_convert_takes_one_of_several_networks(folder, tmp_path, capsys):
    path, out = tmp_path / "two.pth", tmp_path / "one.safetensors"
    network = torch_file.read(folder / "resnet18.pth").arrays
    save_zip(path, {"model": network, "ema": network})
    assert "--prefix=model." in error_of(capsys, path, "--out", out)
    assert convert(path, "--out", out, "--prefix=ema.") == 0
    printed = capsys.readouterr().out
    assert "outside the network, whose names start with ema.: model.conv1.weight" in printed
    assert "used: 100 tensors" in printed


def test_convert_rejects_other_networks_and_paths(folder, tmp_path, capsys):
    path, out = tmp_path / "other.pth", tmp_path / "out.safetensors"
    save_zip(path, {"features.0.weight": np.zeros((4, 3, 3, 3), np.float32)})
    assert "other.pth" in error_of(capsys, path, "--out", out)
    narrow = {
        name: x[..., :2] if x.ndim else x for name, x in torchvision_resnet(BLOCKS[18]).items()
    }
    save_zip(path, narrow)
    printed = error_of(capsys, path, "--out", out)
    assert "layer1.0.conv1.weight (64, 64, 3, 2) for backbone/stack1/stages/0/layers/0/" in printed
    assert "absent.pth" in error_of(capsys, tmp_path / "absent.pth", "--out", out)
    assert "out.npz" in error_of(capsys, path, "--out", tmp_path / "out.npz")
    assert "absent.npz" in error_of(
        capsys, folder / "mobrecon.pt", "--out", out, "--hierarchy", tmp_path / "absent.npz"
    )
    assert not out.exists()


def test_convert_rejects_a_harmful_file(tmp_path, capsys):
    canary, out = tmp_path / "canary", tmp_path / "out.safetensors"
    save_zip(tmp_path / "evil.pth", {"evil": Call(Name("os", "system"), (f"touch {canary}",))})
    assert "os.system" in error_of(capsys, tmp_path / "evil.pth", "--out", out)
    assert not canary.exists()
    assert not out.exists()
