"""What the image side of a trained network makes of a prepared dataset, computed once and kept.

A training image has two crops, drawn once from the augmentation that the network itself was trained
with: decoders then learn from features as noisy as in training, and the consistency of two views
can be a loss. A test image has one, around the hand as prediction sees it, without anything random.
Every decoder reads the same arrays, so differences between decoders are not those of crops.

The features lie in files of CHUNK images each, which appear complete or not at all.
Axes: i images, k crops of an image, y x encoding map, h w finest map, e c channels, n landmarks,
v vertices.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.checkpoints.manager import digest
from m3dhmr_jax.checkpoints.restore import NEWEST, EvalState, restore_eval_state
from m3dhmr_jax.checkpoints.run_config import load_config
from m3dhmr_jax.data import loader
from m3dhmr_jax.data.appearance import UNCHANGED, AppearanceConfig
from m3dhmr_jax.data.augment import AugmentConfig, augmented_view, two_views
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.models.network import M3DHMR
from m3dhmr_jax.runtime.files import write_atomic
from m3dhmr_jax.types import Batch, Config, View

CHUNK = 250
SEED = 0
MANIFEST = "manifest.json"
# Of AugmentConfig: 0 leaves the crop around the hand, and its colors, as they are.
RANDOM_FIELDS = (
    *("scale_jitter", "max_angle_deg", "rotation_probability", "stretch", "shift"),
    *("brightness", "contrast", "saturation", "hue"),
)


class Features(NamedTuple):
    """All that a decoder may read of crops; leading axes are those of the images or of a batch."""

    encoding: Float[Any, "*i y x e"]  # F^e of eq. 1.
    finest: Float[Any, "*i h w c"]  # The second hourglass' output, at a quarter of the crop's side.
    landmarks_01: Float[Any, "*i n 2"]  # Predicted: L^p.


class Examples(NamedTuple):
    features: Features
    # True, in the units of `View`.
    verts: Float[Any, "*i v 3"]
    angle_rad: Float[Any, "*i"]


@dataclasses.dataclass(frozen=True)
class ImageSide:
    """A trained network without its decoder, and the run or weights file that it is from."""

    source: Path
    config: Config
    hand: HandModel
    network: Network
    state: EvalState
    weights_id: str


def load_image_side(source: Path) -> ImageSide:
    """The network of a run's newest checkpoint, or of a weights file.

    Raises:
        UserError: if there is none, it predicts no mesh, or its backbone is not "resnet".
    """
    config = load_config(source)
    if config.model.backbone != "resnet":
        raise UserError(
            f"{source}: model.backbone={config.model.backbone!r} must be 'resnet': the finest map "
            "is that of its second hourglass"
        )
    hand = load_hand(config)
    network = create_network(config, hand, abstract=True)
    state = restore_eval_state(network, source, str(source) if source.is_file() else NEWEST)
    arrays = (state.params["backbone"], state.params.get("landmark_head", {}), state.stats)
    return ImageSide(source, config, hand, network, state, digest(arrays))


def image_features(model: M3DHMR, image: Float[Any, "b s s 3"]) -> Features:
    """What `model` makes of crops before its decoder."""
    backbone: Any = model.backbone
    top, bottom = backbone.stack2(backbone.features(image).merged)
    landmarks_01 = model.landmark_head(backbone.landmark_map_conv(top))
    return Features(backbone.encoding_conv(bottom), top, landmarks_01)


def compute(image_side: ImageSide, data: Path, folder: Path, chunk: int = CHUNK) -> None:
    """Computes the features of `data` that `folder` lacks, and checks some of those that it has.

    Training images beyond a multiple of `chunk` are left out.

    Raises:
        UserError: if the folder holds the features of other weights, images or crops.
    """
    n_train, n_test = (loader.size(data, split) for split in ("train", "test"))
    chunk = min(chunk, n_train)
    wanted = {
        "checkpoint": str(image_side.source.absolute()),
        "weights": image_side.weights_id,
        "data": str(data.absolute()),
        "train": n_train - n_train % chunk,
        "test": n_test,
        "chunk": chunk,
        "augment": image_side.config.augment.to_dict(),
        "appearance": image_side.config.appearance.to_dict(),
    }
    wanted = json.loads(json.dumps(wanted))  # As it will be read back.
    _check_manifest(folder, wanted)
    with write_atomic(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(wanted, indent=2) + "\n")
    for split in ("train", "test"):
        _compute_split(image_side, data, folder, split)


def _check_manifest(folder: Path, wanted: dict[str, Any]) -> None:
    if not (folder / MANIFEST).is_file():
        return
    found = read_manifest(folder)
    check_weights(folder, found, wanted["checkpoint"], wanted["weights"])
    different = [name for name in wanted if found.get(name) != wanted[name]]
    if different:
        raise UserError(
            f"{folder}: its features were computed with other settings "
            f"({', '.join(different)}): choose another folder, or delete it"
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the features in `folder` are of; raises UserError if there are none."""
    file = folder / MANIFEST
    if not file.is_file():
        raise UserError(
            f"{file}: no such file; compute features there with python -m benchmarks.decoders "
            "features"
        )
    return json.loads(file.read_text(encoding="utf-8"))


def check_weights(folder: Path, manifest: dict[str, Any], source: str, weights_id: str) -> None:
    """Raises UserError if the features in `folder` are not those of these weights."""
    if manifest["weights"] != weights_id:
        raise UserError(
            f"{folder}: its features are of the weights {manifest['weights'][:12]}, but "
            f"{source} has {weights_id[:12]}: compute those of this network into another folder, "
            "or delete this one"
        )


Cut = Callable[[Any, Batch, int], tuple[Features, View]]


def training_cut(image_side: ImageSide) -> Cut:
    """A function (weights, batch, its number) to two random crops of each image, (i, 2, ...)."""
    augment = _augmentation(image_side)

    @jax.jit
    def cut(weights: Any, batch: Batch, number: int) -> tuple[Features, View]:
        views = two_views(batch, jax.random.key(SEED), number, augment)
        model = nnx.merge(image_side.network.eval_graphdef, *weights)
        pairs = [(image_features(model, view.image), view) for view in views]
        return jax.tree.map(lambda *each: jnp.stack(each, axis=1), *pairs)

    return cut


def test_cut(image_side: ImageSide) -> Cut:
    """A function (weights, batch, its number) to a crop of each image's hand, (i, 1, ...)."""
    still = dict.fromkeys(RANDOM_FIELDS, 0.0)
    augment = dataclasses.replace(_augmentation(image_side), **still, appearance=UNCHANGED)

    @jax.jit
    def cut(weights: Any, batch: Batch, number: int) -> tuple[Features, View]:
        del number
        keys = jax.random.split(jax.random.key(SEED), len(batch.image))  # Nothing is random.
        view = augmented_view(batch, keys, augment)
        model = nnx.merge(image_side.network.eval_graphdef, *weights)
        return jax.tree.map(lambda x: x[:, None], (image_features(model, view.image), view))

    return cut


def _augmentation(image_side: ImageSide) -> AugmentConfig:
    """The one that the network was trained with."""
    config = image_side.config
    appearance = AppearanceConfig(**config.appearance)
    return AugmentConfig(image_side.network.image_size, **config.augment, appearance=appearance)


def _batches(data: Path, split: str, chunk: int, first: int, coverage: bool) -> Iterator[Batch]:
    """The batches of a split from number `first` on; training images once, in random order."""
    if split == "test":
        return itertools.islice(loader.eval_batches(data, chunk), first, None)
    return loader.train_batches(data, chunk, SEED, coverage=coverage, start_step=first)


def _compute_split(image_side: ImageSide, data: Path, folder: Path, split: str) -> None:
    manifest = read_manifest(folder)
    n, chunk = manifest[split], manifest["chunk"]
    files = _files(folder, split)
    missing = [number for number, file in enumerate(files) if not file.is_file()]
    # From the newest complete file on: its features must be those that are computed now.
    first = max(missing[0] - 1, 0) if missing else len(files) - 1
    cut = (test_cut if split == "test" else training_cut)(image_side)
    exchanges_background = image_side.config.appearance.background[0] > 0
    batches = _batches(data, split, chunk, first, exchanges_background)
    weights = image_side.state.params, image_side.state.stats
    for number, batch in zip(range(first, len(files)), batches, strict=False):
        examples = _examples(*cut(weights, batch, number))
        rows = min(chunk, n - number * chunk)  # The rest is padding.
        arrays = {name: array[:rows] for name, array in _flat(examples).items()}
        if number in missing:
            with write_atomic(files[number]) as partial, partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        elif not _agree(arrays, _read(files[number])):
            raise UserError(
                f"{files[number]}: its features are not those that this network has for these "
                "images now: it is corrupted, or the program has changed; delete the folder"
            )
        print(f"{split}: {number * chunk + rows} of {n} images", flush=True)


def _files(folder: Path, split: str) -> list[Path]:
    manifest = read_manifest(folder)
    count = -(-manifest[split] // manifest["chunk"])
    return [folder / f"{split}-{number:04d}.npz" for number in range(count)]


def _examples(features: Features, view: View) -> Examples:
    halved = jax.tree.map(lambda x: np.asarray(x, np.float16), features)
    # Labels keep their precision: float16 would round a vertex by up to 0.05 mm.
    return Examples(halved, np.asarray(view.verts), np.asarray(view.angle_rad))


def _flat(examples: Examples) -> dict[str, np.ndarray]:
    """The arrays of examples by name."""
    return examples.features._asdict() | {
        name: array for name, array in examples._asdict().items() if name != "features"
    }


def _agree(arrays: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> bool:
    """Whether they are equal but for what another machine rounds differently."""
    return all(
        np.allclose(array, others[name], rtol=0.01, atol=0.01) for name, array in arrays.items()
    )


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return dict(arrays)


def load(folder: Path, split: str) -> Examples:
    """All examples of a split, in memory.

    Raises:
        UserError: if the features are not complete.
    """
    files = _files(folder, split)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(files)} files of the {split} split are missing, "
            f"{missing[0]} first: run python -m benchmarks.decoders features again, which resumes"
        )
    chunks = [_read(file) for file in files]
    arrays = {name: np.concatenate([each[name] for each in chunks]) for name in chunks[0]}
    features = Features(*(arrays.pop(name) for name in Features._fields))
    return Examples(features, **arrays)
