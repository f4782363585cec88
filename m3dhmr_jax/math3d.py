"""Rotations and safe norms in 3D.

The NumPy functions serve the host (renderer, drawings, meshes); those on JAX arrays, below, are
differentiable everywhere, also at zero. Axes: k any, j joints, then x y z.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def unit(vectors: Float[np.ndarray, "*k d"]) -> Float[np.ndarray, "*k d"]:
    """Vectors of length 1 in the same directions; 0 stays 0."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(lengths.dtype).tiny)


def axis_rotation(
    axis: Float[np.ndarray, "3"], angle_rad: float | Float[np.ndarray, "*k"]
) -> Float[np.ndarray, "*k 3 3"]:
    """Rodrigues' formula for a unit axis and one or several angles."""
    cross = cross_matrix(axis)
    angle = np.asarray(angle_rad)[..., None, None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def shortest_rotation(
    before: Float[np.ndarray, "3"], after: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3 3"]:
    """The rotation of least angle from one direction to another, which must not be opposite."""
    before, after = unit(before), unit(after)
    cross = cross_matrix(np.cross(before, after))
    return np.eye(3) + cross + cross @ cross / (1 + before @ after)


def cross_matrix(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The matrix of the cross product with `vector` on the left."""
    x, y, z = vector.tolist()
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def random_rotation(rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """Uniform over all rotations (a uniform unit quaternion)."""
    w, x, y, z = unit(rng.normal(size=4))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_matrices(axis_angle: Float[Array, "j 3"]) -> Float[Array, "j 3 3"]:
    """Rodrigues' formula for axis-angle vectors; exact and differentiable at zero."""
    return jax.vmap(_rotation_matrix)(axis_angle)


def _rotation_matrix(axis_angle: Float[Array, "3"]) -> Float[Array, "3 3"]:
    square = jnp.sum(axis_angle**2)
    small = square < 1e-4
    angle = jnp.sqrt(jnp.where(small, 1.0, square))  # The gradient of sqrt is infinite at 0.
    sine = jnp.where(small, 1 - square / 6, jnp.sin(angle) / angle)
    # Half angles, as 1 - cos(angle) loses all digits when the angle is small.
    cosine = jnp.where(small, 0.5 - square / 24, 2 * (jnp.sin(angle / 2) / angle) ** 2)
    x, y, z = axis_angle
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    # Accelerators round the factors of a product to 8 or 11 bits by default.
    squared = jnp.matmul(cross, cross, precision="highest")
    return jnp.eye(3) + sine * cross + cosine * squared


def safe_sqrt(square: Float[Array, "*k"]) -> Float[Array, "*k"]:
    """Square root for squared lengths: its gradient is 0 at 0 instead of infinite."""
    return jnp.sqrt(square + 1e-12)


def safe_unit(vectors: Float[Array, "*k 3"], shortest: float) -> Float[Array, "*k 3"]:
    """Unit vectors; those below `shortest` fade to 0, so the gradient stays bounded."""
    squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return vectors / jnp.sqrt(jnp.maximum(squared, shortest**2))
