"""Drawings of predictions, and the rasteriser."""
