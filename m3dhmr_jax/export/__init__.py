"""Networks in formats that run without JAX."""

SMALLEST_HALF = 1024  # Constants with fewer numbers stay float32 in a file of half the size.
