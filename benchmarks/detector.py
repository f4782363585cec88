"""The hand detector: how long do its networks and a whole image take?

    python -m benchmarks.detector [--rounds=20]

Needs the installed detector (`m3dhmr detector install`). `palms` is the palm detector on one
image, `landmarks N` the landmark network on N crops. `blank image` searches 640 x 480 px without a
hand everywhere, tiles included; `refine` is a video's frame with one known hand. `image to meshes`
is all that the default predictor does for a rendered image of 480 px with one hand that is verified
in all views, as rendered ones are often doubtful; `next frame` the same for a hand that is
followed. The time of one depthwise convolution of the palm detector is set in relation to XLA's.
"""

import argparse
import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import interleaved, record, table
from benchmarks.video import rendering
from m3dhmr_jax.models.hand_detector import (
    depthwise_native,
    depthwise_sums,
    detect_palms,
    find_landmarks,
)
from m3dhmr_jax.models.hand_detector_outputs import LANDMARK_IMAGE_PX, PALM_IMAGE_PX
from m3dhmr_jax.predict.detector import HandDetector
from m3dhmr_jax.predict.detector_weights import load_detector_weights
from m3dhmr_jax.predict.jax_networks import JaxDetector
from m3dhmr_jax.predict.predictor import HandMeshPredictor

BATCHES = (1, 2, 4, 8)


def main(rounds: int = 20) -> None:
    rng = np.random.default_rng(0)
    weights = load_detector_weights()
    detector = HandDetector(JaxDetector(weights))
    palms, landmarks = jax.jit(detect_palms), jax.jit(find_landmarks)

    def noise(n: int, side: int) -> jax.Array:
        return jnp.asarray(rng.integers(0, 256, (n, side, side, 3), np.uint8))

    features = jnp.asarray(rng.normal(size=(1, 96, 96, 32)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(5, 5, 32)), jnp.float32)
    image = np.full((480, 640, 3), 90, np.uint8)
    photo = cv2.resize(rendering(0), (480, 480), interpolation=cv2.INTER_CUBIC)
    predictor = HandMeshPredictor()
    hands = predictor(photo)
    hand_px = rng.uniform(200, 400, (1, 21, 2))
    functions = {
        "depthwise sums": functools.partial(
            jax.jit(depthwise_sums, static_argnums=2), features, kernel, 1
        ),
        "depthwise native": functools.partial(
            jax.jit(depthwise_native, static_argnums=2), features, kernel, 1
        ),
        "palms": functools.partial(palms, weights.palms, noise(1, PALM_IMAGE_PX)),
        **{
            f"landmarks {n}": functools.partial(
                landmarks, weights.landmarks, noise(n, LANDMARK_IMAGE_PX)
            )
            for n in BATCHES
        },
        "refine": lambda: detector.refine(image, hand_px).landmarks_px,
        "blank image": lambda: detector(image).landmarks_px,
        "one hand": lambda: detector(photo).landmarks_px,
        "image to meshes": lambda: predictor(photo).verts_m,
        "next frame": lambda: (
            predictor.predict(
                photo,
                predictor.follow(photo, hands.landmarks_px, hands.handedness),
                hands.intrinsics,
            ).verts_m
        ),
    }
    timings = interleaved(functions, rounds)
    palms_ms = timings["palms"].median_ms
    rows = [[name, t.median_ms, t.median_ms / palms_ms] for name, t in timings.items()]
    print(table(["", "ms", "/ palms"], rows))
    record(
        "detector",
        {name.replace(" ", "_"): timing for name, timing in timings.items()},
        landmarks_ms_per_hand={
            str(n): round(timings[f"landmarks {n}"].median_ms / n, 3) for n in BATCHES
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    main(**vars(parser.parse_args()))
