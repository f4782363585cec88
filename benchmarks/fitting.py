"""The fit of a hand to landmarks: how fast over batch sizes, and how exact?

    python -m benchmarks.fitting

Landmarks are those of random synthetic hands: exact; and with 2 % noise in the image, 5 mm in 3D,
and three of 21 wrong by 20 to 50 % of the hand's box. Prints the PA-MPVPE and the wrist's error of
fits with and without 3D landmarks, the time to compile, and hands per second.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import interleaved, record, table
from m3dhmr_jax.fitting import OWN_CONVENTION, Observation, make_fit
from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.hand.capsules import fit_capsules
from m3dhmr_jax.hand.skinning import pose_hand
from m3dhmr_jax.math3d import random_rotation, shortest_rotation
from m3dhmr_jax.metrics.freihand import aligned_and_centred
from m3dhmr_jax.synthetic.poses import sample_articulation, sample_shape
from m3dhmr_jax.synthetic.recipe import FULL

N_HANDS, BATCHES = 128, (1, 16, 128)
EXACT_STD, NOISE_STD, NOISE_M = 2e-3, 0.02, 0.005
OUTLIERS, OUTLIER_RANGE = 3, (0.2, 0.5)


def make_hands(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and joints in camera space, metres."""
    hand, details = load_builtin(), load_details()
    capsules = fit_capsules(hand)
    shapes = np.stack([sample_shape(rng, 10, FULL.shape_limit) for _ in range(N_HANDS)])
    own = np.stack([sample_articulation(rng, hand, details, capsules, s, FULL) for s in shapes])
    own[:, 0] = [random_rotation(rng) for _ in range(N_HANDS)]
    posed = jax.vmap(lambda r, s: pose_hand(hand, r, s))(np.float32(own), np.float32(shapes))
    rays = np.append(rng.uniform(-0.2, 0.2, (N_HANDS, 2)), np.ones((N_HANDS, 1)), axis=1)
    t_m = rng.uniform(*FULL.root_depth_m, (N_HANDS, 1)) * rays
    return np.asarray(posed.verts_m) + t_m[:, None], np.asarray(posed.joints_m) + t_m[:, None]


def observe(joints_m: np.ndarray, rng: np.random.Generator) -> Observation:
    """Exact landmarks; the 3D ones in the axes of a camera that looks at the hand, any scale."""
    focal_px = rng.uniform(*FULL.focal_px, N_HANDS)
    intrinsics = np.tile(np.eye(3), (N_HANDS, 1, 1))
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal_px
    intrinsics[:, :2, 2] = 111.5
    rays = joints_m[..., :2] / joints_m[..., 2:]
    middle = (rays.min(1) + rays.max(1)) / 2
    to_ray = [shortest_rotation(np.eye(3)[2], np.append(ray, 1)) for ray in middle]
    joints_rel = np.einsum("bji,bnj->bni", to_ray, joints_m - joints_m[:, :1])
    joints_rel *= rng.uniform(0.85, 1.15, (N_HANDS, 1, 1))
    arrays = (
        *(rays * focal_px[:, None, None] + 111.5, np.full((N_HANDS, 21), EXACT_STD)),
        *(joints_rel, np.full(N_HANDS, 25.0), intrinsics),
        *(np.zeros((N_HANDS, 10)), np.ones((N_HANDS, 10))),
    )
    return Observation(*(each.astype(np.float32) for each in arrays))


def add_noise(seen: Observation, rng: np.random.Generator) -> Observation:
    uv = np.array(seen.landmarks_px)
    box_px = np.ptp(uv, axis=1).max(1)
    uv += NOISE_STD * box_px[:, None, None] * rng.normal(size=uv.shape)
    for i in range(N_HANDS):
        wrong, angle = rng.permutation(21)[:OUTLIERS], rng.uniform(0, 2 * np.pi, OUTLIERS)
        far_px = box_px[i] * rng.uniform(*OUTLIER_RANGE, OUTLIERS)
        uv[i, wrong] += (far_px * np.stack([np.cos(angle), np.sin(angle)])).T
    joints = seen.joints_rel_m + NOISE_M * rng.normal(size=np.shape(seen.joints_rel_m))
    return seen._replace(
        landmarks_px=np.float32(uv),
        landmark_std=np.full_like(seen.landmark_std, NOISE_STD),
        joints_rel_m=np.float32(joints),
        joints_weight=np.ones_like(seen.joints_weight),
    )


def main(*, rounds: int = 10) -> None:
    rng = np.random.default_rng(0)
    verts_m, joints_m = make_hands(rng)
    exact = observe(joints_m, rng)
    noisy = add_noise(exact, rng)
    no_joints = {"joints_weight": np.zeros(N_HANDS, np.float32)}
    kinds = {
        "exact": exact,
        "noisy": noisy,
        "exact, 2D only": exact._replace(**no_joints),
        "noisy, 2D only": noisy._replace(**no_joints),
    }
    fit = make_fit(load_builtin(), OWN_CONVENTION)
    start = time.perf_counter()
    jax.block_until_ready(fit(exact))
    first_call_s = time.perf_counter() - start
    errors_mm = {}
    for name, seen in kinds.items():
        found = fit(seen)
        aligned, true = jax.vmap(aligned_and_centred)(found.verts_m, jnp.asarray(verts_m))
        surface = 1000 * np.linalg.norm(aligned - true, axis=2).mean(1)
        wrist = 1000 * np.linalg.norm(found.joints_m[:, 0] - joints_m[:, 0], axis=1)
        errors_mm[name] = [surface.mean(), np.median(surface), np.median(wrist)]
        errors_mm[name] = [float(x) for x in errors_mm[name]]
    rows = [[name, *each] for name, each in errors_mm.items()]
    print(table([f"{N_HANDS} hands, mm", "PA-MPVPE", "median", "wrist, median"], rows))
    batches = {f"batch_{n}": jax.tree.map(lambda leaf, n=n: leaf[:n], noisy) for n in BATCHES}
    timings = interleaved({n: lambda s=s: fit(s) for n, s in batches.items()}, rounds)
    hands_per_s = {n: 1000 * int(n[6:]) / t.median_ms for n, t in timings.items()}
    rows = [[n[6:], timings[n].median_ms, rate] for n, rate in hands_per_s.items()]
    print(table(["batch", "ms", "hands/s"], rows))
    print(f"first call {first_call_s:.1f} s")
    facts = {"errors_mm": errors_mm, "hands_per_s": hands_per_s, "first_call_s": first_call_s}
    record("fitting", timings, **facts)


if __name__ == "__main__":
    main()
