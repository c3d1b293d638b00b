"""The prepare stage: unpacked files -> trainId masks, images, an index per split, and manifest.json last.

One code for every benchmark and for both editions. Work goes on in ``.<dataset>.part`` beside the final folder, which
survives kills and failures: the same command goes on there. All problems of the data are gathered and told together.
The folder takes its name only when it is whole.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from gald import locking, paths
from gald.datasets import load_spec
from gald.datasets._spec import DatasetSpec, RawSample
from gald.errors import DatasetError
from gald.files import take_place
from gald.prepare import manifest
from gald.prepare.convert import ALTERED, FATAL, Failure, Record, Task, convert
from gald.prepare.journal import Journal, still_true
from gald.prepare.pool import spread, workers
from gald.prepare.progress import Progress
from gald.prepare.raw import altered_rest, downloaded, expecting

_MOST_SHOWN = 40
_MOST_SKIPPED = 1000  # more are no few damaged files, and the manifest that names them has to stay small

_log = logging.getLogger("gald")


class Params(Protocol):
    """What this stage needs of the ``prepare`` section."""

    @property
    def processes(self) -> int | None:
        """Number of worker processes, None for one per usable core; 1 converts in this one."""

    @property
    def on_error(self) -> str:
        """Whether a sample that cannot be read is left out ("skip") or ends the preparation ("stop")."""


def prepare(edition: str, dataset: str, params: Params) -> Path:
    """Make ``data/prepared/<edition>/<dataset>``.

    Parameters
    ----------
    edition : {"mini", "full"}
        Which raw data.
    dataset : str
        Name of a file in ``gald/datasets``.
    params : Params
        The prepare section. The number of processes does not change what is made.

    Returns
    -------
    Path
        The boundary file manifest.json. Another process that downloads or prepares the same benchmark is waited for.

    Raises
    ------
    DatasetError
        Nothing was downloaded, or the data is not what the benchmark promises; all problems in one list.
    OSError
        The disk is full or read-only.
    """
    folder = paths.prepared(edition, dataset)
    part = folder.parent / f".{folder.name}.part"
    with (
        locking.held(f"download/{edition}/{dataset}", wait_s=math.inf, say=_log.warning),  # the raw files stay
        locking.held(f"prepare/{edition}/{dataset}", wait_s=math.inf, say=_log.warning),
    ):
        raw, listing = downloaded(edition, dataset)
        spec = load_spec(dataset, raw["source"])
        top = manifest.head(spec, edition, raw)
        try:
            whole = partial(manifest.is_whole, top=top, spec=spec, may_skip=params.on_error == "skip")
            if not _is_there(folder, part, whole):
                make(spec, top, paths.raw(edition, dataset) / "files", part, params, listing)
                take_place(part, folder)
        except OSError as error:
            if error.filename is None:  # that of a full disk names no file
                error.filename = str(folder)
            raise
    return paths.manifest(edition, dataset)


def _is_there(folder: Path, part: Path, whole: Callable[[Path], bool]) -> bool:
    """Whether nothing is left to do but to give a folder its name, if that."""
    if whole(folder):
        _log.info("%s: already prepared", folder)
        left_out = manifest.left_out(folder)
        if left_out:
            _log.warning("%s: without %d samples; delete its manifest.json to try them again", folder, left_out)
        shutil.rmtree(part, ignore_errors=True)
        return True
    if not Journal.present(part) and whole(part):  # stopped between its last line and its final name
        take_place(part, folder)
        return True
    return False


def make(
    spec: DatasetSpec,
    top: Mapping[str, Any],
    raw_root: Path,
    part: Path,
    params: Params,
    listing: Mapping[str, str] | None = None,
) -> None:
    """Convert what is not yet done, and write indices and manifest into the folder being made.

    Parameters
    ----------
    spec : DatasetSpec
        The benchmark in the form that was downloaded.
    top : mapping
        `manifest.head` of it.
    raw_root : Path
        Folder of the unpacked files.
    part : Path
        The folder being made; what an earlier call did there is not done again.
    params : Params
        The prepare section.
    listing : mapping, optional
        Sha256 of each unpacked file by its path below `raw_root`; without it no file is compared.

    Raises
    ------
    DatasetError
        See `prepare`.
    """
    edition = str(top["edition"])
    where = f"{edition}/{spec.name}"
    samples = spec.index(raw_root)
    order = list(spec.counts)
    tasks = [Task(split, one) for split in order for one in sorted(samples.get(split, []), key=lambda one: one.id)]
    if listing is not None:
        tasks, rest = expecting(tasks, raw_root, listing)
        _check_rest(where, rest, raw_root, listing, workers(params.processes, len(rest)))
    _check_lists(spec, samples, edition)
    part.mkdir(parents=True, exist_ok=True)
    (part / manifest.NAME).unlink(missing_ok=True)
    with Journal(part, top) as journal:
        if not journal.known:
            _empty(part, keep=journal.path)
        _make_folders(part, tasks)
        done = still_true(journal.records, tasks, part, workers(params.processes, len(journal.records)))
        if done:
            _log.info("%s: going on: %d of %d samples were done", where, len(done), len(tasks))
        records: dict[str, list[Record]] = {split: [] for split in order}
        failures: dict[str, list[Failure]] = {split: [] for split in order}
        for one in itertools.chain(done, _convert(spec, tasks, done, journal, part, params.processes)):
            if isinstance(one, Record):
                records[one.split].append(one)
            else:
                failures[one.split].append(one)
        _judge(where, records, failures, on_error=params.on_error)
        _sweep(part, {str(row.row[kind]) for rows in records.values() for row in rows for kind in ("image", "mask")})
        manifest.write(part, top, spec, records, failures, raw_root)
        journal.remove()
    _log.info("%s: %s", where, ", ".join(f"{split} {len(records[split])}" for split in order))


def _check_rest(where: str, rest: Sequence[str], root: Path, listing: Mapping[str, str], threads: int) -> None:
    """Refuse altered files that belong to no sample alone, as lists."""
    problems = [str(problem) for problem in altered_rest(rest, root, listing, threads)]
    _refuse(where, problems, f"{len(problems)} problem{_s(problems)} with the raw data ({ALTERED}: {len(problems)})")


def _check_lists(spec: DatasetSpec, samples: Mapping[str, Sequence[RawSample]], edition: str) -> None:
    """Refuse unusable ids, missing masks, empty splits, and for the real benchmark other counts than published."""
    problems = []
    for split, count in spec.counts.items():
        listed = samples.get(split, [])
        for name, times in Counter(sample.id for sample in listed).items():
            pure = PurePosixPath(name)
            if times > 1:
                problems.append(f"split {split} lists {name} {times} times")
            if not name or pure.is_absolute() or ".." in pure.parts:
                problems.append(f"split {split} lists {name!r}, which would be written outside its folder")
        bare = [sample.id for sample in listed if sample.mask is None]
        if bare and split in spec.labelled:
            problems.append(f"split {split} lists {len(bare)} samples without a mask: {', '.join(bare[:20])}")
        if not listed or (edition == "full" and len(listed) != count):
            expected = count if edition == "full" else "some"
            problems.append(f"split {split} has {len(listed)} samples, expected {expected}")
    _refuse(f"{edition}/{spec.name}", problems, f"{len(problems)} problem{_s(problems)} with the lists of raw data")


def _convert(
    spec: DatasetSpec,
    tasks: Sequence[Task],
    done: Sequence[Record],
    journal: Journal,
    part: Path,
    processes: int | None,
) -> Iterator[Record | Failure]:
    """Convert the samples that are not done, noting each in the journal."""
    known = {(record.split, record.row["id"]) for record in done}
    left = [task for task in tasks if (task.split, task.sample.id) not in known]
    totals = Counter(task.split for task in tasks)
    progress = Progress(spec.name, totals, Counter(record.split for record in done))
    work = partial(convert, spec.name, spec.source, part)
    for result in spread(work, left, workers(processes, len(left))):
        if isinstance(result, Record):
            journal.append(result)
        progress.count(result.split)
        yield result


def _judge(
    where: str,
    records: Mapping[str, Sequence[Record]],
    failures: Mapping[str, Sequence[Failure]],
    *,
    on_error: str,
) -> None:
    """Refuse what may not be left out, and say what is."""
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


def _empty(part: Path, *, keep: Path) -> None:
    """Remove what an attempt of another identity left."""
    for path in part.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != keep:
            path.unlink()


def _make_folders(part: Path, tasks: Sequence[Task]) -> None:
    """Make the folders of images and masks; ids may have folders of their own."""
    for parent in {(Path(task.split) / task.sample.id).parent for task in tasks}:
        for kind in ("images", "masks"):
            (part / kind / parent).mkdir(parents=True, exist_ok=True)


def _sweep(part: Path, wanted: set[str]) -> None:
    """Remove images and masks of samples that are no longer listed, or are left out now."""
    for kind in ("images", "masks"):
        for path in (part / kind).rglob("*"):
            if path.is_file() and path.relative_to(part).as_posix() not in wanted:
                path.unlink()
