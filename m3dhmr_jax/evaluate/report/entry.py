"""What a column of the pages is made of."""

from collections.abc import Mapping
from typing import NamedTuple

from m3dhmr_jax.metrics.freihand import SampleMetrics


class Entry(NamedTuple):
    """Scores, and the errors that they are computed from."""

    scores: Mapping[str, float]
    errors: SampleMetrics
