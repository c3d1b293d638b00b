"""Scores on the way: how a network does on images that it does not learn from, and which weights did best."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gald import files
from gald.datasets._reader import PreparedSplit
from gald.inference import channels_last, for_prediction, predict
from gald.metrics import Scores, confusion_matrix, scores
from gald.models import weights
from gald.models.segmentor import Segmentor
from gald.params import Run
from gald.train.averaging import Average
from gald.train.loop import State
from gald.train.parallel import World
from gald.transforms import resize_image

_BEST = "best-{:09d}.safetensors"


class Validation:
    """Scores a training's weights, and keeps the best ones.

    Images are scored whole, as the evaluation does it; processes share them, and their counts are added up. What is
    scored are the weights that would be published now: with a moving average, the average.

    Parameters
    ----------
    run : Run
        Its params say what is scored and when.
    split : PreparedSplit
        Samples to score.
    folder : Path
        Where the best weights are kept.
    world : World
        The processes that share the images.
    """

    def __init__(self, run: Run, split: PreparedSplit, folder: Path, world: World) -> None:
        self._run = run
        self._split = split
        self._folder = folder
        self._world = world
        self._count = min(len(split), run.params.train.validation.samples or len(split))

    def score(self, state: State) -> dict[str, float]:
        """Score the weights; remember in `state.best` how they compare, and keep them if none were better.

        Returns
        -------
        dict
            ``validation_mean_iou`` and ``validation_pixel_accuracy``, fractions; empty where the images hold no class.
        """
        model = published(state.model, state.average)
        self._world.align(model)
        found = self.of(model)
        if math.isnan(found.mean_iou):
            return {}
        if state.best is None or found.mean_iou > state.best["mean_iou"]:
            state.best = {"iteration": state.iteration, "mean_iou": found.mean_iou, "since": 0}
            if self._world.first:
                classes = list(self._split.manifest["classes"])
                weights.save(best_file(self._folder, state.iteration), model, self._run.params.model, classes)
        else:
            state.best = {**state.best, "since": state.best["since"] + 1}
        return {"validation_mean_iou": found.mean_iou, "validation_pixel_accuracy": found.pixel_accuracy}

    def of(self, model: Segmentor) -> Scores:
        """Score a network, which stays as it is."""
        return scores(self._confusion(model))

    def _confusion(self, model: Segmentor) -> Any:
        num_classes, size = model.num_classes, self._run.params.evaluate.image_size
        counts = np.zeros((num_classes, num_classes), np.int64)
        model = for_prediction(model)
        for index in range(self._world.rank, self._count, self._world.size):
            sample = self._split.verified(index)
            image = sample.image if size is None else resize_image(sample.image, size)
            prediction = predict(model, image, (sample.mask.shape[0], sample.mask.shape[1]))
            counts += confusion_matrix(sample.mask, prediction, num_classes)
        return self._world.total(torch.from_numpy(counts).to(self._world.device)).cpu().numpy()


def published(model: Segmentor, average: Average | None) -> Segmentor:
    """Network whose weights a training would leave now: itself, or a copy with the average."""
    if average is None:
        return model
    copied = copy.deepcopy(model)
    copied.load_state_dict(average.tensors)
    return channels_last(copied)


def best_file(folder: Path, iteration: int) -> Path:
    """Where the best weights are kept while a training goes on; named by iteration, since a checkpoint may be older."""
    return folder / _BEST.format(iteration)


def drop_other_bests(folder: Path, iterations: set[int]) -> None:
    """Remove best weights that no checkpoint speaks of any more."""
    kept = {best_file(folder, iteration) for iteration in iterations}
    for path in folder.glob("best-*.safetensors"):
        if path not in kept:
            path.unlink(missing_ok=True)


def publish_best(folder: Path, best: dict[str, Any], target: Path) -> dict[str, Any]:
    """Move the best weights beside the last ones; return what is known of them.

    Raises
    ------
    FileNotFoundError
        They are gone.
    """
    files.write_bytes(target, best_file(folder, best["iteration"]).read_bytes())
    return {
        "file": target.name,
        "sha256": files.sha256(target),
        "iteration": best["iteration"],
        "validation_mean_iou": best["mean_iou"],
    }
