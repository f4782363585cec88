import jax
import jax.numpy as jnp
import numpy as np

from m3dhmr_jax.runtime.precision import single_precision


@single_precision()
def dtype_of_a_double():
    return jnp.asarray(np.ones(2)).dtype


def test_single_precision_does_not_depend_on_x64():
    with jax.enable_x64(True):
        assert jnp.asarray(np.ones(2)).dtype == jnp.float64
        assert dtype_of_a_double() == dtype_of_a_double() == jnp.float32
        assert jnp.asarray(np.ones(2)).dtype == jnp.float64
