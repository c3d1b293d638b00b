"""What is wrong with raw data, told in one error that lists all of it; and which of it may be left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from gald.datasets._spec import DatasetSpec, RawSample
from gald.errors import DatasetError
from gald.prepare.convert import ALTERED, FATAL, Failure, Record
from gald.prepare.raw import altered_rest

_MOST_SHOWN = 40
_MOST_SKIPPED = 1000  # more are no few damaged files, and the manifest that names them has to stay small

_log = logging.getLogger("gald")


def check_rest(where: str, rest: Sequence[str], root: Path, listing: Mapping[str, str], threads: int) -> None:
    """Refuse altered files that no sample is held against, as lists.

    Parameters
    ----------
    where : str
        Edition and benchmark, for messages.
    rest : sequence of str
        Paths below `root`, as from `gald.prepare.raw.expecting`.
    root : Path
        Folder of the unpacked files.
    listing : mapping
        Sha256 of each of them.
    threads : int
        Files digested at a time.

    Raises
    ------
    DatasetError
        Some were altered; the message names them.
    """
    problems = [str(problem) for problem in altered_rest(rest, root, listing, threads)]
    _refuse(where, problems, f"{len(problems)} problem{_s(problems)} with the raw data ({ALTERED}: {len(problems)})")


def check_lists(spec: DatasetSpec, samples: Mapping[str, Sequence[RawSample]], edition: str) -> None:
    """Refuse unusable ids, missing masks, empty splits, and for the real benchmark other counts than published.

    Raises
    ------
    DatasetError
        The message lists all that is wrong.
    """
    problems = []
    for split, count in spec.counts.items():
        listed = samples.get(split, [])
        for name, times in Counter(sample.id for sample in listed).items():
            pure = PurePosixPath(name)
            if times > 1:
                problems.append(f"split {split} lists {name} {times} times")
            if not name or pure.is_absolute() or ".." in pure.parts:
                problems.append(f"split {split} lists {name!r}, which would be written outside its folder")
            if not _can_be_a_name(name):
                problems.append(f"split {split} lists {name!r}, which is no name for a file")
        bare = [sample.id for sample in listed if sample.mask is None]
        if bare and split in spec.labelled:
            problems += [f"split {split} lists {name} without a mask" for name in bare]
        if not listed or (edition == "full" and len(listed) != count):
            expected = count if edition == "full" else "some"
            problems.append(f"split {split} has {len(listed)} samples, expected {expected}")
    _refuse(f"{edition}/{spec.name}", problems, f"{len(problems)} problem{_s(problems)} with the lists of raw data")


def _can_be_a_name(name: str) -> bool:
    """Whether a file can be called so, and lists of files, which are lines of UTF-8, can say it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not any(character in name for character in "\0\r\n")


def judge(
    where: str,
    records: Mapping[str, Sequence[Record]],
    failures: Mapping[str, Sequence[Failure]],
    *,
    on_error: str,
) -> None:
    """Refuse what may not be left out, and say what is.

    Parameters
    ----------
    where : str
        Edition and benchmark, for messages.
    records, failures : mapping from split to sequence
        What could be prepared, and what could not.
    on_error : {"stop", "skip"}
        Whether anything may be left out.

    Raises
    ------
    DatasetError
        The message lists all that is wrong.
    """
    failed = sorted((one for listed in failures.values() for one in listed), key=lambda one: (one.split, one.id))
    problems = [problem for one in failed for problem in one.problems]
    if not problems:
        return
    kinds = Counter(problem.kind for problem in problems)
    counts = ", ".join(f"{kind}: {kinds[kind]}" for kind in sorted(kinds))
    fatal = [kind for kind in FATAL if kinds[kind]]
    empty = [split for split, listed in records.items() if not listed]
    why = ""
    if on_error == "skip":
        if fatal:
            why = f"; {' and '.join(fatal)} cannot be skipped, as a sign of other data than the benchmark's"
        elif empty:
            why = f"; nothing would be left of split {', '.join(empty)}"
        elif len(failed) > _MOST_SKIPPED:
            why = f"; of more than {_MOST_SKIPPED} samples, none is skipped"
        else:
            _log.warning("%s: leaves out %d samples (%s):", where, len(failed), counts)
            for problem in problems:
                _log.warning("  %s", problem)
            return
    _refuse(
        where,
        [str(problem) for problem in problems],
        f"{len(problems)} problem{_s(problems)} with the raw data ({counts}){why}",
    )


def _refuse(where: str, problems: list[str], what: str) -> None:
    """Raise one error that lists the problems, the rest of a very long list going to the log."""
    if not problems:
        return
    for problem in problems[_MOST_SHOWN:]:
        _log.error("%s: %s", where, problem)
    more = len(problems) - _MOST_SHOWN
    shown = [*problems[:_MOST_SHOWN], *([f"and {more} more, in the log"] if more > 0 else [])]
    listing = "\n  ".join(shown)
    raise DatasetError(
        f"{where}: {what}:\n  {listing}\nGet the named files again, or delete raw.json and run `gald download` again."
    )


def _s(problems: Sequence[object]) -> str:
    return "" if len(problems) == 1 else "s"
