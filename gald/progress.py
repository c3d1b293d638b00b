"""How far a suite is, and about how long it still takes: read from the files that its runs leave, in milliseconds.

A run's history carries the wall-clock time of each logged interval. All intervals together, overlapping ones counted
once, tell how many iterations this machine makes in a second with as many runs side by side as it has had.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gald import paths, provenance
from gald.errors import GaldError
from gald.files import sha256
from gald.params import Run, Suite, load_suite, suites_of_scale

_PAUSE = 10.0  # an interval so many times longer than the run's median is a pause, not work


TRAINED = "%s: trained already, with these params, data and code; remove %s to train it again"
"""What is said, of a run and its run.json, instead of making again what is there."""


@dataclass(frozen=True)
class Trace:
    """What a run's history says of its course.

    Attributes
    ----------
    iterations : int
        Iterations made so far.
    timed : int
        Those of them whose duration is known.
    spans : tuple of (float, float)
        Start and end of each timed interval, in seconds since the epoch.
    """

    iterations: int
    timed: int
    spans: tuple[tuple[float, float], ...]


def suite_line(scale: str) -> str:
    """Say in one line how far the suite of a scale is.

    Parameters
    ----------
    scale : str
        Folder that the runs live under. Of several suites that share it, the first with runs left is meant.

    Returns
    -------
    str
        For example ``mini: 12 of 23 runs trained, 11 scored; about 6 min left``.
    """
    try:
        suites = [load_suite(name) for name in suites_of_scale(scale)]
    except GaldError:
        return f"{scale}: how far it is cannot be told, since its params are refused; see `gald params {scale}`"
    if not suites:
        return f"{scale}: no suite has this scale"
    return describe(next((suite for suite in suites if _runs_left(suite)), suites[0]))


def describe(suite: Suite) -> str:
    """Say in one line how far a suite is."""
    trained = sum(paths.run_json(run.name).exists() for run in suite.runs)
    scored = sum(paths.metrics(run.name).exists() and paths.run_json(run.name).exists() for run in suite.runs)
    line = f"{suite.name}: {trained} of {len(suite.runs)} runs trained, {scored} scored"
    if trained == len(suite.runs):
        return line
    left = seconds_left(suite)
    return line if left is None else f"{line}; about {spell(left)} left"


def seconds_left(suite: Suite) -> float | None:
    """Estimate how long the trainings of a suite still take.

    Returns
    -------
    float or None
        Seconds; None as long as no interval was timed.
    """
    traces = {run.name: trace(run) for run in suite.runs}
    busy = union_length(span for found in traces.values() for span in found.spans)
    timed = sum(found.timed for found in traces.values())
    if busy <= 0 or timed == 0:
        return None
    left = sum(
        run.params.train.max_iters - min(traces[run.name].iterations, run.params.train.max_iters)
        for run in suite.runs
        if not paths.run_json(run.name).exists()
    )
    return left * busy / timed


def trace(run: Run) -> Trace:
    """Read a run's history, or the one that a training under way writes beside its checkpoints."""
    # Without a record, a history in the run's folder is of an earlier training, which this one takes the place of.
    finished = paths.run_json(run.name).exists()
    lines = _lines(paths.history(run.name) if finished else paths.growing_history(run.name))
    if not lines:
        return Trace(0, 0, ())
    steps = [(end - start, (before, after)) for (start, before), (end, after) in itertools.pairwise(lines)]
    usual = median([after - before for _, (before, after) in steps] or [0.0])
    worked = [(count, span) for count, span in steps if 0 < span[1] - span[0] <= _PAUSE * usual]
    return Trace(lines[-1][0], sum(count for count, _ in worked), tuple(span for _, span in worked))


def is_trained(run: Run) -> bool:
    """Whether a training would make again what is there: of the same params, data and code, and whole."""
    record = read_record(paths.run_json(run.name))
    # The history is written first: a workflow that cleared the way for its job meanwhile has removed that at least.
    there = paths.weights(run.name).is_file() and paths.history(run.name).is_file()
    if record is None or any(stale(run, record)) or not there:
        return False
    same_code = record.get("code", {}).get("digest") == provenance.code_digest()
    return bool(same_code and record.get("weights", {}).get("sha256") == sha256(paths.weights(run.name)))


def stale(run: Run, record: Mapping[str, Any]) -> list[str]:
    """Name what has changed since a training left its record; code is no part of it."""
    manifest = paths.manifest(run.params.edition, run.dataset)
    found = []
    if record.get("params_sha256") != run.digest():
        found.append("stale params")
    if manifest.exists() and record.get("manifest_sha256") != sha256(manifest):
        found.append("stale data")
    return found


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a run.json or a metrics file; None if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def union_length(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals.

    Examples
    --------
    >>> union_length([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def spell(seconds: float) -> str:
    """Spell a duration with two digits, in the unit that two digits suffice for.

    Examples
    --------
    >>> spell(7), spell(95), spell(270), spell(5400), spell(200000), spell(1e6)
    ('7 s', '95 s', '4.5 min', '90 min', '56 h', '11.6 days')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    for unit, length in (("min", 60), ("h", 3600)):
        if seconds < 99.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400:.1f} days"


def _runs_left(suite: Suite) -> bool:
    return not all(paths.metrics(run.name).exists() for run in suite.runs)


def _lines(path: Path) -> list[tuple[int, float]]:
    """Iteration and timestamp of each whole line; a line cut short by a kill ends the list."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()  # a crash may leave garbage
    except OSError:
        return []
    lines = []
    for text in texts:
        try:
            record = json.loads(text)
            lines.append((int(record["iteration"]), float(record["timestamp"])))
        except (ValueError, KeyError, TypeError):
            break
    return lines
