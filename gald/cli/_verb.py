"""How a verb is declared."""

from __future__ import annotations

import argparse
from collections.abc import Callable

Action = Callable[[argparse.Namespace], None]
Verb = Callable[[str, Action, str], argparse.ArgumentParser]
"""Adds a verb: its name, what it does, and the line that says so."""

RUN = "for example mini/cityscapes/psp-affinity-seed0"
SUITE = "for example mini; a file of params/suites"


def positive(text: str) -> int:
    """Read a number of at least 1; argparse tells what is none, before any work.

    Examples
    --------
    >>> positive("3")
    3
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: give a number of at least 1")
    return value
