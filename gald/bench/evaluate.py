"""What an evaluation takes beyond its network: counting, predicting by a protocol, and resampling the counts."""

from __future__ import annotations

from gald.bench._evaluate_bootstrap import bootstrap
from gald.bench._evaluate_counting import counting
from gald.bench._evaluate_sliding import sliding
from gald.bench._measure import tell


def bench() -> str:
    """Measure all; return the report as Markdown."""
    sections = []
    for part in (counting, sliding, bootstrap):
        tell("evaluate", part.__name__)
        sections.append(part())
    return "\n".join(sections)
