"""Two random views of 32 images (224 px to 128 px): the jitted augmentation against an OpenCV loop.

    python -m benchmarks.augmentation

Prints milliseconds per batch and their ratio; below 1 the jitted augmentation is faster. The loop
does the same work: warp, colour jitter, normalisation and stacking, but no labels. A second table
is about crops of the quickstart's size: its augmentation, that for photos of any kind
(configs/photos.py), and its whole training step, of which the last column is the fraction.
"""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import training_step
from benchmarks.measure import Timing, interleaved, record, table, timing
from benchmarks.systems import load_config
from configs import photos, resnet18
from m3dhmr_jax.data.appearance import AppearanceConfig
from m3dhmr_jax.data.augment import AugmentConfig, two_views
from m3dhmr_jax.data.fake import fake_batch
from m3dhmr_jax.types import Config

N_IMAGES = 32


def opencv_views(images: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """What a NumPy/OpenCV data loader does for the same two views."""
    views = []
    for image in np.repeat(images, 2, axis=0):
        side = 110 * (config.scale + config.scale_jitter * rng.uniform(-1, 1))
        rotation = cv2.getRotationMatrix2D((112, 112), rng.uniform(-90, 90), config.size / side)
        rotation[:, 2] += config.size / 2 - 112
        crop = cv2.warpAffine(image, rotation, (config.size, config.size)).astype(np.float32) / 255
        bright, contrast, saturation = 1 + 0.4 * rng.uniform(-1, 1, 3)
        hsv = cv2.cvtColor(crop, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + 18 * rng.uniform(-1, 1)) % 360
        hsv[..., 1] *= saturation
        crop = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        crop = crop * (bright * contrast) + bright * (1 - contrast) / 2
        views.append(np.clip(crop, 0, 1) * 2 - 1)
    return np.stack(views)


def small_crops(rounds: int) -> dict[str, Timing]:
    """Times of two augmentations for the quickstart's network, and of its training step."""
    plain = load_config("configs/quickstart.py")
    plain.batch_size = N_IMAGES
    varied = plain.copy_and_resolve_references()
    photos.augment_for_photos(varied)
    batch = jax.tree.map(jnp.asarray, fake_batch(N_IMAGES))
    batch = batch._replace(coverage=jnp.zeros(batch.image.shape[:3], jnp.uint8))
    key = jax.random.key(0)
    functions = {}
    for name, config in (("plain", plain), ("for_photos", varied)):
        augment = AugmentConfig(
            config.model.image_size,
            **config.augment,
            appearance=AppearanceConfig(**config.appearance),
        )
        views = jax.jit(lambda batch, augment=augment: two_views(batch, key, 1, augment))
        functions[name] = functools.partial(views, batch)
    timings = interleaved(functions, rounds)
    times_ms, _ = training_step.measured(plain, rounds, steps=1)
    return timings | {"step": timing(times_ms)}


def main(*, rounds: int = 15) -> None:
    run_config: Config = resnet18.get_config()
    config = AugmentConfig(run_config.model.image_size, **run_config.augment)
    batch, rng = fake_batch(N_IMAGES), np.random.default_rng(1)
    augment = jax.jit(lambda batch, key, step: two_views(batch, key, step, config))
    on_device, key = jax.tree.map(jnp.asarray, batch), jax.random.key(0)
    functions = {
        "jitted": lambda: augment(on_device, key, 1),
        "opencv": lambda: opencv_views(np.asarray(batch.image), config, rng),
    }
    timings = interleaved(functions, rounds)
    ours, theirs = timings["jitted"].median_ms, timings["opencv"].median_ms
    rows = [["jitted", ours, ours / theirs], ["OpenCV loop", theirs, 1.0]]
    print(table(["", f"ms per {N_IMAGES} x 2 views", "ratio"], rows))
    of_step = small_crops(rounds)
    step_ms = of_step["step"].median_ms
    rows = [[name, each.median_ms, each.median_ms / step_ms] for name, each in of_step.items()]
    print(table(["", f"ms per {N_IMAGES} x 2 views", "of the step"], rows))
    record("augmentation", timings | of_step, opencv_threads=cv2.getNumThreads())


if __name__ == "__main__":
    main()
