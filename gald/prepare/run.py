"""The prepare stage: unpacked files -> trainId masks, images, an index per split, and manifest.json last.

One code for every benchmark and for both editions. Work goes on in ``.<dataset>.part`` beside the final folder, which
survives kills and failures: the same command goes on there. All problems of the data are gathered and told together.
The folder takes its name only when it is whole. One that is there is compared with its digests, file by file: what is
damaged of it is made again, and the rest stays.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from gald import paths
from gald.datasets import load_spec
from gald.datasets._spec import DatasetSpec, RawSample
from gald.errors import DatasetError
from gald.files import take_place
from gald.prepare import manifest
from gald.prepare.convert import Failure, Record, Task, convert
from gald.prepare.journal import Journal, keep, reopen, still_true
from gald.prepare.pool import spread, workers
from gald.prepare.problems import check_lists, check_rest, judge
from gald.prepare.progress import Progress
from gald.prepare.raw import downloaded, expecting
from gald.process import locking

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
                reopen(folder, part, top)
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
    samples = _listed(spec, edition, raw_root, params, listing or {})
    order = list(spec.counts)
    tasks = [Task(split, one) for split in order for one in sorted(samples.get(split, []), key=lambda one: one.id)]
    if listing is not None:
        tasks, rest = expecting(tasks, raw_root, listing)
        check_rest(where, rest, raw_root, listing, workers(params.processes, len(rest)))
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
        judge(where, records, failures, on_error=params.on_error)
        _sweep(part, {str(row.row[kind]) for rows in records.values() for row in rows for kind in ("image", "mask")})
        keep(part, top, [row for split in order for row in sorted(records[split], key=lambda row: str(row.row["id"]))])
        manifest.write(part, top, spec, records, failures, raw_root)
        journal.remove()
    _log.info("%s: %s", where, ", ".join(f"{split} {len(records[split])}" for split in order))


def _listed(
    spec: DatasetSpec, edition: str, raw_root: Path, params: Params, listing: Mapping[str, str]
) -> dict[str, list[RawSample]]:
    """List the samples; where that fails and a raw file was altered, say so instead, since it may be the reason."""
    try:
        samples = spec.index(raw_root)
        check_lists(spec, samples, edition)
    except DatasetError:
        where = f"{edition}/{spec.name}"
        check_rest(where, list(listing), raw_root, listing, workers(params.processes, len(listing)))
        raise
    return samples


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
