"""Counting beside the expressions in use, and a whole evaluation beside the official Cityscapes evaluator.

Works that are compared take turns in one process. Ours is `confusion_matrix`, and for all statistics `count_image`.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gald.bench._evaluate_pairs import SIZE, drawn_pair, write_pairs
from gald.bench._measure import machine, tell
from gald.bench._memory import Work, seconds
from gald.datasets import IGNORE_INDEX, _png
from gald.datasets.cityscapes import SPEC
from gald.errors import DatasetError, GaldError
from gald.metrics import Counts, Layout, Mask, Scores, confusion_matrix, count_image, scores

_ROUNDS = 9
_CLASSES = (19, 150, 171)
_PAIRS = 20
_PAIR_ROUNDS = 3
_DETAIL_MS = 250.0
_UNBUILT = "it is not built here, so its reading alone, without its counting"
_AREAS = (100, 1000, 10_000)
_OTHERS = (("torchvision", 4.0), ("numpy_masked", 1.4), ("numpy_whole", 1.4), ("torch_bincount", 1.0))
_HEAD = "| what | threads | ours, ms | theirs, ms | ratio | target | met |\n|---|---|---|---|---|---|---|\n"
_DETAIL_HEAD = "| what | threads | ours, ms | target, ms | met |\n|---|---|---|---|---|\n"


def ours(num_classes: int, size: list[int]) -> Callable[[], Counts]:
    """Make ready our counting of a pair."""
    truth, prediction = _pair(num_classes, size)
    return lambda: confusion_matrix(truth, prediction, num_classes)


def torchvision(num_classes: int, size: list[int]) -> Callable[[], Counts]:
    """Make ready the expression of torchvision's reference training: int64 tensors, the ids in range, one index."""
    truth, prediction = (torch.from_numpy(one).long() for one in _pair(num_classes, size))

    def run() -> Counts:
        true, predicted = truth.flatten(), prediction.flatten()
        known = (true >= 0) & (true < num_classes)
        cells = num_classes * true[known] + predicted[known]
        return np.asarray(torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).numpy())

    return run


def numpy_masked(num_classes: int, size: list[int]) -> Callable[[], Counts]:
    """Make ready the expression of FCN's evaluation: int64 of the pixels that are not ignored."""
    truth, prediction = _pair(num_classes, size)

    def run() -> Counts:
        known = truth < num_classes
        cells = num_classes * truth[known].astype(np.int64) + prediction[known]
        return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)

    return run


def numpy_whole(num_classes: int, size: list[int]) -> Callable[[], Counts]:
    """Make ready the same with rows of their own for ignored pixels, which picks none out."""
    truth, prediction = _pair(num_classes, size)

    def run() -> Counts:
        cells = (truth.astype(np.int64) * num_classes + prediction).ravel()
        counts = np.bincount(cells, minlength=(IGNORE_INDEX + 1) * num_classes)
        return counts.reshape(-1, num_classes)[:num_classes]

    return run


def torch_bincount(num_classes: int, size: list[int]) -> Callable[[], Counts]:
    """Make ready torch's `bincount` on one int64 index, with rows of their own for ignored pixels."""
    truth, prediction = (torch.from_numpy(one) for one in _pair(num_classes, size))

    def run() -> Counts:
        cells = (truth.long() * num_classes + prediction).flatten()
        counts = torch.bincount(cells, minlength=(IGNORE_INDEX + 1) * num_classes)
        return np.asarray(counts.reshape(-1, num_classes)[:num_classes].numpy())

    return run


def details(num_classes: int, size: list[int]) -> Callable[[], dict[str, Counts]]:
    """Make ready all statistics of a pair."""
    truth, prediction = _pair(num_classes, size)
    layout = Layout(num_classes, _AREAS)
    return lambda: count_image(truth, prediction, layout)


def our_evaluation(folder: str, count: int, prepared: bool) -> Callable[[], Scores]:
    """Make ready our evaluation of written pairs: read, count, score; each thread takes pairs of its own.

    The truth is read as the benchmark publishes it, or as it was prepared once, which is what ``gald evaluate`` does.
    """
    cv2.setNumThreads(1)
    threads = torch.get_num_threads()
    train_ids = np.full(256, IGNORE_INDEX, np.uint8)
    train_ids[[one.raw_ids[0] for one in SPEC.classes]] = np.arange(len(SPEC.classes))

    def read(kind: str, index: int) -> Mask:
        path = Path(folder) / f"{kind}{index}.png"
        ids = _png.decode(path.read_bytes(), "L")
        if ids is None:
            raise DatasetError(f"{path} is no PNG of 8 bits")
        return ids if kind == "prepared" else np.asarray(cv2.LUT(ids, train_ids), np.uint8)

    def counted(index: int) -> Counts:
        truth = read("prepared" if prepared else "truth", index)
        return confusion_matrix(truth, read("prediction", index), len(SPEC.classes))

    def run() -> Scores:
        with ThreadPoolExecutor(threads) as pool:
            return scores(np.sum(list(pool.map(counted, range(count))), axis=0))

    return run


def official_evaluation(folder: str, count: int, compiled: bool) -> Callable[[], NDArray[np.float64]]:
    """Make ready the official evaluation of the same files; IoU of each class in train id order."""
    module = official()
    module.CSUPPORT = compiled
    files = [[f"{folder}/{kind}{index}.png" for index in range(count)] for kind in ("prediction", "truth")]
    arguments = copy.copy(module.args)
    arguments.evalInstLevelScore, arguments.JSONOutput, arguments.quiet = False, False, True

    def run() -> NDArray[np.float64]:
        found = module.evaluateImgLists(*files, arguments)["classScores"]
        return np.array([found[one.name] for one in SPEC.classes])

    return run


def official_reading(folder: str, count: int) -> Callable[[], int]:
    """Make ready what the official evaluator does before it counts, compiled or not: read the files with Pillow."""
    files = [f"{folder}/{kind}{index}.png" for kind in ("prediction", "truth") for index in range(count)]
    return lambda: sum(np.array(Image.open(file)).size for file in files)


def official() -> Any:
    """Import the official evaluator; its package loads boxes in 3D too, which need a library that pixels do not."""
    stub = find_spec("pyquaternion") is None
    if stub:
        sys.modules["pyquaternion"] = types.ModuleType("pyquaternion")
        sys.modules["pyquaternion"].Quaternion = object  # type: ignore[attr-defined]
    try:
        return import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    finally:
        if stub:
            del sys.modules["pyquaternion"]


def counting() -> str:
    """Measure all; return the report as Markdown."""
    rows, detail = [], []
    for threads in (1, 2):
        for num_classes in _CLASSES:
            tell("evaluate", f"counting {num_classes} classes, {threads} threads")
            rows += _counted(num_classes, threads)
            detail.append(_detailed(num_classes, threads))
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder), _PAIRS, SIZE)
        rows += _evaluated(folder)
    height, width = SIZE
    return (
        f"{machine()}; drawn pairs of {width}x{height}, medians of {_ROUNDS} rounds, of whole evaluations "
        f"{_PAIR_ROUNDS}\n\n{_HEAD}" + "\n".join(rows) + f"\n\nBoundary, object and border statistics together:\n\n"
        f"{_DETAIL_HEAD}" + "\n".join(detail) + "\n"
    )


def _counted(num_classes: int, threads: int) -> list[str]:
    """Rows of counting one pair, after a look whether all count the same."""
    makers = (ours, torchvision, numpy_masked, numpy_whole, torch_bincount)
    expected, *others = (maker(num_classes, list(SIZE))() for maker in makers)
    if not all(np.array_equal(other, expected) for other in others):
        raise GaldError(f"the expressions count a pair of {num_classes} classes differently: nothing was measured")
    works = [Work(f"{__name__}:{maker.__name__}", (num_classes, list(SIZE))) for maker in makers]
    mine, *theirs = _milliseconds(works, threads, _ROUNDS)
    return [
        _row(f"{num_classes} classes, against {name}", threads, mine, other, target)
        for (name, target), other in zip(_OTHERS, theirs, strict=True)
    ]


def _detailed(num_classes: int, threads: int) -> str:
    work = Work(f"{__name__}:details", (num_classes, list(SIZE)))
    (mine,) = _milliseconds([work], threads, _ROUNDS)
    met = "yes" if mine <= _DETAIL_MS else "NO"
    return f"| {num_classes} classes | {threads} | {mine:.0f} | {_DETAIL_MS:g} | {met} |"


def _evaluated(folder: str) -> list[str]:
    """Rows of whole evaluations, after a look whether both find the same figures."""
    what = f"{_PAIRS} written pairs, against the Cityscapes evaluator"
    if find_spec("cityscapesscripts") is None:
        return [f"| {what} | | | | | | not measured: cityscapesscripts is not installed |"]
    compiled = bool(official().CSUPPORT)
    theirs = official_evaluation(folder, _PAIRS, compiled)()
    for prepared in (False, True):
        mine = our_evaluation(folder, _PAIRS, prepared)()
        if not np.array_equal(mine.iou, theirs, equal_nan=True):
            raise GaldError(f"the Cityscapes evaluator finds other scores ({theirs}) than ours ({mine.iou})")
    cases: list[tuple[str, str, tuple[bool, ...], float]] = [
        (f"{what} in Python", "official_evaluation", (False,), 3.0)
    ]
    if compiled:
        cases.append((f"{what} in C", "official_evaluation", (True,), 1.0))
    else:
        cases.append((f"{what} in C: {_UNBUILT}", "official_reading", (), 1.0))
    rows = []
    for threads in (1, 2):
        names = [
            ("our_evaluation", (False,)),
            ("our_evaluation", (True,)),
            *((name, more) for _, name, more, _ in cases),
        ]
        works = [Work(f"{__name__}:{name}", (folder, _PAIRS, *more)) for name, more in names]
        published, prepared_once, *others = _milliseconds(works, threads, _PAIR_ROUNDS)
        for case, other in zip(cases, others, strict=True):
            rows.append(_row(case[0], threads, published, other, case[3]))
            rows.append(_row(f"{case[0]}, our truth as prepared", threads, prepared_once, other, case[3]))
    return rows


def _milliseconds(works: list[Work], threads: int, rounds: int) -> list[float]:
    return [1000 * statistics.median(one) for one in seconds(works, threads=threads, rounds=rounds)]


def _row(what: str, threads: int, mine: float, theirs: float, target: float) -> str:
    ratio = theirs / mine
    met = "yes" if ratio >= target else "not measured" if _UNBUILT in what else "NO"
    return f"| {what} | {threads} | {mine:.2f} | {theirs:.2f} | {ratio:.2f} times as fast | {target:g} | {met} |"


def _pair(num_classes: int, size: list[int]) -> tuple[Mask, Mask]:
    """Draw a pair, and let OpenCV have as many threads as torch."""
    cv2.setNumThreads(torch.get_num_threads())
    return drawn_pair(num_classes, 0, (size[0], size[1]))
