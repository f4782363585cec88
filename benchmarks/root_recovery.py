"""Where a hand stands: `recover_roots`, batched, against SciPy's SLSQP one by one as the peers do.

Run: python -m benchmarks.root_recovery [problems.npz]
Prints the error to the true translation, and solves per second, of both on the same problems, and
their ratio; above 1 `recover_roots` is faster. The problems are made here, or are those of a file
with joints_rel, uv, K and t_true.
"""

import functools
import sys
from collections.abc import Mapping

import numpy as np
from scipy.optimize import minimize

from benchmarks.measure import interleaved, record, table
from m3dhmr_jax.camera.root_recovery import recover_roots
from m3dhmr_jax.hand import load_builtin

N_PROBLEMS, BATCH = 64, 4096
STARTS_AT_M = (0.0, 0.0, 0.6)
NEAREST_M, FARTHEST_M = 0.05, 2.0
ENOUGH_PX, LEAST_LANDMARKS, MOST_SOLVES = 2.0, 13, 5


def make_problems() -> dict[str, np.ndarray]:
    """Turned hands in crops of 128 px: noise of 0, 1 or 3 px, and 0, 2 or 5 landmarks astray."""
    model, rng = load_builtin(), np.random.default_rng(0)
    joints = model.joint_regressor @ model.verts_m
    turns = np.linalg.qr(rng.normal(size=(N_PROBLEMS, 3, 3)))[0]
    joints_rel = (joints - joints[:1]) @ turns
    t_true = rng.uniform([-0.03, -0.03, 0.3], [0.03, 0.03, 1.2], (N_PROBLEMS, 3))
    k = np.tile(np.diag([0.0, 0.0, 1.0]), (N_PROBLEMS, 1, 1))
    k[:, 0, 0] = k[:, 1, 1] = rng.uniform(250, 700, N_PROBLEMS)
    k[:, :2, 2] = 64
    seen = np.einsum("bij,bnj->bni", k, joints_rel + t_true[:, None])
    uv = seen[..., :2] / seen[..., 2:]
    uv += rng.choice([0, 1, 3], (N_PROBLEMS, 1, 1)) * rng.normal(size=uv.shape)
    for hand in uv:
        astray = rng.permutation(21)[: rng.choice([0, 2, 5])]
        angle, far = rng.uniform(0, 2 * np.pi, len(astray)), rng.uniform(20, 60, len(astray))
        hand[astray] += (far * np.stack([np.cos(angle), np.sin(angle)])).T
    return {"joints_rel": joints_rel, "uv": uv, "K": k, "t_true": t_true}


def slsqp(points: np.ndarray, uv: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Least squares; then again without what is farther off than is usual, while that helps."""

    def off_px(t_m: np.ndarray) -> np.ndarray:
        seen = (points + t_m) @ k.T
        return np.linalg.norm(seen[:, :2] / seen[:, 2:] - uv, axis=1)

    t_m, kept = np.array(STARTS_AT_M), np.ones(len(points), bool)
    for _ in range(MOST_SOLVES):
        bounds = [(None, None), (None, None), (NEAREST_M, FARTHEST_M)]
        cost = functools.partial(lambda kept, t_m: np.mean(off_px(t_m)[kept] ** 2), kept)
        t_m = minimize(cost, t_m, method="SLSQP", bounds=bounds).x
        left = off_px(t_m)
        near = kept & (left < left[kept].mean() + left[kept].std())
        if left[kept].mean() <= ENOUGH_PX or near.sum() < LEAST_LANDMARKS:
            break
        kept = near
    return t_m


def errors_mm(t_m: np.ndarray, true_m: np.ndarray) -> list[float]:
    """Median, and what 95 % are below."""
    off_mm = 1000 * np.linalg.norm(t_m - true_m, axis=1)
    return np.percentile(off_mm, [50, 95]).tolist()


def main(problems: Mapping[str, np.ndarray], *, rounds: int = 7) -> None:
    hands = [np.asarray(problems[name], np.float64) for name in ("joints_rel", "uv", "K")]
    single = [hand.astype(np.float32) for hand in hands]
    n, true_m = len(hands[0]), problems["t_true"]
    many = [np.resize(hand, (BATCH, *hand.shape[1:])) for hand in single]

    def peers() -> np.ndarray:
        return np.stack([slsqp(*hand) for hand in zip(*hands, strict=True)])

    timings = interleaved({"ours": lambda: recover_roots(*many), "slsqp": peers}, rounds, warm_up=1)
    solves_per_s = {
        "ours": 1000 * BATCH / timings["ours"].median_ms,
        "slsqp": 1000 * n / timings["slsqp"].median_ms,
    }
    off_mm = {
        "ours": errors_mm(np.asarray(recover_roots(*single).t_m), true_m),
        "slsqp": errors_mm(peers(), true_m),
    }
    ratio = solves_per_s["ours"] / solves_per_s["slsqp"]
    rows = [[name, *off_mm[name], rate] for name, rate in solves_per_s.items()]
    print(table([f"{n} problems", "median mm", "95 % mm", "solves/s"], rows))
    print(f"{ratio:.0f} times as fast")
    record("root_recovery", timings, batch=BATCH, off_mm=off_mm, solves_per_s=solves_per_s)


if __name__ == "__main__":
    main(np.load(sys.argv[1]) if len(sys.argv) > 1 else make_problems())
