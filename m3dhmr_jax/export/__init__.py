"""What leaves JAX: files and a page that compute the same without this package."""

SMALLEST_HALF = 1024  # Constants with fewer numbers stay float32 in a file of half the size.
