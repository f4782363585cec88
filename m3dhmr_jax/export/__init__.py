"""Networks in formats that run without JAX."""
