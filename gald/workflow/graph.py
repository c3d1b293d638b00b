"""The graph of a suite: which files each stage makes, asks for and depends on.

The Snakefile reads the graph from here, so that it can be tested without Snakemake. Every file that a stage makes is
asked for by name: Snakemake does not rebuild a missing sibling of a file that it was asked for, and an old table must
never survive the loss of a run below it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from gald import paths
from gald.errors import GaldError
from gald.files import canonical_json
from gald.params import (
    Run,
    Suite,
    data_params,
    find_run,
    load_table,
    read_yaml,
    suite_names,
    suites_of_scale,
    validate_suite,
)
from gald.prepare import CONVERTER

STAGES = ("download", "prepare", "train", "evaluate", "tables")
TABLE_SUFFIXES = ("csv", "md", "tex", "html")
_PROBE_SECONDS = 10.0  # nvidia-smi hangs on a lost device


@cache
def suite(name: str) -> Suite:
    """Load and validate a suite, once per process."""
    return validate_suite(name)


def run(name: str) -> Run:
    """Look up a run by name; the suites of its scale are loaded once per process, and only as far as needed."""
    for owner in _suites(name.split("/")[0]):
        if name in _runs(owner):
            return _runs(owner)[name]
    return find_run(name)


def scales() -> list[str]:
    """Names of the folders that runs live under, sorted."""
    return sorted({scale for name in suite_names() for scale in _scale(name)})


def stage_files(suite: Suite, stage: str) -> list[str]:
    """Every file that one stage makes for a suite, in the order of its runs and tables.

    Parameters
    ----------
    suite : Suite
        Validated suite.
    stage : str
        One of `STAGES`.

    Returns
    -------
    list of str
        Paths relative to the repository's root.
    """
    files = {
        "download": _download_files,
        "prepare": _prepare_files,
        "train": _train_files,
        "evaluate": _evaluate_files,
        "tables": _tables_files,
    }[stage]
    return [str(path) for path in files(suite)]


def files_up_to(suite: Suite, last: str = "tables") -> list[str]:
    """Every file of a stage and of all stages above it."""
    return [path for stage in STAGES[: STAGES.index(last) + 1] for path in stage_files(suite, stage)]


def download_params(edition: str, dataset: str) -> str:
    """Spell what decides raw data, as canonical JSON: archives are pinned by digest, scenes are drawn from a seed."""
    download, _ = data_params()
    decided = {"edition": edition, "source": download.source(dataset)}
    if edition != "mini":
        return canonical_json(decided)
    from gald.datasets._synthetic import GENERATOR_VERSION

    return canonical_json({**decided, "generator": GENERATOR_VERSION, "seed": download.seed})


def prepare_params() -> str:
    """Spell what decides prepared data beside the raw data, as canonical JSON.

    How samples are stored is no part of it, nor what becomes of unreadable ones: to train everything again because the
    one failing benchmark was told to skip a file would be a poor service.
    """
    return canonical_json({"converter": CONVERTER})


def prepare_processes() -> int:
    """Processes that prepare one benchmark."""
    _, prepare = data_params()
    return prepare.processes or len(os.sched_getaffinity(0))


def table_params(suite: Suite, name: str) -> str:
    """Spell what decides a rendered table, apart from its metrics, as canonical JSON."""
    table = suite.table(name).model_dump(mode="json")
    cells = [cell.model_dump(mode="json") for cell in suite.cells[name]]
    return canonical_json({"table": table, "cells": cells, "edition": suite.edition})


def report_params(suite: Suite) -> str:
    """Spell what decides the start page and the tracked runs, apart from files, as canonical JSON."""
    tables = {table.name: load_table(table.name).title for table in suite.tables}
    return canonical_json({"title": suite.title, "tables": tables, "runs": [run.name for run in suite.runs]})


def gpus() -> int:
    """Count the CUDA devices that jobs may use, without importing torch."""
    if shutil.which("nvidia-smi") is None:
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(found.stdout.split())


def _scale(suite_name: str) -> Iterator[str]:
    try:
        yield str(read_yaml(paths.suite_params(suite_name)).get("scale", suite_name))
    except GaldError:
        return  # said when the suite is asked for


@cache
def _suites(scale: str) -> tuple[str, ...]:
    return tuple(suites_of_scale(scale))


@cache
def _runs(suite_name: str) -> dict[str, Run]:
    try:
        return {run.name: run for run in suite(suite_name).runs}
    except GaldError:
        return {}  # the search for a run that is not found says what is wrong


def _download_files(suite: Suite) -> Iterator[Path]:
    for dataset in suite.datasets:
        yield paths.raw_json(suite.edition, dataset)


def _prepare_files(suite: Suite) -> Iterator[Path]:
    _, prepare = data_params()
    for dataset in suite.datasets:
        yield paths.manifest(suite.edition, dataset)
        yield paths.audit(suite.edition, dataset)
        yield paths.objects(suite.edition, dataset)
        if prepare.store == "packed":
            yield paths.packed_json(suite.edition, dataset)


def _train_files(suite: Suite) -> Iterator[Path]:
    for run in suite.runs:
        yield from (paths.run_json(run.name), paths.weights(run.name), paths.run_params(run.name))
        yield from (paths.history(run.name), paths.history_csv(run.name))


def _evaluate_files(suite: Suite) -> Iterator[Path]:
    for run in suite.runs:
        yield from (paths.metrics(run.name), paths.predictions_json(run.name))


def _tables_files(suite: Suite) -> Iterator[Path]:
    for table in suite.tables:
        for suffix in TABLE_SUFFIXES:
            yield paths.table(suite.name, table.name, suffix)
    yield from (paths.index(suite.name), paths.figures(suite.name), paths.gallery(suite.name))
    yield paths.tracking_stamp(suite.name)
