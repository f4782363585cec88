"""What leaves JAX: files and a page that compute the same without this package."""
