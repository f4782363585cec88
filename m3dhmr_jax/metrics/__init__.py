"""Scores: FreiHAND's protocol, 2D landmarks, and the baselines to beat."""
