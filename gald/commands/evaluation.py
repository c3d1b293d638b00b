"""`gald evaluate RUN` with a question of its own: another protocol or split, masks to keep, a test server's archive.

Nothing of it enters the tables: what they show is what the params ask for. Images without a truth are predicted, and
nothing is scored. Predictions are kept image by image, so that after a kill the same command goes on; under torchrun
the processes share the images, and the first writes what was asked for when all are predicted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gald import files, paths, provenance
from gald.commands._evaluation_images import Photographs
from gald.commands._evaluation_masks import KeptMasks, MaskFolder, SubmissionArchive
from gald.commands._targets import check_file, check_folder
from gald.commands.export_weights import best_weights
from gald.datasets import load_spec
from gald.datasets._objects import read_edges
from gald.datasets._reader import PreparedSplit, Store
from gald.datasets._spec import DatasetSpec
from gald.errors import ParamsError
from gald.evaluate.counting import Images, Pixels, Place, count_images, identity, place, state
from gald.evaluate.journal import Journal
from gald.evaluate.predictor import Predictor
from gald.evaluate.protocol import protocol
from gald.evaluate.record import checked_record, scored
from gald.evaluate.run import percent
from gald.metrics import Mask
from gald.metrics.counts import CountTable, Layout
from gald.params import SCORES, EvaluateParams, Run, load_protocol
from gald.process import locking
from gald.process.threads import torch_threads

_NO_OBJECTS = (1, 2, 3)  # areas that nothing is counted by
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
    best : bool
        The weights that validated best, on a split that did not choose them, instead of the last ones.
    """

    protocol: str | None = None
    split: str | None = None
    images: Path | None = None
    masks: Path | None = None
    submission: Path | None = None
    out: Path | None = None
    best: bool = False


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
        The scores, or that there is no truth, as lines for the terminal; empty but from the first of several processes.

    Raises
    ------
    StaleMetrics
        The run is not trained, or its weights, params or data are not those that run.json promises.
    DatasetError
        The split is missing or damaged, or the test server does not know an image.
    ParamsError
        The question contradicts itself; nothing is predicted then.
    """
    params, shared = _asked(run, question), place()
    folder = paths.prepared(run.params.edition, run.dataset)
    split = PreparedSplit(folder, [params.split], store=store, source=run.params.source)
    record = checked_record(run, split.manifest_sha256)
    weights = best_weights(run, record) if question.best else None
    photographs = None if question.images is None else Photographs(question.images)
    images: Images = photographs or split
    labelled = photographs is None and split.labelled
    _check(question, params.split, labelled)
    edges = read_edges(run.params.edition, run.dataset) if labelled else _NO_OBJECTS
    layout = Layout(len(split.manifest["classes"]), edges)
    writers = _writers(question, load_spec(run.dataset, run.params.source), images.ids)
    content = split.manifest_sha256 if photographs is None else photographs.digest()
    made_of = files.digest([identity(run, params, content, layout), bool(writers), question.best])
    everything, found = range(len(images.ids)), None
    with torch_threads(params.threads), _under_way(run, made_of, layout, shared) as journal:
        predictor = Predictor(run, params, split.manifest["classes"], shared.local, weights)
        kept = KeptMasks(journal.folder)
        keep = kept.keep if writers else _keep_nothing
        count_images(run.name, images, predictor, journal, layout, shared, keep)
        if shared.rank:
            return ""
        journal.wait_for(everything)
        if labelled:
            found = _found(run, params, split, CountTable.of(tuple(split.ids), layout, journal.counts(everything)))
            found |= _best(run, record) if question.best else {}
        if found is not None and question.out is not None:
            files.write_json(question.out, found)
        for writer in writers:
            writer.write(kept.masks(images.ids))
        journal.remove()
    unscored = f"{len(images.ids)} images predicted; there is no ground truth, so nothing is scored\n"
    return (unscored if found is None else describe(found)) + _written(question)


@contextmanager
def _under_way(run: Run, made_of: str, layout: Layout, shared: Place) -> Iterator[Journal]:
    """Open what is known of the answer; the first of several processes has it to itself."""
    now = state(run)
    lock = locking.held(_lock(run.name, made_of[:16]), wait_s=locking.WAIT_S)
    folder = paths.question_dir(run.name, now, made_of)
    with lock if shared.rank == 0 else nullcontext():
        if shared.rank == 0:
            _drop_stale(run.name, now)
        with Journal(folder, made_of, layout, shared.rank, shared.size, shared.group) as journal:
            yield journal


def _drop_stale(name: str, now: str) -> None:
    """Remove what stopped questions have left that no command goes on with: weights or code have changed since."""
    for folder in paths.questions_dir(name).glob("*"):
        if folder.name != now[:16] and not any(locking.is_held(_lock(name, one.name)) for one in folder.glob("*")):
            files.remove_folder(folder)


def _lock(name: str, question: str) -> str:
    return f"questions/{name}/{question}"


def _found(run: Run, params: EvaluateParams, split: PreparedSplit, table: CountTable) -> dict[str, Any]:
    classes = split.manifest["classes"]
    return {
        "run": run.name,
        "protocol": protocol(params, len(classes)),
        "images": len(split),
        **scored(table, classes),
        "run_sha256": files.sha256(paths.run_json(run.name)),
        "manifest_sha256": split.manifest_sha256,
        "evaluation_code_digest": provenance.code_digest(),
    }


def _best(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    """Say which weights these are; the tables and reports show the last ones alone."""
    best = {key: record["best"][key] for key in ("iteration", "sha256")}
    return {"best": best | {"chosen_on": run.params.train.validation.split}}


def describe(found: dict[str, Any]) -> str:
    """Spell scores under their protocol, a line each."""
    lines = [f"{found['protocol']['text']}; {found['images']} images", ""]
    if "best" in found:
        lines[1:1] = [
            "weights of iteration {iteration}, the best on {chosen_on}, not the last ones".format(**found["best"])
        ]
    lines += [f"{title.removesuffix(' (%)'):<48} {percent(found['scores'][name])}" for name, title in SCORES.items()]
    lines += ["", *(f"{row['name']:<48} {percent(row['iou'])}" for row in found["per_class"] if row["iou"] is not None)]
    if found["absent"]:
        lines += ["", f"absent from the truth, and left out of every mean: {', '.join(found['absent'])}"]
    return "\n".join(lines) + "\n"


def _asked(run: Run, question: Question) -> EvaluateParams:
    params = run.params.evaluate
    if question.protocol is not None:
        found = load_protocol(question.protocol, list(run.params.train.crop_size), paths.PARAMS)
        params = params.model_copy(update={"protocol": found})
    if question.split is not None:
        if question.images is not None:
            raise ParamsError("--split and --images name two sources; give one")
        params = params.model_copy(update={"split": question.split})
    if question.best and question.images is None and params.split == run.params.train.validation.split:
        raise ParamsError(
            f"--best: {run.name} chose its best weights on {params.split!r}, whose scores would flatter them; give "
            "another --split"
        )
    return params.model_copy(update={"gallery": 0})


def _check(question: Question, split: str, labelled: bool) -> None:
    """Refuse what would predict for nothing."""
    if not labelled and question.masks is None and question.submission is None:
        what = question.images or f"split {split!r}"
        raise ParamsError(
            f"{what} has no ground truth to score: add --save-predictions FOLDER or --submission FILE.zip"
        )
    check_file("-o", question.out)
    check_file("--submission", question.submission)
    check_folder("--save-predictions", question.masks)
    if not labelled and question.out is not None:
        raise ParamsError(f"-o {question.out}: there is no ground truth, so there are no scores to write; leave it out")


def _writers(question: Question, spec: DatasetSpec, ids: Sequence[str]) -> list[MaskFolder | SubmissionArchive]:
    """What writes masks; the folder comes last, since the same command is refused once it holds something."""
    writers: list[MaskFolder | SubmissionArchive] = []
    if question.submission is not None:
        writers.append(SubmissionArchive(question.submission, spec, ids))
        if spec.submission is not None and len(ids) != spec.submission.images:
            _LOG.warning(
                "the server of %s expects %d images, these are %d", spec.title, spec.submission.images, len(ids)
            )
    if question.masks is not None:
        writers.append(MaskFolder(question.masks, spec))
    return writers


def _keep_nothing(index: int, image: Pixels, mask: Mask) -> None:
    """Leave a prediction to the counts."""


def _written(question: Question) -> str:
    written = [
        (question.masks, "masks"),
        (question.submission, "archive for the test server"),
        (question.out, "scores"),
    ]
    return "".join(f"{what}: {path}\n" for path, what in written if path is not None)
