"""Each benchmark, small: it runs, and its line of JSON is consistent. No time is tested."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import __main__ as run_all
from benchmarks import (
    augmentation,
    evaluation,
    export,
    latency,
    parts,
    root_recovery,
    scoring,
    startup,
    systems,
    throughput,
)
from m3dhmr_jax.checkpoints.weights import load_weights, save_weights
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import predict
from m3dhmr_jax.predict.jax_networks import JaxNetwork
from m3dhmr_jax.predict.methods import NetworkMethod

ROOT = Path(__file__).resolve().parents[2]
UNAVAILABLE = ("grain", "tensorflow_datasets", "array_record", "numba", "cv2")
LIGHT_MODULES = (
    "m3dhmr_jax.models.network",
    "m3dhmr_jax.losses",
    "m3dhmr_jax.training.step",
    "m3dhmr_jax.metrics",
    "m3dhmr_jax.camera",
    "m3dhmr_jax.camera.root_recovery",
    "m3dhmr_jax.inference",
    "benchmarks.latency",
    "benchmarks.throughput",
    "benchmarks.parts",
    "benchmarks.training_step",
    "benchmarks.evaluation",
    "benchmarks.startup",
)


@pytest.fixture
def line_of(tmp_path, monkeypatch, tiny_config):
    """Runs a benchmark on a tiny network and returns its line of JSON."""
    path = tmp_path / "results.jsonl"
    monkeypatch.setenv("BENCHMARK_RESULTS", str(path))
    for script in (latency, throughput, evaluation, export, startup, parts, augmentation):
        monkeypatch.setattr(script, "load_config", lambda name: tiny_config())

    def run(main, *args, **kwargs):
        main(*args, **kwargs)
        (line,) = path.read_text().splitlines()
        return json.loads(line)

    return run


@pytest.mark.long
def test_latency_ratios_are_those_of_its_medians(line_of):
    line = line_of(latency.main, (latency.REFERENCE,), rounds=2)
    assert (line["benchmark"], line["config"]) == ("latency", "configs/resnet18.py")
    plain, network, pipeline = (
        line[f"{part}_ms"] for part in ("network_plain", "network", "pipeline")
    )
    ratios = {"network_to_plain": network / plain, "pipeline_to_network": pipeline / network}
    for name, ratio in ratios.items():
        assert line["ratios"][name] == pytest.approx(ratio, rel=0.01)


@pytest.mark.long
def test_export_compares_every_runtime_with_jax(tmp_path, monkeypatch, tiny_config):
    pytest.importorskip("onnx")
    path = tmp_path / "results.jsonl"
    monkeypatch.setenv("BENCHMARK_RESULTS", str(path))
    monkeypatch.setattr(export, "load_config", lambda name: tiny_config())
    monkeypatch.setattr(export, "BATCHES", (1, 2))
    monkeypatch.setenv("M3DHMR_DATA_DIR", str(tmp_path / "no_detector"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    export.main(("tiny",), rounds=1, start_rounds=1)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("part") for line in lines] == ["network", "hands", None]
    names = export.installed()
    for line in lines[:2]:
        assert set(line["wall_ratios"]) == {f"{name}_{n}" for name in names for n in (1, 2)}
        assert line["wall_ratios"]["jax_2"] == line["cpu_ratios"]["jax_2"] == 1
    assert all(lines[2][f"{name}_ms"] > 0 for name in names)


@pytest.mark.long
def test_parts_walk_equals_the_network(tiny_network):
    network = tiny_network
    model = nnx.merge(network.eval_graphdef, network.params, network.stats)
    side = network.image_size
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, side, side, 3)), jnp.float32)

    @jax.jit
    def by_parts(image):
        return parts.walk(model, image, lambda name, modules, f, *inputs: f(modules, *inputs))

    expected = predict(network.eval_graphdef, network.params, network.stats, image)
    for part, whole in zip(by_parts(image), expected, strict=True):
        np.testing.assert_allclose(part, whole, atol=1e-5)


def test_parts_walk_uses_each_parameter_once(tiny_network):
    network = tiny_network
    model = nnx.merge(network.eval_graphdef, network.params, network.stats)
    side, seen = network.image_size, []

    def call(name, modules, function, *inputs):
        seen.extend(leaf.shape for leaf in jax.tree.leaves(nnx.split(modules, nnx.Param, ...)[1]))
        return function(modules, *inputs)

    jax.eval_shape(lambda image: parts.walk(model, image, call), jnp.zeros((1, side, side, 3)))
    assert sorted(seen) == sorted(leaf.shape for leaf in jax.tree.leaves(network.params))


@pytest.mark.long
def test_parts_times_every_part(line_of):
    line = line_of(parts.main, "tiny", rounds=1)
    named = ["stem", "stack1", "merge", "stack2", "landmarks", "sample_and_lift", "head", "network"]
    levels = {name for name in line if name.startswith("level_")}
    assert len(levels) == 4
    assert {f"{name}_ms" for name in named} | levels == {f"{name}_ms" for name in line["spread_ms"]}
    assert line["parts_together_ms"] > 0


@pytest.mark.long
def test_throughput_is_the_inverse_of_the_time(line_of):
    line = line_of(throughput.main, "tiny", batches=(1, 3), rounds=1)
    assert line["config"] == "tiny"
    for n in (1, 3):
        # Both are rounded.
        assert line["images_per_s"][str(n)] == pytest.approx(
            1000 * n / line[f"network_{n}_ms"], 0.05
        )


@pytest.mark.long
def test_evaluation_sums_its_parts(line_of):
    line = line_of(evaluation.main, "tiny", n=6)
    assert (line["samples"], line["batch"]) == (6, 4)
    times_ms = [2 * line["predictions_ms"], 2 * line["errors_ms"], line["scores_ms"]]
    assert line["seconds"] == pytest.approx(sum(times_ms) / 1000, abs=1e-3)


@pytest.mark.long
def test_startup_program_reaches_all_stages(
    tiny_config, tiny_network, monkeypatch, capsys, tmp_path
):
    weights = tmp_path / "weights.safetensors"
    save_weights(weights, tiny_network.params, tiny_network.stats, {})
    monkeypatch.setattr(systems, "load_config", lambda name: tiny_config())
    monkeypatch.setattr(sys, "argv", ["-c", "tiny", str(weights)])
    exec(startup.PROGRAM, {})
    ends = json.loads(capsys.readouterr().out)
    assert len(ends) == len(startup.STAGES)
    assert ends == sorted(ends)


@pytest.mark.long
@pytest.mark.parametrize("has_cache", [True, False])
def test_start_ms_uses_its_own_cache(has_cache, tmp_path, monkeypatch):
    other = tmp_path / "other"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(other))
    program = "import time, jax; jax.jit(lambda x: x + 1)(1.0)\n"
    program += "print('chatter'); start = time.time(); print([start + i for i in range(4)])"
    monkeypatch.setattr(startup, "PROGRAM", program)
    stages_ms = startup.start_ms("tiny", Path("w"), str(tmp_path / "own") if has_cache else "")
    assert list(stages_ms) == list(startup.STAGES)
    assert list(stages_ms.values())[1:] == pytest.approx([1000] * 3)
    assert (tmp_path / "own").exists() == has_cache
    assert not other.exists()


def test_startup_compares_caches(line_of, monkeypatch):
    caches = []

    def start_ms(name, weights, cache):
        assert load_weights(weights).params
        caches.append(cache)
        return dict(zip(startup.STAGES, [10.0, 20.0, 30.0, 1.0 * len(caches)], strict=True))

    monkeypatch.setattr(startup, "start_ms", start_ms)
    line = line_of(startup.main, "tiny", rounds=2)
    assert line["no_cache_until_first_hand_ms"] == 60
    assert line["full_cache_next_hand_ms"] == np.mean([3, 6])
    none, empty, full = caches[:3]
    assert none == ""
    assert empty == full != caches[4]  # Each round starts with an empty one.


@pytest.mark.long
def test_augmentation_times_both(line_of, monkeypatch):
    monkeypatch.setattr(augmentation, "N_IMAGES", 2)
    line = line_of(augmentation.main, rounds=1)
    assert min(line["jitted_ms"], line["opencv_ms"]) > 0


@pytest.mark.long
def test_root_recovery_solves_both(line_of, monkeypatch):
    monkeypatch.setattr(root_recovery, "N_PROBLEMS", 4)
    monkeypatch.setattr(root_recovery, "BATCH", 8)
    line = line_of(root_recovery.main, root_recovery.make_problems(), rounds=1)
    assert set(line["errors_mm"]) == set(line["solves_per_s"]) == {"ours", "slsqp"}
    without, with_masks = (line["silhouettes_mm"][name][0] for name in ("without", "with"))
    assert with_masks < without


@pytest.mark.long
def test_masks(line_of, monkeypatch, tiny_network):
    """Works for an untrained network, too, which places hands anywhere."""
    masks = pytest.importorskip("benchmarks.masks")
    network = tiny_network
    method = NetworkMethod(JaxNetwork(network, load_builtin(), network.params, network.stats))
    predictor = masks.HandMeshPredictor(method)
    monkeypatch.setattr(masks.HandMeshPredictor, "from_checkpoint", lambda *_: predictor)
    line = line_of(masks.main, ["--checkpoint", "tiny", "--count", "3"])
    errors_mm = [errors["root_mean"] for errors in line["errors_mm"].values()]
    assert len(set(errors_mm)) == 3
    assert np.isfinite(errors_mm).all()


@pytest.mark.long
def test_scoring_measures_time_and_memory(line_of):
    line = line_of(scoring.main, 3)
    assert line["samples"] == 3
    assert line["seconds"] > 0
    assert line["peak_mb"] > 0


@pytest.mark.long
def test_loader_times_every_setting(line_of, monkeypatch):
    pytest.importorskip("grain")
    pytest.importorskip("numba")
    from benchmarks import loader

    monkeypatch.setattr(loader, "BATCH", 4)
    line = line_of(loader.main, images=8, settings=((1, 0), (2, 0)), batches=2, rounds=1)
    assert set(line["images_per_s"]) == {"threads_1_workers_0", "threads_2_workers_0"}


def test_main_runs_all_and_names_failures(monkeypatch, capsys):
    ran = []

    def run(command, check):
        ran.append(command[2])
        return subprocess.CompletedProcess(command, returncode=int("parts" in command[2]))

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit, match="parts"):
        run_all.main("gpu")
    assert ran == [f"benchmarks.{line.split()[0]}" for line in run_all.SCRIPTS["gpu"]]
    with pytest.raises(SystemExit, match="tpu"):
        run_all.main("tpu")


@pytest.mark.parametrize("line", sum(run_all.SCRIPTS.values(), ()))
def test_readme_lists_every_script(line):
    assert f"| `{line.split()[0]}` |" in (ROOT / "benchmarks" / "README.md").read_text()


@pytest.mark.long
def test_light_modules_import_without_data_libraries():
    code = "import importlib, sys\n"
    code += f"for name in {UNAVAILABLE}: sys.modules[name] = None\n"
    code += f"for name in {LIGHT_MODULES}: importlib.import_module(name)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
