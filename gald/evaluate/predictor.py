"""A network as an evaluation uses it: one image in, a class for each pixel of its mask out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from gald import paths
from gald.errors import ModelError
from gald.evaluate.explain import distribution_of, explain
from gald.inference import channels_last, for_prediction, peak_bytes, predict
from gald.metrics import Mask
from gald.models import weights
from gald.params import EvaluateParams, Run
from gald.transforms import resize_image, scaled_size


class Predictor:
    """A trained run's network with the protocol of an evaluation.

    Parameters
    ----------
    run : Run
        Trained, with the weights that are there now.
    params : EvaluateParams
        How a class is found for each pixel.
    classes : list of str
        Of the benchmark; the weights must be of the same.
    place : int
        Which GPU of this machine, where the run's device is one.
    file : Path, optional
        Other weights of the run than the last ones.

    Raises
    ------
    ModelError
        The weights are damaged or of other classes, or there is no such GPU.
    """

    def __init__(
        self, run: Run, params: EvaluateParams, classes: list[str], place: int = 0, file: Path | None = None
    ) -> None:
        device = run.params.train.device
        if device == "cuda" and place >= torch.cuda.device_count():
            raise ModelError(
                f"{run.name} is evaluated on a GPU (train.device is 'cuda'), but torch finds "
                f"{torch.cuda.device_count()} of them; choose a suite with device 'cpu', or start fewer processes"
            )
        self.params = params
        source = file or paths.weights(run.name)
        self.model = channels_last(weights.load(source, classes=classes).to(_device(device, place)))
        self._folded = for_prediction(self.model)
        self._output_stride = int(run.params.model.backbone.options["output_stride"])

    def __call__(self, image: npt.NDArray[np.uint8], size: tuple[int, int]) -> Mask:
        """Predict the class of each pixel of a mask of `size`, uint8, from an RGB image (H, W, 3)."""
        return predict(self._folded, self._input(image), size, self.params.protocol)

    @property
    def explains(self) -> bool:
        """Whether the network has a distribution that can be looked into."""
        return distribution_of(self.model) is not None

    def explained(self, image: npt.NDArray[np.uint8], prediction: Mask) -> bytes:
        """What the network's distribution does to an image, looked at as a whole whatever the protocol; an .npz."""
        whole = self.params.protocol
        if whole.window is not None or whole.scales != (1.0,) or whole.flip:
            prediction = predict(self._folded, self._input(image), (prediction.shape[0], prediction.shape[1]))
        return explain(self._folded, self._input(image), prediction).packed()

    def peak_bytes(self, size: tuple[int, int]) -> int:
        """Bound the memory that an image of `size` takes on a CPU, see `gald.inference.peak_bytes`."""
        return peak_bytes(
            self.model.num_classes, self._input_size(size), size, self._output_stride, self.params.protocol
        )

    def _input(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return resize_image(image, self._input_size((image.shape[0], image.shape[1])))

    def _input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return scaled_size(size, self.params.image_size)


def _device(device: str, place: int) -> torch.device:
    return torch.device("cuda", place) if device == "cuda" else torch.device(device)


def palette_png(prediction: Mask, palette: list[Any]) -> bytes:
    """Spell a mask as an 8-bit PNG whose values are train ids and whose palette shows the classes' colours."""
    picture = Image.fromarray(prediction)
    picture.putpalette([value for colour in palette for value in colour])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
