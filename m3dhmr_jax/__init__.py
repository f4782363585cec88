"""Monocular 3D hand mesh recovery in JAX: a photo of a hand in, a 778-vertex mesh in metres out."""
