"""What a training is of: a run, its data, and the code as it was when it began."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gald import paths, provenance
from gald.datasets._reader import PreparedSplit, Store
from gald.errors import DatasetError, TrainingInterrupted
from gald.params import Run
from gald.process import locking

_LOG = logging.getLogger("gald.train")
_LOOK_S = 0.1
_WAITS_MUCH = 0.2


@dataclass(frozen=True)
class Task:
    """A run together with what it is trained on, and what it is validated on if it is."""

    run: Run
    split: PreparedSplit
    validation: PreparedSplit | None
    code: dict[str, Any]  # as it was when the training began: files may change while it runs

    @property
    def classes(self) -> list[str]:
        """Names of the benchmark's classes, in order."""
        names: list[str] = self.split.manifest["classes"]
        return names

    @property
    def identity(self) -> dict[str, str]:
        """What a checkpoint must be of to be gone on from."""
        return {"params": self.run.digest(), "data": self.split.manifest_sha256}

    @property
    def folder(self) -> Path:
        """Where checkpoints, growing history and best weights lie until the training ends."""
        return paths.checkpoint_dir(self.run.name)

    @property
    def growing_history(self) -> Path:
        """History of a training under way; Snakemake removes declared outputs, and DVC's cache is read-only."""
        return paths.growing_history(self.run.name)


def task_of(run: Run, store: Store, reason: Callable[[], str | None]) -> Task:
    """Find what a run is trained on.

    Raises
    ------
    DatasetError
        The dataset is not prepared, of another source, or has no samples for it.
    TrainingInterrupted
        There came a `reason` to stop while a store was waited for.
    """
    name = f"{run.params.edition}/{run.dataset}"
    if store != "files":  # one under way is worth the wait: without it every image would be decoded again and again
        _wait_for_store(f"pack/{name}", reason)
    split = _split(run, run.params.train.splits, store)
    validation = run.params.train.validation
    scored = _split(run, [validation.split], store) if validation.every else None
    if store == "auto" and not paths.packed_json(run.params.edition, run.dataset).exists():
        _LOG.info("%s: images are decoded while training; after `gald pack %s` they would come faster", run.name, name)
    code = {"commit": provenance.commit(), "digest": provenance.code_digest(), "dirty": provenance.is_dirty()}
    return Task(run, split, scored, code)


def _wait_for_store(lock: str, reason: Callable[[], str | None]) -> None:
    told = False
    while locking.is_held(lock):
        stop_early(reason)
        if not told:
            path = paths.lock(lock)
            _LOG.info("waiting for %s, which holds %s", path.read_text("utf-8").strip() or "another process", path)
            told = True
        time.sleep(_LOOK_S)


def _split(run: Run, splits: list[str] | tuple[str, ...], store: Store) -> PreparedSplit:
    folder = paths.prepared(run.params.edition, run.dataset)
    split = PreparedSplit(folder, splits, store=store, source=run.params.source)
    if len(split) == 0:
        raise DatasetError(f"{split.folder}: no samples in {', '.join(split.splits)}; prepare the dataset again")
    return split


def waiting_advice(share: float, task: Task) -> str:
    """Say what makes images come faster; nothing where at most a fifth of the time goes by in waiting for them.

    Parameters
    ----------
    share : float
        Of the time.
    task : Task
        Its params, and where its pixels are read from, say what is left to do.
    """
    if share <= _WAITS_MUCH:
        return ""
    params = task.run.params.train
    ways = [f"raise train.workers (now {params.workers})"]
    if not task.split.packed:
        ways.insert(0, f"run `gald pack {task.run.params.edition}/{task.run.dataset}`")
    return f"{100 * share:.0f} % of the time goes by in waiting for images; {', or '.join(ways)}"


def stop_early(reason: Callable[[], str | None]) -> None:
    """End a training that has a reason to stop before its first iteration.

    Raises
    ------
    TrainingInterrupted
        It has.
    """
    why = reason()
    if why is not None:
        raise TrainingInterrupted(f"stopped before the first iteration, because {why}; the same command goes on")
