"""Evaluate stage: run.json, weights and manifest in; predictions, counts and, last of all, the metrics out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gald import files, locking, paths, provenance
from gald.datasets._objects import read_edges
from gald.datasets._reader import PreparedSplit, Sample, Store
from gald.errors import DatasetError, ParamsError
from gald.evaluate.cost import cost
from gald.evaluate.journal import Journal
from gald.evaluate.predictor import Predictor, palette_png
from gald.evaluate.record import checked_record, metrics
from gald.memory import keep_freed_memory
from gald.metrics import Mask
from gald.metrics.counts import CountTable, Layout, count_image
from gald.params import EvaluateParams, Run

_TELL_EVERY_S = 15.0
_HEADLINE = itemgetter("mean_iou", "trimap_mean_iou_3")
_STARTED = ("MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")  # the same for processes of one start
_LOG = logging.getLogger("gald.evaluate")


class Place(NamedTuple):
    """Which of several processes this is, as torchrun says it, which of its machine's, and of which start."""

    rank: int
    size: int
    local: int
    group: str


def evaluate(run: Run, *, store: Store = "auto") -> None:
    """Score a trained run on its evaluation split.

    What is counted is kept image by image, so that after a kill the same command goes on. Under torchrun the processes
    share the images; each is counted once, and the counts add up to those of a single process.

    Parameters
    ----------
    run : Run
        Name and params; it must be trained, with the very params it has now.
    store : {"auto", "packed", "files"}
        Where pixels are read from, see `PreparedSplit`; every sample is held against its digests either way.

    Raises
    ------
    StaleMetrics
        The run is not trained, or its weights, params or data are not those that run.json promises.
    DatasetError
        The split is missing, empty, damaged or of another source.
    """
    params, place = run.params.evaluate, _place()
    first = place.rank == 0
    with locking.held(run.name, wait_s=locking.WAIT_S) if first else nullcontext(), threads(params.threads):
        if first and paths.run_dir(run.name).exists():  # else the scores came with a clone, and are not ours to lose
            paths.metrics(run.name).unlink(missing_ok=True)  # numbers of other weights must not outlive a failure
        split = PreparedSplit(
            paths.prepared(run.params.edition, run.dataset), [params.split], store=store, source=run.params.source
        )
        if len(split) == 0:
            raise DatasetError(f"{split.folder}: split {params.split!r} is empty; prepare the dataset again")
        record = checked_record(run, split.manifest_sha256)
        layout = Layout(len(split.manifest["classes"]), read_edges(run.params.edition, run.dataset))
        predictor = Predictor(run, params, split.manifest["classes"], place.local)
        made_of, shared = identity(run, params, split, layout), (place.rank, place.size, place.group)
        with Journal(paths.evaluation_dir(run.name), made_of, layout, *shared) as journal:
            count_split(run.name, predictor, split, journal, layout, place)
            if not first:
                return
            journal.wait_for(range(len(split)))
            table = CountTable.of(tuple(split.ids), layout, journal.counts(range(len(split))))
            _publish(run, split, journal.folder, table)
            price = cost(predictor.model, run.params.train.crop_size)
            found = metrics(run, record, split, table, price)
            files.write_json(paths.metrics(run.name), found)
            journal.remove()
    _LOG.info("%s: mIoU %s, within 3 px of a boundary %s", run.name, *map(percent, _HEADLINE(found["scores"])))


def percent(score: float | None) -> str:
    """Spell a fraction for a message."""
    return "absent" if score is None else f"{100 * score:.1f} %"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads for the length of the block."""
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _place() -> Place:
    try:
        rank, size, local = (int(os.environ.get(name, default)) for name, default in
                             (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))  # fmt: skip
    except ValueError as error:
        raise ParamsError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers ({error}); unset them") from None
    if not 0 <= rank < size:
        raise ParamsError(f"RANK is {rank}, but WORLD_SIZE {size}; start with torchrun, or unset both")
    started = [os.environ.get(name, "") for name in _STARTED]
    return Place(rank, size, local, " ".join(started).strip() if size > 1 else "")


def identity(run: Run, params: EvaluateParams, split: PreparedSplit, layout: Layout) -> str:
    """Digest of all that decides what is counted, as 64 hex digits."""
    run_sha256, code = files.sha256(paths.run_json(run.name)), provenance.code_digest()
    libraries = [torch.__version__, np.__version__]  # their last bits may differ: half of each would be neither
    asked = params.model_dump(mode="json")
    made_with = [run_sha256, split.manifest_sha256, asked, list(layout.area_edges), code, libraries]
    return files.digest(made_with)


def count_split(
    name: str,
    predictor: Predictor,
    split: PreparedSplit,
    journal: Journal,
    layout: Layout,
    place: Place = Place(0, 1, 0, ""),  # noqa: B008 - a tuple, which nobody can change
) -> None:
    """Predict and count this process's share of the images that nobody has counted yet.

    Parameters
    ----------
    name : str
        What is evaluated, for messages.
    predictor : Predictor
        Its params say how many predictions are kept as pictures, beside the journal.
    split : PreparedSplit
        Images and truth.
    journal : Journal
        Knows what is counted, and takes the counts.
    layout : Layout
    place : Place
        Which of several processes this is.

    Raises
    ------
    DatasetError
        A sample is damaged.
    """
    done = journal.indices()
    left = [index for index in range(place.rank, len(split), place.size) if index not in done]
    if done and place.rank == 0:
        _LOG.info("%s: going on after %d of %d images", name, len(done), len(split))
    kept = gallery_indices(len(split), predictor.params.gallery)

    def predicted() -> Iterator[tuple[int, Mask, Mask]]:
        for index in left:
            sample = split.verified(index)
            mask = predictor(sample.image, (sample.mask.shape[0], sample.mask.shape[1]))
            if index in kept:
                _keep(journal.folder / _kept_name(index, sample.id), sample, mask, split.manifest["palette"], predictor)
            yield index, sample.mask, mask

    counters = 0 if predictor.model.mean.device.type == "cpu" else predictor.params.threads
    told, total = time.monotonic(), len(left)
    for number, (index, counts) in enumerate(counted(predicted(), layout, counters), 1):
        journal.append(index, counts)
        if place.rank == 0 and time.monotonic() - told > _TELL_EVERY_S:
            told = time.monotonic()
            counted_by_all = max(0, len(split) - (total - number) * place.size)  # the others are about as far
            _LOG.info("%s: %d of %d images", name, counted_by_all, len(split))


def counted(
    predicted: Iterable[tuple[int, Mask, Mask]], layout: Layout, counters: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Count images in threads beside the one that predicts: a GPU need not wait for what a CPU counts.

    Parameters
    ----------
    predicted : iterable of (int, uint8 array (H, W), uint8 array (H, W))
        Index, truth and prediction of each image.
    layout : Layout
    counters : int
        Threads; with 0 the caller's own counts, and as many as twice the threads wait for their turn.

    Yields
    ------
    int, dict
        Index and counts, in the order given.
    """
    if counters == 0:
        for index, truth, prediction in predicted:
            yield index, count_image(truth, prediction, layout)
        return
    waiting: list[tuple[int, Future[dict[str, Any]]]] = []
    with ThreadPoolExecutor(counters) as pool:
        for index, truth, prediction in predicted:
            waiting.append((index, pool.submit(count_image, truth, prediction, layout)))
            if len(waiting) > 2 * counters:
                oldest, future = waiting.pop(0)
                yield oldest, future.result()
        for index, future in waiting:
            yield index, future.result()


def _kept_name(index: int, sample_id: str) -> str:
    return f"{index:05d}-{sample_id.replace('/', '_')}.png"


def _keep(file: Path, sample: Sample, prediction: Mask, palette: list[Any], predictor: Predictor) -> None:
    """Keep a prediction as a picture and, beside it, what the network's distribution does there, if it has one."""
    files.write_bytes(file, palette_png(prediction, palette))
    if predictor.explains:
        files.write_bytes(file.with_suffix(".npz"), predictor.explained(sample.image, prediction))


def _publish(run: Run, split: PreparedSplit, kept: Path, table: CountTable) -> None:
    """Give the predictions folder its new content: counts, kept pictures, and the list of both."""

    def listed(file: Path) -> dict[str, str]:
        return {"file": file.name, "sha256": files.sha256(file)}

    with files.replaced_folder(paths.predictions(run.name)) as folder:
        samples: list[dict[str, Any]] = []
        for index in gallery_indices(len(split), run.params.evaluate.gallery):
            name = _kept_name(index, split.ids[index])
            files.write_bytes(folder / name, (kept / name).read_bytes())
            samples.append({"id": split.ids[index], **listed(folder / name)})
            explanation = (kept / name).with_suffix(".npz")
            if explanation.exists():
                files.write_bytes(folder / explanation.name, explanation.read_bytes())
                samples[-1]["explanation"] = listed(folder / explanation.name)
        counts = folder / paths.counts(run.name).name
        files.write_bytes(counts, table.packed())
        run_sha256 = files.sha256(paths.run_json(run.name))
        listing = {"run": run.name, "run_sha256": run_sha256, "samples": samples, "counts": listed(counts)}
        files.write_json(folder / paths.predictions_json(run.name).name, listing)


def gallery_indices(length: int, count: int) -> list[int]:
    """Choose up to `count` samples spread evenly over a split.

    Examples
    --------
    >>> gallery_indices(10, 4), gallery_indices(2, 4)
    ([0, 3, 6, 9], [0, 1])
    """
    return sorted({round(place) for place in np.linspace(0, length - 1, min(count, length))})
