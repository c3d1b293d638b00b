"""`gald evaluate RUN` with a question of its own: another protocol or split, masks to keep, a test server's archive.

Nothing of it enters the tables: what they show is what the params ask for. Images without a truth are predicted, and
nothing is scored.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gald import files, locking, paths, provenance
from gald.commands._evaluation_masks import MaskFolder, SubmissionArchive
from gald.commands._predict_files import plan
from gald.commands.predict import read
from gald.datasets import load_spec
from gald.datasets._objects import read_edges
from gald.datasets._reader import PreparedSplit, Store
from gald.errors import DatasetError, ParamsError
from gald.evaluate.journal import Journal
from gald.evaluate.predictor import Predictor
from gald.evaluate.protocol import protocol
from gald.evaluate.record import checked_record, scored
from gald.evaluate.run import count_split, identity, percent, threads
from gald.metrics import Mask
from gald.metrics.counts import CountTable, Layout, count_image
from gald.params import SCORES, EvaluateParams, Run, load_protocol

_TELL_EVERY_S = 5.0
_LOG = logging.getLogger("gald.evaluate")


@dataclass(frozen=True)
class Question:
    """What is asked beside the params.

    Attributes
    ----------
    protocol, split : str or None
        Other than the run's own.
    images : Path or None
        Folder of images without a truth, in the place of a split.
    masks : Path or None
        Folder for all predicted masks.
    submission : Path or None
        Zip for the benchmark's test server.
    out : Path or None
        JSON file for protocol and scores.
    """

    protocol: str | None = None
    split: str | None = None
    images: Path | None = None
    masks: Path | None = None
    submission: Path | None = None
    out: Path | None = None


class _Image(NamedTuple):
    """One image to predict, and its truth where there is one."""

    id: str
    pixels: npt.NDArray[np.uint8]
    truth: Mask | None


class _Writer(Protocol):
    def write(self, sample_id: str, mask: Mask) -> None: ...


def evaluate_otherwise(run: Run, question: Question, *, store: Store = "auto") -> str:
    """Predict with a trained run, score where there is a truth, and keep what is asked for.

    Parameters
    ----------
    run : Run
        Trained, with the params it has now.
    question : Question
    store : {"auto", "packed", "files"}
        Where pixels are read from.

    Returns
    -------
    str
        The scores, or that there is no truth, as lines for the terminal.

    Raises
    ------
    StaleMetrics
        The run is not trained, or its weights, params or data are not those that run.json promises.
    DatasetError
        The split is missing or damaged, or the test server does not know an image.
    ParamsError
        The question contradicts itself; nothing is predicted then.
    """
    params = _asked(run, question)
    folder = paths.prepared(run.params.edition, run.dataset)
    split = PreparedSplit(folder, [params.split], store=store, source=run.params.source)
    classes = list(split.manifest["classes"])
    checked_record(run, split.manifest_sha256)
    pictures = None if question.images is None else _pictures(question.images)
    labelled = pictures is None and bool(split.manifest["splits"][params.split].get("labelled", True))
    _check(question, params.split, labelled)
    layout = Layout(len(classes), read_edges(run.params.edition, run.dataset) if labelled else (1, 2, 3))
    ids = split.ids if pictures is None else list(pictures)
    images = _of_split(split) if pictures is None else _of_folder(pictures)
    with ExitStack() as stack:
        writers = _writers(question, run, ids, stack)
        stack.enter_context(threads(params.threads))
        predictor = Predictor(run, params, classes)
        if writers:
            answered = _answered(images, predictor, writers, layout, len(ids))
        else:
            answered = _counted(run, predictor, split, layout, stack)
        # Collected as they come: an image's counts take megabytes until the table keeps what is not zero of them.
        table = CountTable.of(tuple(ids) if labelled else (), layout, answered)
    if not labelled:
        return f"{len(ids)} images predicted; there is no ground truth, so nothing is scored\n" + _kept(question)
    found = {
        "run": run.name,
        "protocol": protocol(params, len(classes)),
        "images": len(ids),
        **scored(table, classes),
        "run_sha256": files.sha256(paths.run_json(run.name)),
        "manifest_sha256": split.manifest_sha256,
        "evaluation_code_digest": provenance.code_digest(),
    }
    if question.out is not None:
        files.write_json(question.out, found)
    return describe(found) + _kept(question)


def describe(found: dict[str, Any]) -> str:
    """Spell scores under their protocol, a line each."""
    lines = [f"{found['protocol']['text']}; {found['images']} images", ""]
    lines += [f"{title.removesuffix(' (%)'):<48} {percent(found['scores'][name])}" for name, title in SCORES.items()]
    lines += ["", *(f"{row['name']:<48} {percent(row['iou'])}" for row in found["per_class"] if row["iou"] is not None)]
    if found["absent"]:
        lines += ["", f"absent from the truth, and left out of every mean: {', '.join(found['absent'])}"]
    return "\n".join(lines) + "\n"


def _asked(run: Run, question: Question) -> EvaluateParams:
    params = run.params.evaluate
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ParamsError("processes share only what the params ask for; start a question of its own without torchrun")
    if question.protocol is not None:
        found = load_protocol(question.protocol, list(run.params.train.crop_size), paths.PARAMS)
        params = params.model_copy(update={"protocol": found})
    if question.split is not None:
        if question.images is not None:
            raise ParamsError("--split and --images name two sources; give one")
        params = params.model_copy(update={"split": question.split})
    return params.model_copy(update={"gallery": 0})


def _check(question: Question, split: str, labelled: bool) -> None:
    """Refuse what would predict for nothing."""
    if not labelled and question.masks is None and question.submission is None:
        what = question.images or f"split {split!r}"
        raise ParamsError(
            f"{what} has no ground truth to score: add --save-predictions FOLDER or --submission FILE.zip"
        )
    for option, path in (("-o", question.out), ("--submission", question.submission)):
        if path is not None and path.is_dir():
            raise ParamsError(f"{option} {path} is a folder; name a file")
    if not labelled and question.out is not None:
        raise ParamsError(f"-o {question.out}: there is no ground truth, so there are no scores to write; leave it out")


def _writers(question: Question, run: Run, ids: list[str], stack: ExitStack) -> list[_Writer]:
    spec = load_spec(run.dataset, run.params.source)
    writers: list[_Writer] = []
    if question.masks is not None:
        writers.append(MaskFolder(question.masks, spec))
    if question.submission is not None:
        writers.append(stack.enter_context(SubmissionArchive(question.submission, spec, ids)))
        if spec.submission is not None and len(ids) != spec.submission.images:
            _LOG.warning(
                "the server of %s expects %d images, these are %d", spec.title, spec.submission.images, len(ids)
            )
    return writers


def _answered(
    images: Iterator[_Image], predictor: Predictor, writers: Sequence[_Writer], layout: Layout, total: int
) -> Iterator[dict[str, Any]]:
    """Predict each image, hand its mask to the writers, and count it where there is a truth."""
    told = time.monotonic()
    for number, image in enumerate(images, 1):
        shape = (image.pixels if image.truth is None else image.truth).shape
        mask = predictor(image.pixels, (shape[0], shape[1]))
        for writer in writers:
            writer.write(image.id, mask)
        if image.truth is not None:
            yield count_image(image.truth, mask, layout)
        if time.monotonic() - told > _TELL_EVERY_S:
            told = time.monotonic()
            _LOG.info("%d of %d images", number, total)


def _counted(
    run: Run, predictor: Predictor, split: PreparedSplit, layout: Layout, stack: ExitStack
) -> Iterator[dict[str, Any]]:
    """Count a split as the stage does, so that a question whose answer takes hours goes on after a kill."""
    made_of = identity(run, predictor.params, split, layout)
    folder = paths.question_dir(run.name, made_of)
    stack.enter_context(locking.held(f"questions/{run.name}/{made_of[:16]}", wait_s=locking.WAIT_S))
    journal = stack.enter_context(Journal(folder, made_of, layout))
    count_split(run.name, predictor, split, journal, layout)
    yield from journal.counts(range(len(split)))
    journal.remove()


def _of_split(split: PreparedSplit) -> Iterator[_Image]:
    for index, sample_id in enumerate(split.ids):
        yield _Image(sample_id, *split.verified_pixels(index))


def _pictures(folder: Path) -> dict[str, Path]:
    """Pictures of a folder by id: their relative path without suffix."""
    if not folder.is_dir():
        raise DatasetError(f"--images {folder}: no such folder")
    jobs, problems = plan([folder], Path(".no-results-here"))
    if problems:
        raise DatasetError("\n".join(problems))
    found: dict[str, Path] = {}
    for job in jobs:
        name = job.image.relative_to(folder).with_suffix("").as_posix()
        if found.setdefault(name, job.image) != job.image:
            raise DatasetError(f"--images: {found[name]} and {job.image} would have one mask; rename one of them")
    return found


def _of_folder(pictures: dict[str, Path]) -> Iterator[_Image]:
    return (_Image(sample_id, read(path), None) for sample_id, path in pictures.items())


def _kept(question: Question) -> str:
    kept = [(question.masks, "masks"), (question.submission, "archive for the test server"), (question.out, "scores")]
    return "".join(f"{what}: {path}\n" for path, what in kept if path is not None)
