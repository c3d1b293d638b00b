"""What must hold before the first job of a build, and what must leave, so that no time is spent in vain."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path

from gald import paths
from gald.errors import GaldError
from gald.params import Suite, data_params, suites_of_scale
from gald.workflow import graph


def check_devices(outputs: Iterable[str], gpus: int) -> None:
    """Refuse trainings that need a GPU on a machine without one.

    Parameters
    ----------
    outputs : iterable of str
        Files that jobs are about to make.
    gpus : int
        CUDA devices there are.

    Raises
    ------
    GaldError
        Some run wants a device that is not there; the message names it and the suites that need none.
    """
    wanting = [name for name in _runs_trained(outputs) if graph.run(name).params.train.device == "cuda"]
    if wanting and gpus == 0:
        raise GaldError(
            f"{len(wanting)} runs, {wanting[0]} for one, train on a GPU (train.device: cuda), and this machine has "
            "none; `camvid_cpu`, `mini`, `mini_full` and `smoke` need none. No job was started."
        )


def check_writable(outputs: Iterable[str]) -> None:
    """Refuse a build whose results could not be written, before it has spent hours on them.

    Parameters
    ----------
    outputs : iterable of str
        Files that jobs are about to make; the nearest folder there is of each must take a new file.

    Raises
    ------
    GaldError
        A folder takes no new file; the message says which, and why.
    """
    for folder in sorted({_nearest_existing(Path(path).parent) for path in outputs}):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise GaldError(
                f"{folder}: results cannot be written here ({reason}); mend that, then repeat the command. No job was "
                "started."
            ) from error


def check_complete(outputs: Iterable[str]) -> None:
    """Refuse to train or score on data from which samples were skipped, once the params forbid to skip any.

    What becomes of unreadable samples is no part of what makes Snakemake prepare again, so it would keep such data.

    Parameters
    ----------
    outputs : iterable of str
        Files that jobs are about to make; data that are among them are made by the params of now.

    Raises
    ------
    GaldError
        Prepared data lack samples; the message names them and the ways out.
    """
    if data_params()[1].on_error != "stop":
        return
    planned = set(outputs)
    runs = sorted(map(graph.run, _runs_made_again(planned)), key=attrgetter("name"))
    for edition, dataset in dict.fromkeys((run.params.edition, run.dataset) for run in runs):
        manifest = paths.manifest(edition, dataset)
        count = 0 if str(manifest) in planned else _skipped(manifest)
        if count:
            raise GaldError(
                f"{edition}/{dataset}: {count} sample{'' if count == 1 else 's'} skipped when it was prepared, see "
                f"{manifest}, and prepare.on_error is `stop` now; set prepare.on_error: skip in params/base.yaml to go "
                f"on without them, or mend the files and delete {manifest}. No job was started."
            )


def _skipped(manifest: Path) -> int:
    """Count the samples that a manifest lists as left out; of a damaged one, its readers speak."""
    try:
        return sum(map(len, json.loads(manifest.read_text(encoding="utf-8"))["skipped"].values()))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def _nearest_existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def withdraw_stale(outputs: Iterable[str]) -> list[str]:
    """Remove scores that are about to be made again, and the tables and pages of every suite that show them.

    Snakemake removes a job's outputs when the job starts; should a training fail for good, the table that shows its old
    number would never start, and stay. Left alone are a table that merely waits for a new row, and results of runs that
    were never in this folder, such as those that come with a clone.

    Parameters
    ----------
    outputs : iterable of str
        Files of every job that is about to run.

    Returns
    -------
    list of str
        What was removed; scores come last, so that a kill on the way leaves enough to find the rest again.
    """
    again = sorted(
        name for name in _runs_made_again(outputs) if paths.metrics(name).exists() and paths.run_dir(name).exists()
    )
    shown = [path for scale in sorted({name.split("/")[0] for name in again}) for path in _shown(scale, set(again))]
    removed = [path for path in [*shown, *map(paths.metrics, again)] if path.exists()]
    for path in removed:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return [str(path) for path in removed]


def _runs_trained(outputs: Iterable[str]) -> list[str]:
    found = (Path(path) for path in outputs)
    return ["/".join(path.parts[1:-1]) for path in found if path.parts[0] == "runs" and path.name == "run.json"]


def _runs_made_again(outputs: Iterable[str]) -> set[str]:
    """Runs whose weights or scores are among the files: a stage may stop before it scores what it trains."""
    planned = list(outputs)
    scored = (Path(path).parts for path in planned)
    return set(_runs_trained(planned)) | {
        f"{parts[1]}/{parts[3]}/{parts[4].removesuffix('.json')}"
        for parts in scored
        if len(parts) == 5 and parts[0] == "reports" and parts[2] == "metrics"
    }


def _shown(scale: str, runs: set[str]) -> Iterator[Path]:
    """Tables that show one of the runs, and the pages of their suites."""
    for name in suites_of_scale(scale):
        try:
            suite = graph.suite(name)
        except GaldError:
            continue  # refused, so nothing of it is built before its params are mended
        tables = [table for table, cells in suite.cells.items() if any(cell.run in runs for cell in cells)]
        yield from (paths.table(name, table, suffix) for table in tables for suffix in graph.TABLE_SUFFIXES)
        if tables:
            yield from _pages(suite)


def _pages(suite: Suite) -> Iterator[Path]:
    yield from (paths.index(suite.name), paths.figures(suite.name), paths.gallery(suite.name))
