"""Renderer of synthetic hand images with exact labels, in FreiHAND's layout."""

from m3dhmr_jax.synthetic.photo_set import write_photos
from m3dhmr_jax.synthetic.recipe import FULL, NATURAL, QUICKSTART, RECIPES, Recipe
from m3dhmr_jax.synthetic.writer import write_dataset

__all__ = ["FULL", "NATURAL", "QUICKSTART", "RECIPES", "Recipe", "write_dataset", "write_photos"]
