"""Augmentation for networks that are to see photos of any kind, from a few sources of images."""

from typing import Any


def augment_for_photos(config: Any) -> None:
    """Sets crops as prediction cuts them, and changes of colours and pixels as in many photos.

    The probabilities and strengths were chosen in trials with small networks that were trained on
    rendered hands and scored on real photos; most were not varied one by one.
    """
    augment = config.augment
    augment.upright = True
    augment.scale = 1.25  # Prediction takes 1.3 times the box of the mesh.
    augment.scale_jitter = 0.25
    augment.max_angle_deg = 45.0
    augment.rotation_probability = 0.8
    augment.stretch = 0.1
    augment.shift = 0.8
    augment.brightness = 0.3
    augment.contrast = 0.35
    augment.saturation = 0.45
    augment.hue = 0.04

    appearance = config.appearance
    appearance.background = (0.85, 0.3)
    appearance.amplitudes = (0.3, 0.7)
    appearance.gamma = (0.4, 0.5)
    appearance.white_balance = (0.5, 0.12)
    appearance.grey = (0.06, 1.0)
    appearance.cutout = (0.3, 0.32)
    appearance.band = (0.15, 0.3)
    appearance.blur = (0.2, 0.2)
    appearance.sharpen = (0.15, 1.0)
    appearance.resample = (0.15, 0.6)
    appearance.noise = (0.4, 0.06)
    appearance.jpeg = (0.3, 0.8)
