"""Checkpoints of a run, weights files, the config of a run, and restoring from them."""
