"""`gald evaluate EDITION/DATASET --predictions FOLDER`: score anybody's masks with the code and protocol of our own.

All files are listed and looked at before any is scored: missing, superfluous, of another size or kind, or holding ids
that the benchmark does not have.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from gald import files, paths, provenance
from gald.commands.evaluation import describe
from gald.datasets import IGNORE_INDEX, _png, load_spec
from gald.datasets._objects import read_edges
from gald.datasets._reader import PreparedSplit, Store
from gald.datasets._spec import DatasetSpec
from gald.errors import DatasetError
from gald.evaluate.record import scored
from gald.metrics.counts import CountTable, Layout, count_image

Ids = Literal["train", "raw"]
_MOST_NAMED = 20
_KINDS = ("L", "P", "I", "I;16")
_LOG = logging.getLogger("gald.evaluate")


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
    """
    spec, truth = _opened(edition, dataset, split, store)
    manifest, name = truth.manifest, truth.splits[0]
    table = _table(spec.lookup() if ids == "raw" else None, len(manifest["classes"]))
    found_files = _matched(folder, truth.ids)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        problems = [line for line in pool.map(lambda job: _problem(*job), _jobs(found_files, truth, table)) if line]
        _refuse(folder, problems)
        layout = Layout(len(manifest["classes"]) + 1, read_edges(edition, dataset))  # the last: no class was predicted

        def count(index: int) -> dict[str, Any]:
            return count_image(truth.verified(index).mask, table[_read(found_files[index])], layout)

        counts = CountTable.of(tuple(truth.ids), layout, pool.map(count, range(len(truth))))
    classes = list(manifest["classes"])
    result = scored(counts, [*classes, "no class"])
    result["per_class"].pop()
    result["absent"].remove("no class")
    text = f"masks of {folder} ({ids} ids), {edition}/{dataset}, scored at the mask's size on {name}"
    found = {
        "dataset": dataset,
        "edition": edition,
        "protocol": {"name": "given", "text": text, "split": name, "classes": len(classes)},
        "images": len(truth),
        **result,
        "manifest_sha256": truth.manifest_sha256,
        "evaluation_code_digest": provenance.code_digest(),
    }
    if out is not None:
        files.write_json(out, found)
    return describe(found)


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
    if lookup is None:
        table[:num_classes] = np.arange(num_classes)
        table[IGNORE_INDEX] = num_classes
        return table
    known = lookup >= 0
    table[: len(lookup)][known] = np.where(lookup[known] == IGNORE_INDEX, num_classes, lookup[known])
    return table


def _matched(folder: Path, ids: list[str]) -> list[Path]:
    """The file of each sample; all that is missing, ambiguous or superfluous is told at once."""
    if not folder.is_dir():
        raise DatasetError(f"--predictions {folder}: no such folder")
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".png")
    given = {path.relative_to(folder).with_suffix("").as_posix(): path for path in pictures}
    by_stem: dict[str, list[Path]] = {}
    for path in given.values():
        by_stem.setdefault(path.stem, []).append(path)
    stems = sorted(by_stem)
    found, problems = [], []
    for sample_id in ids:
        last = sample_id.rpartition("/")[2]
        candidates = [given[sample_id]] if sample_id in given else by_stem.get(last) or _beginning(stems, by_stem, last)
        if len(candidates) == 1:
            found.append(candidates[0])
        elif not candidates:
            problems.append(f"missing: {sample_id}.png")
        else:
            names = ", ".join(path.relative_to(folder).as_posix() for path in candidates)
            problems.append(f"ambiguous: {sample_id} might be {names}; leave one")
    used = set(found)
    if len(used) < len(found):
        twice = next(path for path in used if found.count(path) > 1)
        problems.append(f"ambiguous: {twice} would stand for several samples; name files by whole ids")
    problems += [f"belongs to no sample: {path}" for path in pictures if path not in used]
    _refuse(folder, problems)
    return found


def _beginning(stems: Iterable[str], by_stem: dict[str, list[Path]], last: str) -> list[Path]:
    """Files whose name goes on after a sample's, with something that is no part of a number."""
    return [path for stem in stems if stem.startswith(last) and not stem[len(last)].isalnum() for path in by_stem[stem]]


def _jobs(
    found: list[Path], truth: PreparedSplit, table: npt.NDArray[np.uint8]
) -> Iterable[tuple[Path, tuple[int, int], npt.NDArray[np.uint8]]]:
    return ((path, truth.size(index), table) for index, path in enumerate(found))


def _problem(path: Path, size: tuple[int, int], table: npt.NDArray[np.uint8]) -> str | None:
    """What is wrong with a file, or None."""
    try:
        with Image.open(path) as picture:
            if picture.format != "PNG":
                return f"{path}: holds a {picture.format}, whatever its name; save masks as PNG, which keeps every id"
            if picture.mode not in _KINDS:
                return f"{path}: a picture of mode {picture.mode}; expected one channel that holds ids"
            if (picture.height, picture.width) != size:
                return f"{path}: {picture.width}x{picture.height} pixels; the mask has {size[1]}x{size[0]}"
            if _few_bits(path):
                return f"{path}: grey of fewer than 8 bits, which readers stretch to 255; save it with 8 bits a pixel"
        pixels = _read(path)
    except (OSError, ValueError, SyntaxError) as error:
        return f"{path}: cannot be read ({error})"
    values = np.flatnonzero(np.bincount(pixels.ravel(), minlength=1))
    unknown = [int(value) for value in values if value >= len(table) or table[value] == IGNORE_INDEX]
    if unknown:
        return f"{path}: holds {', '.join(map(str, unknown[:5]))}, which is no id of the benchmark"
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
        more = [f"and {len(problems) - _MOST_NAMED} more"] if len(problems) > _MOST_NAMED else []
        lines = "\n".join(f"  {line}" for line in [*problems[:_MOST_NAMED], *more])
        ids = folder / "ids"  # lies beside the colours where `--save-predictions` wrote the folder
        hint = f"did you mean {ids}? " if ids.is_dir() else ""
        raise DatasetError(f"{folder}: nothing was scored, {hint}{len(problems)} problem(s):\n{lines}")
