"""The TFDS builder: from a folder in FreiHAND's official layout to array_record files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from jaxtyping import Float
from tqdm import tqdm

from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel
from tfds_freihand import download

EXAMPLES_PER_SHARD = 8192
KeyedExample = tuple[int, dict[str, Any]]


class Builder(tfds.core.ShardBasedBuilder):
    """FreiHAND, records in the official order.

    Shards are written one by one in that order: for more than 1 GB, the shuffling of TFDS's other
    builders needs TensorFlow, and readers shuffle anyway.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version: FreiHAND v2 with vertices and boxes."}  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "A folder in FreiHAND's official layout (training/rgb, training_K.json, ...): unpack "
        "FreiHAND_pub_v2.zip and FreiHAND_pub_v2_eval.zip into it."
    )

    def __init__(self, hand: HandModel | None = None, **kwargs: Any):
        """`hand` turns MANO parameters into meshes; see `freihand.read_annotations`."""
        super().__init__(**kwargs)
        self._hand = hand

    def _info(self) -> tfds.core.DatasetInfo:
        def floats(*shape: int) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=shape, dtype=np.float32)

        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "K": floats(3, 3),
                    "xyz": floats(freihand.N_JOINTS, 3),
                    "verts": floats(freihand.N_VERTICES, 3),
                    "bbox": floats(4),
                    "scale": floats(),
                    "index": np.int64,
                    "coverage": tfds.features.Tensor(shape=(), dtype=np.bytes_),
                    "quality": floats(),
                }
            ),
            homepage="https://lmb.informatik.uni-freiburg.de/projects/freihand/",
            metadata=tfds.core.MetadataDict(),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[KeyedExample]]]]:
        folder, source = self._folder(dl_manager)
        metadata = cast(tfds.core.MetadataDict, self.info.metadata)  # As _info created it.
        metadata["fingerprint"] = freihand.fingerprint(folder)
        metadata["source"] = str(source)
        return {split: _shards(folder, split, self._hand) for split in freihand.FOLDERS}

    def _folder(self, dl_manager: tfds.download.DownloadManager) -> tuple[Path, Path]:
        """The folder to read, and the one that configs know it by."""
        try:
            folder = Path(dl_manager.manual_dir)
        except AssertionError:  # No folder was given.
            return download.fetch(dl_manager, self.url_infos or {}), download.SOURCE
        return folder, folder.absolute()


def _shards(
    folder: Path, split: str, hand: HandModel | None
) -> list[Callable[[], Iterator[KeyedExample]]]:
    """One generator of examples per shard; annotations are read here, before any is written."""
    annotations = freihand.read_annotations(folder, split, hand)
    n_images = freihand.count_images(folder, split)
    boxes_px = _boxes_px(folder, split)
    coverage = freihand.coverage_paths(folder) if split == "train" else []
    starts = range(0, n_images, EXAMPLES_PER_SHARD)
    ranges = [range(start, min(start + EXAMPLES_PER_SHARD, n_images)) for start in starts]
    labels = annotations, boxes_px, coverage
    return [partial(_examples, folder, split, *labels, each) for each in ranges]


def _examples(
    folder: Path,
    split: str,
    annotations: freihand.Annotations,
    boxes_px: Float[np.ndarray, "a 4"],
    coverage: Sequence[Path],
    images: range,
) -> Iterator[KeyedExample]:
    for image in tqdm(images, desc=f"{split} from {images.start}", leave=False, disable=None):
        row = image % len(boxes_px)
        yield (
            image,
            {
                "image": folder / freihand.image_name(split, image),
                "K": annotations.intrinsics[row],
                "xyz": annotations.joints_m[row],
                "verts": annotations.verts_m[row],
                "bbox": boxes_px[row],
                "scale": annotations.scale_m[row],
                "index": image,
                "coverage": coverage[row].read_bytes() if coverage else b"",
                "quality": annotations.quality[row],
            },
        )


def _boxes_px(folder: Path, split: str) -> Float[np.ndarray, "a 4"]:
    """The box of each annotation: around its mask, or the fixed one of the evaluation images."""
    n = freihand.count_annotations(folder, split)
    if split == "train":
        masks = [folder / "training" / "mask" / f"{i:08d}.jpg" for i in range(n)]
        return np.stack(
            [freihand.mask_box_px(mask) for mask in tqdm(masks, "masks", leave=False, disable=None)]
        )
    return np.stack([_evaluation_box_px(folder / freihand.image_name(split, i)) for i in range(n)])


def _evaluation_box_px(path: Path) -> Float[np.ndarray, "4"]:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not a readable JPEG ({error}); get the file again") from error
    return freihand.centred_box_px(int(height), int(width))
