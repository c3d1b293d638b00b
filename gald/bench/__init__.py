"""``gald bench``: what this machine needs for the things a user waits for, one file per benchmark.

Each figure is a median beside the target it is held to, and where something obvious could be used instead, that is
timed in the same run. Benchmarks are never tests: a busy machine must not fail a build.
"""

from __future__ import annotations

import importlib


def bench(what: str) -> str:
    """Run a benchmark and return its report as Markdown.

    Parameters
    ----------
    what : str
        Name of a file here; its ``bench()`` does the work.

    Raises
    ------
    GaldError
        What must exist for the measurement does not.
    """
    report: str = importlib.import_module(f"gald.bench.{what}").bench()
    return report
