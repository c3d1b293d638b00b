"""What an evaluation takes beyond its network: counting, predicting by a protocol, and resampling the counts."""

from __future__ import annotations

from gald.bench._evaluate_bootstrap import bootstrap
from gald.bench._evaluate_counting import counting
from gald.bench._evaluate_sliding import sliding


def bench() -> str:
    """Measure all; return the report as Markdown."""
    return "\n".join((counting(), sliding(), bootstrap()))
