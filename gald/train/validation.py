"""Scores on the way: how a network does on images that it does not learn from, and which weights did best."""

from __future__ import annotations

import copy
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gald import files
from gald.datasets._reader import PreparedSplit
from gald.inference import channels_last, for_prediction, predict, predict_on_device
from gald.models import weights
from gald.models.segmentor import Segmentor
from gald.params import Run
from gald.train.averaging import Average
from gald.train.loop import State
from gald.train.parallel import World
from gald.transforms import resize_image, scaled_size

if TYPE_CHECKING:
    from gald.metrics import Scores

_LOG = logging.getLogger("gald.train")
_BEST = "best-{:09d}.safetensors"


class Validation:
    """Scores a training's weights, and keeps the best ones.

    Images are scored by the evaluation's protocol; processes share them, and their counts are added up. What is
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
        from gald.metrics import scores  # with SciPy, for which a training that is not validated need not wait

        return scores(self._confusion(model))

    def _confusion(self, model: Segmentor) -> NDArray[np.int64]:
        from gald.metrics import confusion_matrix, confusion_on_device

        num_classes, params = model.num_classes, self._run.params.evaluate
        protocol = params.protocol
        counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=self._world.device)
        model = for_prediction(model)
        for index in range(self._world.rank, self._count, self._world.size):
            sample = self._split.verified(index)
            shape = (sample.mask.shape[0], sample.mask.shape[1])
            image = resize_image(sample.image, scaled_size(shape, params.image_size))
            if counts.device.type == "cuda":
                mask = torch.from_numpy(sample.mask).to(counts.device)
                counts += confusion_on_device(mask, predict_on_device(model, image, shape, protocol), num_classes)
            else:
                found = confusion_matrix(sample.mask, predict(model, image, shape, protocol), num_classes)
                counts += torch.from_numpy(found)
        return self._world.total(counts).cpu().numpy()


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


def publish_best(folder: Path, best: dict[str, Any], target: Path) -> dict[str, Any] | None:
    """Copy the best weights beside the last ones; return what is known of them, or None if they are gone."""
    source = best_file(folder, best["iteration"])
    if not source.exists():  # no reason to lose the last ones, as if one trained for these alone
        _LOG.warning("%s, the weights that validated best, went away; only the last ones are kept", source)
        return None
    files.write_bytes(target, source.read_bytes())
    return {
        "file": target.name,
        "sha256": files.sha256(target),
        "iteration": best["iteration"],
        "validation_mean_iou": best["mean_iou"],
    }
