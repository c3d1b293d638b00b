"""Histories of trainings as points of curves; read while they grow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Point = tuple[str, float, int, int]
"""Name of the curve, value, time in ms since the epoch, step."""
_NO_CURVES = ("iteration", "timestamp")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a history; one that is still being written, or was cut short by a kill, ends the list."""
    try:
        content = path.read_text(encoding="utf-8", errors="replace")  # a crash may leave garbage
    except OSError:
        return []
    lines = []
    for text in content.split("\n")[:-1]:  # what follows the last line break is no whole line
        try:
            line = json.loads(text)
            lines.append(line | {"iteration": int(line["iteration"]), "timestamp": float(line["timestamp"])})
        except (ValueError, KeyError, TypeError):
            break
    return lines


def points(lines: Sequence[Mapping[str, Any]], highest: Mapping[str, int] | None = None) -> Iterator[Point]:
    """List every number of some history lines as a point of its curve.

    Parameters
    ----------
    lines : sequence of mapping
        Nested mappings are spelt with a slash; texts, lists and what is not there make no point.
    highest : mapping, optional
        Step up to which each curve is in the store already. A resumed training writes intervals again that were shown
        before, with another time; the store would keep both.

    Examples
    --------
    >>> line = {"iteration": 10, "timestamp": 1.5, "loss": 2, "val": {"mean_iou": 0.5}, "device": "cpu", "aux": None}
    >>> list(points([line]))
    [('loss', 2.0, 1500, 10), ('val/mean_iou', 0.5, 1500, 10)]
    >>> list(points([line], {"loss": 10}))
    [('val/mean_iou', 0.5, 1500, 10)]
    """
    for line in lines:
        step, time_ms = line["iteration"], round(1000 * line["timestamp"])
        for name, value in _numbers(line):
            if name not in _NO_CURVES and step > (highest or {}).get(name, -1):
                yield name, value, time_ms, step


def spelt(name: str) -> str:
    """Spell a name with the characters that MLflow allows in a metric's name."""
    return "".join(character if character.isalnum() or character in "_-. " else "_" for character in name)


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{spelt(key)}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{spelt(key)}", float(value)
