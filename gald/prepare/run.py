"""The prepare stage: unpacked files -> trainId masks, images, an index per split, and manifest.json last.

One code for every benchmark and for both editions. All problems of the data are gathered and told together. The
folder takes its name only when it is whole.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from gald import locking, paths
from gald.datasets import load_spec
from gald.datasets._spec import DatasetSpec, RawSample
from gald.errors import DatasetError
from gald.files import replaced_folder, sha256, write_json, write_text
from gald.prepare import CONVERTER
from gald.prepare.index import render
from gald.prepare.masks import Prepared, prepare_sample

_MOST_SHOWN = 40

_log = logging.getLogger("gald")


class Params(Protocol):
    """What this stage needs of the ``prepare`` section."""

    @property
    def processes(self) -> int:
        """Number of worker processes; 1 converts in this one."""


def prepare(edition: str, dataset: str, params: Params) -> Path:
    """Make ``data/prepared/<edition>/<dataset>``.

    Parameters
    ----------
    edition : {"mini", "full"}
        Which raw data.
    dataset : str
        Name of a file in ``gald/datasets``.
    params : Params
        The prepare section; it does not change what is made.

    Returns
    -------
    Path
        The boundary file manifest.json.

    Raises
    ------
    DatasetError
        Nothing was downloaded, or the data is not what the benchmark promises; all problems in one list.
    RunBusy
        Another process prepares the same benchmark.
    OSError
        The disk is full or read-only.
    """
    spec = load_spec(dataset)
    boundary = paths.raw_json(edition, dataset)
    if not boundary.is_file():
        raise DatasetError(f"{boundary} is missing; run `gald download {edition}/{dataset}` first")
    try:
        raw_digest = str(json.loads(boundary.read_text())["tree_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{boundary} is damaged ({error}); delete it and run `gald download {edition}/{dataset}` again"
        ) from error
    samples = spec.index(paths.raw(edition, dataset) / "files")
    _check_lists(spec, samples, edition)
    folder = paths.prepared(edition, dataset)
    try:
        with locking.held(f"prepare/{edition}/{dataset}", wait_s=locking.WAIT_S), replaced_folder(folder) as partial:
            converted = _convert(spec, samples, partial, params.processes)
            _write(spec, edition, raw_digest, converted, partial)
    except OSError as error:
        if error.filename is None:  # that of a full disk names no file
            error.filename = str(folder)
        raise
    _log.info("%s/%s: %s", edition, dataset, ", ".join(f"{name} {len(rows)}" for name, rows in converted.items()))
    return paths.manifest(edition, dataset)


def _check_lists(spec: DatasetSpec, samples: dict[str, list[RawSample]], edition: str) -> None:
    """Refuse repeated ids, empty splits, and for the real benchmark any other count than the published one."""
    problems = []
    for split, count in spec.counts.items():
        listed = samples.get(split, [])
        problems += [
            f"split {split} lists {name} {times} times"
            for name, times in Counter(sample.id for sample in listed).items()
            if times > 1
        ]
        if not listed or (edition == "full" and len(listed) != count):
            problems.append(
                f"split {split} has {len(listed)} samples, expected {count if edition == 'full' else 'some'}"
            )
    _refuse(problems, f"{edition}/{spec.name}")


def _refuse(problems: list[str], where: str) -> None:
    """Raise one error that lists the problems, the rest of a very long list going to the log."""
    if not problems:
        return
    for problem in problems[_MOST_SHOWN:]:
        _log.error("%s: %s", where, problem)
    more = len(problems) - _MOST_SHOWN
    shown = [*problems[:_MOST_SHOWN], *([f"and {more} more, in the log"] if more > 0 else [])]
    raise DatasetError(
        f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''} with the raw data:\n  "
        + "\n  ".join(shown)
        + "\nGet the named files again, or delete raw.json and run `gald download` again."
    )


def _convert(
    spec: DatasetSpec, samples: dict[str, list[RawSample]], folder: Path, processes: int
) -> dict[str, list[Prepared]]:
    """Convert all splits, in order of id."""
    converted = {}
    for split in spec.counts:
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        ordered = sorted(samples[split], key=lambda sample: sample.id)
        work = partial(prepare_sample, spec.name, split=split, folder=folder)
        converted[split] = list(_progress(_run(work, ordered, processes), len(ordered), f"{spec.name} {split}"))
    _refuse([problem for rows in converted.values() for row in rows for problem in row.problems], spec.name)
    return converted


def _run(work: Any, samples: list[RawSample], processes: int) -> Iterator[Prepared]:
    """Map in this process, or in several; the results keep the order of the samples."""
    if processes <= 1:
        yield from map(work, samples)
        return
    try:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            yield from pool.map(work, samples, chunksize=8)
    except BrokenProcessPool as error:
        raise DatasetError(
            f"a process that converts masks was ended from outside; set prepare.processes below {processes}, or make "
            "memory free"
        ) from error


def _progress(results: Iterable[Prepared], total: int, name: str) -> Iterator[Prepared]:
    """Log how far it is every ten seconds."""
    begun = told = time.monotonic()
    for done, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if now - told >= 10.0:
            told = now
            _log.info("%s: %d of %d, %.0f s left", name, done, total, (now - begun) / done * (total - done))


def _write(
    spec: DatasetSpec, edition: str, raw_digest: str, converted: dict[str, list[Prepared]], folder: Path
) -> None:
    """Write the indices and then the manifest."""
    splits: dict[str, dict[str, str | int]] = {}
    pixel_counts, ignored, all_ignored = {}, {}, {}
    for split, rows in converted.items():
        path = folder / f"{split}.csv"
        write_text(path, render(row.row for row in rows))
        splits[split] = {"count": len(rows), "index": path.name, "sha256": sha256(path)}
        pixel_counts[split] = [sum(column) for column in zip(*(row.counts for row in rows), strict=True)]
        ignored[split] = sum(row.ignored for row in rows)
        all_ignored[split] = [str(row.row["id"]) for row in rows if not any(row.counts)]
        if all_ignored[split]:
            _log.warning("%s %s: nothing but ignored pixels in %s", spec.name, split, ", ".join(all_ignored[split]))
    write_json(
        folder / "manifest.json",
        {
            "edition": edition,
            "dataset": spec.name,
            "converter": CONVERTER,
            "raw_sha256": raw_digest,
            "classes": list(spec.class_names),
            "palette": [list(colour) for colour in spec.palette],
            "ignore_index": spec.ignore_index,
            "splits": splits,
            "pixel_counts": pixel_counts,
            "ignored_pixels": ignored,
            "all_ignored": all_ignored,
        },
    )
