"""Measures the density of the renderer's poses, which the fit uses as its prior.

    python tools/hand/pose_prior.py m3dhmr_jax/hand/pose_prior.npz

Writes the mean and covariance of the 45 joint angles over random articulations of the built-in
hand (`m3dhmr_jax.hand.articulation`). Takes half a minute.
"""

import argparse
from pathlib import Path

import numpy as np

from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.hand.articulation import angles_of_rotations
from m3dhmr_jax.hand.capsules import fit_capsules
from m3dhmr_jax.synthetic.poses import sample_articulation
from m3dhmr_jax.synthetic.recipe import FULL

DRAWS = 10_000


def sample_angles(seed: int, draws: int) -> np.ndarray:
    """Angles of random articulations of the mean hand, (draws, 45), radians."""
    rng, hand, details = np.random.default_rng(seed), load_builtin(), load_details()
    capsules, shape = fit_capsules(hand), np.zeros(len(hand.shape_basis))
    rotations = [
        sample_articulation(rng, hand, details, capsules, shape, FULL) for _ in range(draws)
    ]
    return angles_of_rotations(np.stack(rotations)[:, 1:])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the .npz to write")
    out = parser.parse_args(argv).out
    angles_rad = sample_angles(0, DRAWS)
    np.savez_compressed(
        out,
        mean_rad=angles_rad.mean(0).astype(np.float32),
        covariance_rad2=np.cov(angles_rad.T).astype(np.float32),
    )


if __name__ == "__main__":
    main()
