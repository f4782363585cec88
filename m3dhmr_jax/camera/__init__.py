"""The pinhole camera, and where in front of it a hand is."""
