import atexit
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Read when jax starts. Tests run each program once, so it should compile fast.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
OPTIMIZED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}".strip()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Shared by tests and the programs that they start, which read the environment.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="m3dhmr_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
ROOT = Path(__file__).resolve().parent.parent


def exit_code(command, *args):
    """The exit code of a command: 0 if it returns."""
    try:
        command(*args)
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture
def no_room():
    """Once called, no file may grow beyond a few bytes: a quota without a disk."""
    resource = pytest.importorskip("resource")  # POSIX only.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size=2000: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of published implementations' outputs; tests that need it skip without it."""
    if "REFERENCE_DIR" not in os.environ:
        pytest.skip("no reference data: set REFERENCE_DIR to their folder")
    return Path(os.environ["REFERENCE_DIR"])


@pytest.fixture(scope="session")
def freihand_folder(tmp_path_factory) -> Path:
    """Ten training images of five hands and seven test images, noise, in the official layout."""
    simplejpeg = pytest.importorskip("simplejpeg")  # Tests of the network run without it.
    folder = tmp_path_factory.mktemp("freihand")
    rng = np.random.default_rng(0)
    for part, n, versions in (("training", 5, 2), ("evaluation", 7, 1)):
        (folder / part / "rgb").mkdir(parents=True)
        for i in range(n * versions):
            image = rng.integers(0, 256, (224, 224, 3), np.uint8)
            image[:] = image[:8, :8].repeat(28, 0).repeat(28, 1)  # Large blotches suit JPEG.
            jpeg = simplejpeg.encode_jpeg(image)
            (folder / part / "rgb" / f"{i:08d}.jpg").write_bytes(jpeg)
        shapes = {"K": (3, 3), "xyz": (21, 3), "verts": (778, 3), "scale": ()}
        for name, shape in shapes.items():
            values = rng.normal(size=(n, *shape))
            if name in ("xyz", "verts"):
                values = 0.03 * values + [0, 0, 0.6]  # As large as hands, and as near.
            values = values.tolist()
            (folder / f"{part}_{name}.json").write_text(json.dumps(values))
    (folder / "training" / "mask").mkdir()
    for i in range(5):
        mask = np.zeros((224, 224, 1), np.uint8)
        mask[40 + i : 140, 60:150] = 255
        jpeg = simplejpeg.encode_jpeg(mask, colorspace="GRAY", quality=95)
        (folder / "training" / "mask" / f"{i:08d}.jpg").write_bytes(jpeg)
    return folder


TINY = {
    "batch_size": 4,
    "model.image_size": 64,
    "model.blocks": (1, 1, 1, 1),
    "model.width": 4,
    "model.encoding": 8,
    "model.channels": (8, 8, 8, 4),
    "model.kernels": 2,
    "eval.batch_size": 4,
}


@pytest.fixture(scope="session")
def tiny_config():
    """A function that creates the config of a network that trains in a second, with changes."""
    from configs import quickstart

    def make(**changes):
        config = quickstart.get_config()
        config.update_from_flattened_dict(TINY | changes)
        return config

    return make


@pytest.fixture(scope="session")
def run_main(tmp_path_factory):
    """Runs main.py with that config on twelve synthetic images, rendered once.

    Takes a workdir and flags; `code`, a program to run instead of main.py; another config;
    `environment`, variables to add.
    """
    data = tmp_path_factory.mktemp("data")
    sizes = TINY | {
        "epochs": 8.0,
        "checkpoint_every_epochs": 2.0,
        "eval.every_epochs": 4.0,
        "optim.lr_decay_epochs": (6.0,),
        "data.source.folder": data / "images",
        "data.source.prepared": data / "prepared",
        "data.source.synthetic_train": 12,
        "data.source.synthetic_test": 6,
    }
    common = [f"--config.{name}={value}" for name, value in sizes.items()]

    def command(workdir, *flags, code=None, config="quickstart.py"):
        program = ["main.py"] if code is None else ["-c", code]
        own = [f"--config=configs/{config}", *common, f"--workdir={workdir}", *flags]
        return [sys.executable, *program, *own]

    def run(*args, environment=None, **options):
        return subprocess.run(
            command(*args, **options),
            cwd=ROOT,
            env=os.environ | (environment or {}),
            capture_output=True,
            text=True,
            check=False,
        )

    def start(workdir, *flags):
        """Only starts it; its output goes to the file `output`: a pipe could fill up."""
        with (workdir.parent / f"{workdir.name}.output").open("w+") as file:
            process = subprocess.Popen(command(workdir, *flags), cwd=ROOT, stderr=file, stdout=file)
        process.output = Path(file.name)
        return process

    run.data, run.start = data, start
    return run


@pytest.fixture(scope="session")
def in_two_processes():
    """Calls `start(index, coordinator, environment)` for both processes of a run at once.

    Each has two devices. Returns both results, in order.
    """

    def run(start):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        environment = {"JAX_NUM_CPU_DEVICES": "2"}
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda i: start(i, coordinator, environment), range(2)))

    return run


@pytest.fixture(scope="session")
def trained(run_main, tmp_path_factory):
    """The workdir of a finished run of 24 steps, and its result."""
    workdir = tmp_path_factory.mktemp("trained")
    result = run_main(workdir)
    assert result.returncode == 0, result.stderr
    return workdir, result


def fill(network, seed=0):
    """An abstract network with parameters that need no compilation and give the mesh an extent.

    Kernels keep the size of a signal, BatchNorm is almost the identity.
    """
    rng = np.random.default_rng(seed)

    def array(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            value = rng.uniform(0.8, 1.2, leaf.shape)
        elif leaf.ndim < 2:
            value = rng.normal(0, 0.1, leaf.shape)
        else:
            value = rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        return jax.numpy.asarray(value, leaf.dtype)

    params, stats = (
        jax.tree_util.tree_map_with_path(array, tree) for tree in (network.params, network.stats)
    )
    return network._replace(params=params, stats=stats)


@pytest.fixture(scope="session")
def tiny_network(tiny_config):
    """The network of `tiny_config` around the built-in hand, untrained."""
    from m3dhmr_jax.builders import create_network
    from m3dhmr_jax.hand import load_builtin

    return fill(create_network(tiny_config(), load_builtin(), abstract=True))


@pytest.fixture(scope="session")
def hand_batch():
    """Four rotated hands in front of a camera, on images of coloured blotches."""
    from m3dhmr_jax.data.fake import fake_batch

    return fake_batch(4)


@pytest.fixture(scope="session")
def detector_weights():
    """The installed weights of the hand detector; tests that need them skip without."""
    from m3dhmr_jax.predict.detector_weights import COMMAND, load_detector_weights, weights_path

    if not weights_path().is_file():
        pytest.skip(f"the hand detector is not installed: {COMMAND}")
    return load_detector_weights()


@pytest.fixture(scope="session")
def detector(detector_weights):
    """The hand detector, optimised: unlike other programs of the tests it runs often."""
    from m3dhmr_jax.models.hand_detector import detect_palms, find_landmarks
    from m3dhmr_jax.predict.detector import HandDetector
    from m3dhmr_jax.predict.jax_networks import JaxDetector

    def jit(network):
        return jax.jit(network, compiler_options=OPTIMIZED)

    networks = JaxDetector(detector_weights)
    palms, landmarks = jax.tree.map(jnp.asarray, detector_weights)
    networks._detect_palms = functools.partial(jit(detect_palms), palms)
    networks._find_landmarks = functools.partial(jit(find_landmarks), landmarks)
    return HandDetector(networks)


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real photos; tests that need it skip without it."""
    if "REAL_DIR" not in os.environ:
        pytest.skip("no real photos: set REAL_DIR to their folder")
    return Path(os.environ["REAL_DIR"])


CHROMIUM_FLAGS = [
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    # Pages must not need a network, only what serves them here.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


@pytest.fixture(scope="session")
def launch_chromium():
    """Starts the system's Chromium with further flags; tests skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((path for path in map(shutil.which, names) if path), None)
    if path is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    with sync_api.sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(
            executable_path=path, args=[*CHROMIUM_FLAGS, *flags], chromium_sandbox=False
        )


@pytest.fixture(scope="session")
def chromium(launch_chromium):
    """The system's Chromium."""
    with launch_chromium() as browser:
        yield browser
