"""Prediction on the user's own images and videos: hands in camera space."""
