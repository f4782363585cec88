"""Renderer of synthetic hand images with exact labels, in FreiHAND's layout."""

from m3dhmr_jax.synthetic.recipe import FULL, QUICKSTART, RECIPES, Recipe
from m3dhmr_jax.synthetic.writer import write_dataset

__all__ = ["FULL", "QUICKSTART", "RECIPES", "Recipe", "write_dataset"]
