"""A batch that needs no data set, for tests and benchmarks.

Axes: b batch.
"""

import numpy as np

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.types import Batch

BLOTCH_PX = 16


def fake_batch(n: int, image_px: int = 224, seed: int = 0) -> Batch:
    """Randomly rotated built-in hands, 0.6 m from the camera, on images of coloured blotches."""
    hand, rng = load_builtin(), np.random.default_rng(seed)
    rotations, _ = np.linalg.qr(rng.normal(size=(n, 3, 3)))
    rotations[:, 0] *= np.linalg.det(rotations)[:, None]  # No reflections.
    centred_m = hand.verts_m - hand.verts_m.mean(axis=0)
    verts_m = (centred_m @ rotations + [0.01, -0.02, 0.6]).astype(np.float32)
    scale = image_px / 224
    intrinsics = np.array([[450, 0, 112], [0, 455, 110], [0, 0, 1 / scale]], np.float32) * scale
    blotches = -(-image_px // BLOTCH_PX)
    image = rng.integers(0, 256, (n, blotches, blotches, 3), np.uint8)
    return Batch(
        image=image.repeat(BLOTCH_PX, 1).repeat(BLOTCH_PX, 2)[:, :image_px, :image_px],
        intrinsics=np.stack([intrinsics] * n),
        joints_m=(hand.joint_regressor @ verts_m).astype(np.float32),
        verts_m=verts_m,
        bbox_px=scale * np.array([[60, 50, 100, 110]] * n, np.float32),
        index=np.arange(n, dtype=np.int32),
        valid=np.ones(n, bool),
    )
