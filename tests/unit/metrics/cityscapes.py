"""The official Cityscapes evaluator on drawn pairs; run as a program, it records what that finds.

``python -m tests.unit.metrics.cityscapes`` writes ``cityscapes_evaluation.json`` beside it. Recorded with
cityscapesScripts 2.3.0, its pure-Python branch, without instance scores.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import types
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gald.datasets.cityscapes import SPEC
from tests.unit.metrics.scenes import drawn_pair

GOLDEN = Path(__file__).with_name("cityscapes_evaluation.json")
SHAPES = ((40, 60), (33, 81), (64, 64))


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Masks and predictions in train ids of 19 classes, of which three occur in no mask."""
    drawn = [drawn_pair(seed, 16, shape) for seed, shape in enumerate(SHAPES)]
    return [(truth, prediction + np.uint8(3) * (prediction == 15)) for truth, prediction in drawn]


def raw_ids(train_ids: np.ndarray) -> np.ndarray:
    """Spell train ids as the benchmark's own ids, ignored ones as 0."""
    table = np.zeros(256, np.uint8)
    for train_id, one in enumerate(SPEC.classes):
        table[train_id] = one.raw_ids[0]
    return table[train_ids]


def evaluator() -> Any:
    """Import the evaluator; its package also loads boxes in 3D, which need a library that pixels do not."""
    if find_spec("pyquaternion") is None:
        sys.modules["pyquaternion"] = types.SimpleNamespace(Quaternion=object)  # type: ignore[assignment]
    try:
        return import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    finally:
        if isinstance(sys.modules.get("pyquaternion"), types.SimpleNamespace):
            del sys.modules["pyquaternion"]


def evaluated(module: Any, folder: Path) -> dict[str, Any]:
    """Write the pairs as PNG and evaluate them."""
    files: list[list[str]] = [[], []]
    for index, pair in enumerate(pairs()):
        for names, kind, mask in zip(files, ("truth", "prediction"), pair, strict=True):
            path = folder / f"{kind}{index}.png"
            Image.fromarray(raw_ids(mask)).save(path)
            names.append(str(path))
    arguments = copy.copy(module.args)
    arguments.evalInstLevelScore, arguments.JSONOutput, arguments.quiet = False, False, True
    found: dict[str, Any] = module.evaluateImgLists(files[1], files[0], arguments)
    return {
        "confusion": found["confMatrix"],
        "iou": {name: None if np.isnan(value) else value for name, value in found["classScores"].items()},
        "mean_iou": found["averageScoreClasses"],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(json.dumps(evaluated(evaluator(), Path(scratch))) + "\n")
