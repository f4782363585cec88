"""Root recovery: `recover_roots`, batched, against SciPy's SLSQP hand by hand.

    python -m benchmarks.root_recovery [problems.npz]

Prints the error of the translation and the solves per second of both on the same problems, and
their ratio; above 1 `recover_roots` is faster. SLSQP with removal of outliers is what published
implementations use. Then the errors with and without silhouettes, for landmarks that share an
error of scale. The problems are generated, or read from a file with joints_rel, uv, K and t_true,
and the same under `poly_` with poly_verts_rel and poly_mask.
"""

import functools
import sys
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool
from scipy.optimize import minimize

from benchmarks.measure import interleaved, record, table
from m3dhmr_jax.camera.root_recovery import Silhouette, recover_roots
from m3dhmr_jax.camera.silhouette import SilhouetteExtent, silhouette_extent
from m3dhmr_jax.hand import load_builtin

N_PROBLEMS, BATCH = 64, 4096
IMAGE_PX = 128
INITIAL_T_M = (0.0, 0.0, 0.6)
NEAREST_M, FARTHEST_M = 0.05, 2.0
SUFFICIENT_PX, MIN_LANDMARKS, MAX_SOLVES = 2.0, 13, 5
SCALE_ERROR = 0.06  # Standard deviation of the scale of landmarks, for problems with masks.
Problems = Mapping[str, np.ndarray]


def make_problems() -> dict[str, np.ndarray]:
    """Rotated hands in crops of 128 px: noise of 0, 1 or 3 px, and 0, 2 or 5 outlier landmarks."""
    hand, rng = load_builtin(), np.random.default_rng(0)
    joints = hand.joint_regressor @ hand.verts_m
    rotations = np.linalg.qr(rng.normal(size=(N_PROBLEMS, 3, 3)))[0]
    rotations *= np.linalg.det(rotations)[:, None, None]
    joints_rel, verts_rel = ((x - joints[:1]) @ rotations for x in (joints, hand.verts_m))
    t_true = rng.uniform([-0.03, -0.03, 0.4], [0.03, 0.03, 1.2], (N_PROBLEMS, 3))
    k = np.tile(np.diag([0.0, 0.0, 1.0]), (N_PROBLEMS, 1, 1))
    k[:, 0, 0] = k[:, 1, 1] = rng.uniform(250, 500, N_PROBLEMS)
    k[:, :2, 2] = IMAGE_PX / 2
    uv, verts_uv = (_project(x, t_true, k) for x in (joints_rel, verts_rel))
    masks = np.stack([_mask(points, hand.faces) for points in verts_uv])
    uv += rng.choice([0, 1, 3], (N_PROBLEMS, 1, 1)) * rng.normal(size=uv.shape)
    for landmarks in uv:
        outliers = rng.permutation(21)[: rng.choice([0, 2, 5])]
        angle, distance = rng.uniform([[0], [20]], [[2 * np.pi], [60]], (2, len(outliers)))
        landmarks[outliers] += (distance * np.stack([np.cos(angle), np.sin(angle)])).T
    centre = uv.mean(axis=1, keepdims=True)
    scale = 1 + SCALE_ERROR * rng.normal(size=(N_PROBLEMS, 1, 1))
    plain = {"joints_rel": joints_rel, "uv": uv, "K": k, "t_true": t_true}
    masked = plain | {"uv": centre + scale * (uv - centre), "verts_rel": verts_rel, "mask": masks}
    return plain | {f"poly_{name}": values for name, values in masked.items()}


def _project(points: np.ndarray, t_m: np.ndarray, k: np.ndarray) -> np.ndarray:
    homogeneous = np.einsum("bij,bnj->bni", k, points + t_m[:, None])
    return homogeneous[..., :2] / homogeneous[..., 2:]


def _mask(verts_px: np.ndarray, faces: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """The pixels of the projected faces."""
    mask = np.zeros((IMAGE_PX, IMAGE_PX), np.uint8)
    for corners in np.round(16 * verts_px).astype(np.int32)[faces]:
        cv2.fillConvexPoly(mask, corners, 1, shift=4)
    return mask > 0


def slsqp(points: np.ndarray, uv: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Least squares; then again without landmarks of unusually large error, while that helps."""

    def errors_px(t_m: np.ndarray) -> np.ndarray:
        return np.linalg.norm(_project(points[None], t_m[None], k[None])[0] - uv, axis=1)

    t_m, kept = np.array(INITIAL_T_M), np.ones(len(points), bool)
    for _ in range(MAX_SOLVES):
        bounds = [(None, None), (None, None), (NEAREST_M, FARTHEST_M)]
        cost = functools.partial(lambda kept, t_m: np.mean(errors_px(t_m)[kept] ** 2), kept)
        t_m = minimize(cost, t_m, method="SLSQP", bounds=bounds).x
        left_px = errors_px(t_m)
        near = kept & (left_px < left_px[kept].mean() + left_px[kept].std())
        if left_px[kept].mean() <= SUFFICIENT_PX or near.sum() < MIN_LANDMARKS:
            break
        kept = near
    return t_m


def errors_mm(t_m: np.ndarray, true_m: np.ndarray) -> list[float]:
    """Median and 95th percentile."""
    distances_mm = 1000 * np.linalg.norm(np.asarray(t_m) - true_m, axis=1)
    return np.percentile(distances_mm, [50, 95]).tolist()


def with_and_without_silhouettes(problems: Problems) -> dict[str, list[float]]:
    """Errors on the problems that have masks."""
    values = {name: problems[f"poly_{name}"] for name in ("verts_rel", "mask", "t_true")}
    hands = [np.float32(problems[f"poly_{name}"]) for name in ("joints_rel", "uv", "K")]
    masks = values["mask"]
    if masks.dtype == np.uint8:  # Eight pixels in a byte.
        masks = np.unpackbits(masks, axis=-1).astype(bool)
    extents = SilhouetteExtent(*map(np.stack, zip(*map(silhouette_extent, masks), strict=True)))
    silhouette = Silhouette(values["verts_rel"].astype(np.float32), extents)
    found = {"without": recover_roots(*hands).t_m, "with": recover_roots(*hands, silhouette).t_m}
    if "poly_ref_t" in problems:
        found["published, with"] = problems["poly_ref_t"]
    return {name: errors_mm(t_m, values["t_true"]) for name, t_m in found.items()}


def main(problems: Problems, *, rounds: int = 7) -> None:
    hands = [np.asarray(problems[name], np.float64) for name in ("joints_rel", "uv", "K")]
    single = [hand.astype(np.float32) for hand in hands]
    n, true_m = len(hands[0]), problems["t_true"]
    many = [np.resize(hand, (BATCH, *hand.shape[1:])) for hand in single]

    def one_by_one() -> np.ndarray:
        return np.stack([slsqp(*hand) for hand in zip(*hands, strict=True)])

    functions = {"ours": lambda: recover_roots(*many), "slsqp": one_by_one}
    timings = interleaved(functions, rounds, warm_up=1)
    solves_per_s = {
        "ours": 1000 * BATCH / timings["ours"].median_ms,
        "slsqp": 1000 * n / timings["slsqp"].median_ms,
    }
    found_mm = {
        "ours": errors_mm(np.asarray(recover_roots(*single).t_m), true_m),
        "slsqp": errors_mm(one_by_one(), true_m),
    }
    ratio = solves_per_s["ours"] / solves_per_s["slsqp"]
    rows = [[name, *found_mm[name], rate] for name, rate in solves_per_s.items()]
    print(table([f"{n} problems", "median mm", "95 % mm", "solves/s"], rows))
    print(f"{ratio:.0f} times as fast\n")
    silhouettes_mm = with_and_without_silhouettes(problems)
    rows = [[name, *values] for name, values in silhouettes_mm.items()]
    print(table(["silhouettes", "median mm", "95 % mm"], rows))
    results = {"errors_mm": found_mm, "silhouettes_mm": silhouettes_mm}
    record("root_recovery", timings, batch=BATCH, solves_per_s=solves_per_s, **results)


if __name__ == "__main__":
    main(np.load(sys.argv[1]) if len(sys.argv) > 1 else make_problems())
