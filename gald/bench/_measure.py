"""What every benchmark shares: a measured figure, the line that names the machine, and word of what is going on."""

from __future__ import annotations

import logging
import os
import platform
import statistics
from dataclasses import dataclass

from gald.provenance import cpu_name

_log = logging.getLogger("gald")


@dataclass(frozen=True)
class Measured:
    """One figure: what was timed, the seconds of each run, and the target."""

    what: str
    seconds: tuple[float, ...]
    target: float

    def line(self) -> str:
        """Median, spread and target as one row of a Markdown table."""
        median = statistics.median(self.seconds)
        spread = f"{min(self.seconds):.2f} to {max(self.seconds):.2f}"
        met = "yes" if median < self.target else "NO"
        return f"| {self.what} | {median:.2f} s | {spread} | {self.target:g} s | {met} |"


def table(measured: list[Measured]) -> str:
    """Figures as a Markdown table."""
    head = "| what | median | min to max | target | met |\n|---|---|---|---|---|\n"
    return head + "\n".join(one.line() for one in measured) + "\n"


def tell(bench: str, part: str) -> None:
    """Say which part of a benchmark is measured from now on, since some take minutes."""
    _log.info("bench %s: %s", bench, part)


def machine() -> str:
    """Name the processor, its cores and the Python."""
    return f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}"
