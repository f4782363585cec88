"""Devices, processes, signals and files of a run."""
