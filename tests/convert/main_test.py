import subprocess
import sys

import numpy as np
import pytest

from m3dhmr_jax.builders import hierarchy_id
from m3dhmr_jax.checkpoints.weights import load_weights
from m3dhmr_jax.convert import torch_file
from m3dhmr_jax.convert.__main__ import abstract_network, main
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import build_hierarchy
from m3dhmr_jax.mesh.hierarchy_file import load_hierarchy
from tests.convert.pytorch_files import BLOCKS, mobrecon, torchvision_resnet
from tests.convert.torch_writer import Call, Name, save_legacy, save_zip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of a ResNet-18 and of a MobRecon, and hierarchy."""
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


def refused(capsys, *arguments):
    """What the command says when it ends with an error."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert capsys.readouterr().out == ""
    assert str(end.value).startswith("Error: ")
    assert "\n" not in str(end.value)
    return str(end.value)


def test_a_resnet_becomes_a_start(folder, tmp_path, capsys):
    out = tmp_path / "weights" / "resnet18.safetensors"
    main([str(folder / "resnet18.pth"), "--out", str(out)])
    said = capsys.readouterr().out
    assert "resnet18.pth: ResNet-18" in said
    assert "used: 100 tensors, which fill 195 of the network's" in said
    assert "left: 2, ImageNet classifier, not needed: fc.weight, fc.bias" in said
    assert "left: 20, BatchNorm counters, not needed: bn1.num_batches_tracked, " in said
    assert "fresh: 115 of the network's, which no such file has: backbone/encoding_conv, " in said
    assert "backbone/stack1/lateral" in said
    assert "decoder, landmark_head" in said
    written = load_weights(out)
    assert len(written.params) + len(written.stats) == 195
    assert written.metadata["network"] == "ResNet-18"
    assert written.metadata["from"] == "resnet18.pth"
    assert "hierarchy" not in written.metadata


def test_mobrecon_becomes_a_network_of_its_tables(folder, tmp_path, capsys):
    out = tmp_path / "mobrecon.safetensors"
    hierarchy = folder / "hierarchy.npz"
    main([str(folder / "mobrecon.pt"), "--hierarchy", str(hierarchy), "--out", str(out)])
    said = capsys.readouterr().out
    assert "MobRecon-DenseStack (dsconv)" in said
    assert "layers MobRecon never calls: model_state_dict.backbone.dense_stack1.dense4" in said
    assert "left: 1, no tensors: epoch=38" in said
    assert "fresh" not in said
    assert load_weights(out).metadata["hierarchy"] == hierarchy_id(load_hierarchy(hierarchy))


def test_mobrecon_is_refused_without_tables_and_with_others(folder, tmp_path, capsys):
    file, out = folder / "mobrecon.pt", tmp_path / "mobrecon.safetensors"
    assert "give it with --hierarchy" in refused(capsys, file, "--out", out)
    hierarchy = load_hierarchy(folder / "hierarchy.npz")
    write_hierarchy(tmp_path / "other.npz", hierarchy, hierarchy.coarsest + 1)
    said = refused(capsys, file, "--out", out, "--hierarchy", tmp_path / "other.npz")
    assert "decoder3d.upsample (49, 21) for decoder/lifting_matrix (50, 21)" in said
    assert "nothing was written" in said
    assert not list(tmp_path.glob("*.safetensors*"))


def test_one_of_several_networks_can_be_chosen(folder, tmp_path, capsys):
    path, out = tmp_path / "two.pth", tmp_path / "one.safetensors"
    network = torch_file.read(folder / "resnet18.pth").arrays
    save_zip(path, {"model": network, "ema": network})
    assert "choose one, as with --under=model." in refused(capsys, path, "--out", out)
    main([str(path), "--out", str(out), "--under=ema."])
    said = capsys.readouterr().out
    assert "outside the network, whose names start with ema.: model.conv1.weight" in said
    assert "used: 100 tensors" in said


def test_other_networks_and_bad_paths_are_refused(folder, tmp_path, capsys):
    path, out = tmp_path / "other.pth", tmp_path / "out.safetensors"
    save_zip(path, {"features.0.weight": np.zeros((4, 3, 3, 3), np.float32)})
    assert "supported are torchvision's" in refused(capsys, path, "--out", out)
    narrow = {
        name: x[..., :2] if x.ndim else x for name, x in torchvision_resnet(BLOCKS[18]).items()
    }
    save_zip(path, narrow)
    said = refused(capsys, path, "--out", out)
    assert "looks like ResNet-18, but has other sizes" in said
    assert "layer1.0.conv1.weight (64, 64, 3, 2) for backbone/stack1/stages/0/layers/0/" in said
    assert "absent.pth" in refused(capsys, tmp_path / "absent.pth", "--out", out)
    assert "must end in .safetensors" in refused(capsys, path, "--out", tmp_path / "out.npz")
    assert "absent.npz" in refused(
        capsys, folder / "mobrecon.pt", "--out", out, "--hierarchy", tmp_path / "absent.npz"
    )
    assert not out.exists()


def test_a_harmful_file_is_refused_in_one_line(tmp_path):
    canary, out = tmp_path / "canary", tmp_path / "out.safetensors"
    save_zip(tmp_path / "evil.pth", {"evil": Call(Name("os", "system"), (f"touch {canary}",))})
    command = [sys.executable, "-m", "m3dhmr_jax.convert", tmp_path / "evil.pth", "--out", out]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "it contains os.system" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not canary.exists()
    assert not out.exists()
