"""How a verb is declared."""

from __future__ import annotations

import argparse
from collections.abc import Callable

Action = Callable[[argparse.Namespace], None]
Verb = Callable[[str, Action, str], argparse.ArgumentParser]
"""Adds a verb: its name, what it does, and the line that says so."""

RUN = "for example mini/cityscapes/psp-affinity-seed0"
SUITE = "for example mini; a file of params/suites"
