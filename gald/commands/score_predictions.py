"""`gald evaluate EDITION/DATASET --predictions FOLDER`: score anybody's masks with the code and protocol of our own.

All files are listed and looked at before any is scored: missing, superfluous, of another size or kind, or holding ids
that the benchmark does not have.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from gald import files, paths, provenance
from gald.commands._evaluation_images import listed
from gald.commands._targets import check_file
from gald.commands.evaluation import describe
from gald.datasets import IGNORE_INDEX, _png, load_spec
from gald.datasets._objects import read_edges
from gald.datasets._reader import PreparedSplit, Store
from gald.datasets._spec import UNKNOWN, DatasetSpec
from gald.errors import DatasetError
from gald.evaluate.protocol import SCORED
from gald.evaluate.record import scored
from gald.metrics.counts import CountTable, Layout, count_image
from gald.prepare.images import bounded, reason

Ids = Literal["train", "raw"]
Tables = dict[Ids, npt.NDArray[np.uint8]]
_KINDS = ("L", "P", "I", "I;16")


def score_predictions(
    edition: str, dataset: str, folder: Path, *, split: str | None, ids: Ids, out: Path | None, store: Store = "auto"
) -> str:
    """Score a folder of PNG masks against a prepared split.

    Parameters
    ----------
    edition : {"mini", "full"}
    dataset : str
        Benchmark.
    folder : Path
        One PNG a sample, found by the sample's whole id or, where that is unambiguous, by a file name that begins
        with the id's last part, as ``<id>_pred.png``.
    split : str or None
        Split to score; by default the one that the literature reports on.
    ids : {"train", "raw"}
        What the pixels are: train ids, or the benchmark's own. 255 and raw ids that are no class mean that no class was
        predicted, which is wrong wherever the truth has one.
    out : Path or None
        JSON file for the scores.
    store : {"auto", "packed", "files"}
        Where the truth is read from.

    Returns
    -------
    str
        Scores, as lines for the terminal.

    Raises
    ------
    DatasetError
        The benchmark is not prepared, the split is unlabelled, or files do not fit it: all problems at once.
    ParamsError
        The file for the scores cannot be written.
    """
    check_file("-o", out)
    spec, truth = _opened(edition, dataset, split, store)
    manifest = truth.manifest
    num_classes = len(manifest["classes"])
    tables: Tables = {"train": _table(None, num_classes), "raw": _table(spec.lookup(), num_classes)}
    found, problems = _matched(folder, truth.ids)
    there = [(path, truth.size(index)) for index, path in enumerate(found) if path is not None]
    with bounded(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        looked = pool.map(lambda one: _problem(one[0], one[1], ids, tables), there)
        _refuse(folder, [*problems, *filter(None, looked)])
        layout = Layout(num_classes + 1, read_edges(edition, dataset))  # the last: no class was predicted

        def count(index: int) -> dict[str, Any]:
            return count_image(truth.verified(index).mask, tables[ids][_read(there[index][0])], layout)

        counts = CountTable.of(tuple(truth.ids), layout, pool.map(count, range(len(truth))))
    result = {
        "dataset": dataset,
        "edition": edition,
        "protocol": _protocol(f"{folder} ({ids} ids), {edition}/{dataset}", truth),
        "images": len(truth),
        **_scored(counts, list(manifest["classes"])),
        "manifest_sha256": truth.manifest_sha256,
        "evaluation_code_digest": provenance.code_digest(),
    }
    if out is not None:
        files.write_json(out, result)
    return describe(result)


def _protocol(what: str, truth: PreparedSplit) -> dict[str, Any]:
    """Record how the scores come about, as far as it can be known; see `gald.evaluate.protocol`."""
    split = truth.splits[0]
    return {
        "name": "given",
        "text": f"masks of {what}, scored at the mask's size on {split}",
        "split": split,
        "classes": len(truth.manifest["classes"]),
        "input_size": None,
        **SCORED,
        "no_class": "a pixel without a predicted class is wrong wherever the truth has one",
    }


def _scored(counts: CountTable, classes: list[str]) -> dict[str, Any]:
    """Compute the scores of the classes from counts that have one more, for pixels without a predicted class."""
    result = scored(counts, [*classes, "no class"])
    result["per_class"].pop()
    result["absent"].remove("no class")
    return result


def _opened(edition: str, dataset: str, split: str | None, store: Store) -> tuple[DatasetSpec, PreparedSplit]:
    """Open the labelled split that is scored."""
    prepared = paths.prepared(edition, dataset)
    manifest = PreparedSplit(prepared, ()).manifest
    if "source" not in manifest:
        raise DatasetError(f"{prepared} was prepared by an older version: run `gald prepare {edition}/{dataset}` again")
    spec = load_spec(dataset, manifest["source"])
    truth = PreparedSplit(prepared, [split or spec.eval_split], store=store)
    name = truth.splits[0]
    if not manifest["splits"][name].get("labelled", True):
        raise DatasetError(f"{prepared}: the labels of split {name!r} are not published, so nothing can be scored")
    return spec, truth


def _table(lookup: npt.NDArray[np.int16] | None, num_classes: int) -> npt.NDArray[np.uint8]:
    """Class of each value that a mask may hold; `num_classes` stands for none, 255 for a value that may not be."""
    table = np.full(1 << 16, IGNORE_INDEX, np.uint8)
    table[IGNORE_INDEX] = num_classes  # unless the benchmark has a class of that number
    if lookup is None:
        table[:num_classes] = np.arange(num_classes)
        return table
    known = lookup != UNKNOWN
    table[: len(lookup)][known] = np.where(lookup[known] == IGNORE_INDEX, num_classes, lookup[known])
    return table


def _matched(folder: Path, ids: list[str]) -> tuple[list[Path | None], list[str]]:
    """The file of each sample, and what is missing, ambiguous or superfluous."""
    if not folder.is_dir():
        raise DatasetError(f"--predictions {folder}: no such folder")
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".png")
    given = {path.relative_to(folder).with_suffix("").as_posix(): path for path in pictures}
    by_stem: dict[str, list[Path]] = {}
    for path in given.values():
        by_stem.setdefault(path.stem, []).append(path)
    stems = sorted(by_stem)
    found: list[Path | None] = []
    problems, claimed = [], set()
    for sample_id in ids:
        last = sample_id.rpartition("/")[2]
        candidates = [given[sample_id]] if sample_id in given else by_stem.get(last) or _beginning(stems, by_stem, last)
        found.append(candidates[0] if len(candidates) == 1 else None)
        claimed.update(candidates)
        if not candidates:
            problems.append(f"missing: {sample_id}.png")
        elif len(candidates) > 1:
            names = ", ".join(path.relative_to(folder).as_posix() for path in candidates)
            problems.append(f"ambiguous: {sample_id} might be {names}; leave one")
    for path, times in Counter(path for path in found if path is not None).items():
        if times > 1:
            problems.append(f"ambiguous: {path} would stand for {times} samples; name files by whole ids")
    return found, problems + [f"belongs to no sample: {path}" for path in pictures if path not in claimed]


def _beginning(stems: Iterable[str], by_stem: dict[str, list[Path]], last: str) -> list[Path]:
    """Files whose name goes on after a sample's, with something that is no part of a number."""
    return [path for stem in stems if stem.startswith(last) and not stem[len(last)].isalnum() for path in by_stem[stem]]


def _problem(path: Path, size: tuple[int, int], ids: Ids, tables: Tables) -> str | None:
    """What is wrong with a file, or None."""
    try:
        kind = _wrong_kind(path, size)
        pixels = _read(path) if kind is None else None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"{path}: has more pixels than any picture here; the mask has {size[1]}x{size[0]}"
    except Exception as error:  # Pillow's plugins each have their own ways to say that a file is damaged
        return f"{path}: cannot be read ({reason(error)})"
    if pixels is None:
        return f"{path}: {kind}"
    values = np.flatnonzero(np.bincount(pixels.ravel(), minlength=1))
    unknown = _unknown(values, tables[ids])
    if not unknown:
        return None
    other: Ids = "raw" if ids == "train" else "train"
    hint = "" if _unknown(values, tables[other]) else f"; as {other} ids they all are: did you mean --ids {other}?"
    return f"{path}: holds {', '.join(map(str, unknown[:5]))}, which is no {ids} id of the benchmark{hint}"


def _unknown(values: npt.NDArray[np.integer[Any]], table: npt.NDArray[np.uint8]) -> list[int]:
    return [int(value) for value in values if value >= len(table) or table[value] == IGNORE_INDEX]


def _wrong_kind(path: Path, size: tuple[int, int]) -> str | None:
    """What is wrong with a picture before its pixels are looked at, or None."""
    with Image.open(path) as picture:
        if picture.format != "PNG":
            return f"holds a {picture.format}, whatever its name; save masks as PNG, which keeps every id"
        if picture.mode not in _KINDS:
            mode = "1 bit a pixel" if picture.mode == "1" else f"mode {picture.mode}"
            return f"a picture of {mode}; expected one channel of 8 or 16 bits that holds ids"
        if (picture.height, picture.width) != size:
            return f"{picture.width}x{picture.height} pixels; the mask has {size[1]}x{size[0]}"
    if _few_bits(path):
        return "grey of fewer than 8 bits, which readers stretch to 255; save it with 8 bits a pixel"
    return None


def _few_bits(path: Path) -> bool:
    """Whether a PNG's greys, being shares of white, are no ids: PNG specification, sections 11.2.2 and 13.12."""
    with path.open("rb") as file:
        depth, kind = file.read(26)[24:]
    return kind == 0 and depth < 8


def _read(path: Path) -> npt.NDArray[np.generic]:
    pixels = _png.decode(path.read_bytes(), "L")
    if pixels is not None:
        return pixels
    with Image.open(path) as picture:
        return np.asarray(picture)


def _refuse(folder: Path, problems: list[str]) -> None:
    if problems:
        ids = folder / "ids"  # lies beside the colours where `--save-predictions` wrote the folder
        hint = f"did you mean {ids}? " if ids.is_dir() else ""
        raise DatasetError(f"{folder}: nothing was scored, {hint}{listed(problems)}")
