"""The pinhole camera, and the position of a hand in camera space."""
