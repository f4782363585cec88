"""What runs networks fastest: JAX, onnxruntime and OpenVINO, in turn, on the CPU.

    python -m benchmarks.export [--rounds 20] [--start_rounds 5] [--network configs/resnet18.py]

For untrained networks and 1, 8 and 32 hands: the network alone, and with the placement of its
hands; for the detector, its two networks. Wall time, CPU time of all threads, and the ratios of
both to JAX's of the same run. Then the seconds from the start of a process to its first hand, in
processes of their own, whose caches an uncounted process has filled.
"""

import argparse
import functools
import importlib.metadata
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import jax
import numpy as np

from benchmarks.measure import Timing, interleaved, record, table, timing
from benchmarks.systems import load_config
from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.checkpoints.run_config import network_text
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.check import drawn_hands, random_rotations
from m3dhmr_jax.export.onnx_network import network_model
from m3dhmr_jax.export.trained import load_trained
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import predict_crops
from m3dhmr_jax.models.fast.folding import fold
from m3dhmr_jax.predict.detector import HandDetector
from m3dhmr_jax.predict.detector_weights import weights_path
from m3dhmr_jax.predict.runtimes import JAX, RUNTIMES, OnnxRuntime, find_runtime

NETWORKS = (
    "configs/quickstart.py",
    "configs/resnet18.py",
    "configs/mobrecon.py:backbone=densestack",
)
BATCHES = (1, 8, 32)
UPRIGHT = np.eye(3)[[2, 0, 1]]
Calls = dict[str, Callable[[], object]]
PROGRAM = """
import sys, time
import cv2
from m3dhmr_jax import HandMeshPredictor
predictor = HandMeshPredictor.from_checkpoint(sys.argv[2], runtime=sys.argv[1])
image = cv2.imread(sys.argv[3])[..., ::-1]
boxes = None if predictor._detector else (120, 90, 240, 300)
assert len(predictor(image, boxes).verts_m)
print(time.time())
"""


def installed() -> list[str]:
    """The runtimes whose packages are installed."""
    names = []
    for name, runtime in RUNTIMES.items():
        try:
            if isinstance(runtime, OnnxRuntime):
                runtime.check_installed()
        except UserError as error:
            print(f"without {name}: {error}")
        else:
            names.append(name)
    return names


def network_calls(weights: Path, names: list[str]) -> dict[str, Calls]:
    """By part: "network" and "hands", by runtime and batch."""
    trained = load_trained(weights)
    network, size = trained.network, trained.network.image_size
    graphdef, folded = fold(network.eval_graphdef, network.params, network.stats)
    run_jax = functools.partial(jax.jit(functools.partial(predict_crops, graphdef)), folded, {})
    content = network_model(network, trained.hand).SerializeToString()
    crops = drawn_hands(trained.hand, random_rotations(max(BATCHES)), size)
    img_from_crop = np.repeat(np.eye(2, 3, dtype=np.float32)[None], len(crops), axis=0)
    k = np.array([[2 * size, 0, size / 2], [0, 2 * size, size / 2], [0, 0, 1]], np.float32)
    parts: dict[str, Calls] = {"network": {}, "hands": {}}
    for name in names:
        runtime = find_runtime(name)
        run = runtime.start(content) if isinstance(runtime, OnnxRuntime) else run_jax
        place = runtime.load_network(weights)
        for n in BATCHES:
            hands = crops[:n], img_from_crop[:n], np.repeat(k[None], n, axis=0), None
            parts["network"][f"{name}_{n}"] = functools.partial(run, crops[:n])
            parts["hands"][f"{name}_{n}"] = functools.partial(place, *hands)
    return parts


def detector_calls(names: list[str]) -> dict[str, Calls]:
    """By network, by runtime and batch."""
    parts: dict[str, Calls] = {"detect_palms": {}, "find_landmarks": {}}
    for name in names:
        networks = find_runtime(name).load_detector(weights_path())
        for part, side in (("detect_palms", 192), ("find_landmarks", 224)):
            images = drawn_hands(load_builtin(), random_rotations(max(BATCHES)), side)
            for n in BATCHES:
                call = functools.partial(getattr(networks, part), images[:n])
                parts[part][f"{name}_{n}"] = call
    return parts


def measure(network: str, parts: Mapping[str, Calls], rounds: int) -> None:
    """Prints and records the times of a network's parts."""
    rows = []
    for part, calls in parts.items():
        wall = interleaved(calls, rounds)
        cpu = interleaved(calls, rounds, warm_up=0, clock=time.process_time)
        ratios = {
            kind: {key: round(to_jax(times, key), 3) for key in calls}
            for kind, times in (("wall_ratios", wall), ("cpu_ratios", cpu))
        }
        record(
            "export",
            {f"wall_{key}": each for key, each in wall.items()}
            | {f"cpu_{key}": each for key, each in cpu.items()},
            network=network,
            part=part,
            runtime_versions=runtime_versions(),
            **ratios,
        )
        for key in calls:
            times = wall[key].median_ms, cpu[key].median_ms
            rows.append([part, key, *times, *(ratios[kind][key] for kind in ratios)])
    print(f"\n{network}")
    print(table(["part", "runtime_hands", "wall ms", "CPU ms", "wall to JAX", "CPU to JAX"], rows))


def to_jax(times: Mapping[str, Timing], key: str) -> float:
    _, _, n = key.rpartition("_")
    return times[key].median_ms / times[f"{JAX}_{n}"].median_ms


def runtime_versions() -> dict[str, str]:
    versions = {}
    for runtime in RUNTIMES.values():
        if isinstance(runtime, OnnxRuntime):
            try:
                versions[runtime.package] = importlib.metadata.version(runtime.package)
            except importlib.metadata.PackageNotFoundError:
                continue
    return versions


def measure_starts(network: str, weights: Path, names: list[str], rounds: int) -> None:
    """Prints and records the time from the start of a process to its first hand."""
    image = weights.with_suffix(".png")
    cv2.imwrite(str(image), drawn_hands(load_builtin(), UPRIGHT[None], 480)[0][..., ::-1])
    times_ms: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1 + rounds):
        for name in names:
            command = [sys.executable, "-c", PROGRAM, name, str(weights), str(image)]
            start = time.time()
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            if number:
                times_ms[name].append(1000 * (float(done.stdout) - start))
    timings = {name: timing(each) for name, each in times_ms.items()}
    detector = HandDetector.is_installed()
    versions = runtime_versions()
    record(
        "export_start", timings, network=network, runtime_versions=versions, with_detector=detector
    )
    print(f"\n{network}: seconds from the start of a process to its first hand")
    print(table(["runtime", "s"], [[name, t.median_ms / 1000] for name, t in timings.items()]))


def main(networks: tuple[str, ...] = NETWORKS, *, rounds: int = 20, start_rounds: int = 5) -> None:
    names = installed()
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(networks):
            config = load_config(name)
            network = create_network(config, load_hand(config))
            weights = Path(folder, f"{i}.safetensors")
            metadata = {"config": network_text(config)}
            save_weights(weights, network.params, network.stats, metadata)
            measure(name, network_calls(weights, names), rounds)
            measure_starts(name, weights, names, start_rounds)
        if HandDetector.is_installed():
            measure("detector", detector_calls(names), rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", action="append", help="a config, or several")
    parser.add_argument("--rounds", type=int, default=20, help="measured rounds")
    parser.add_argument("--start_rounds", type=int, default=5, help="measured processes")
    args = parser.parse_args()
    main(tuple(args.network or NETWORKS), rounds=args.rounds, start_rounds=args.start_rounds)
