"""Scores: of a run's checkpoint (`run`), and of predictions in official files (`official`)."""
