"""One image, one protocol, one class for each pixel."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from gald.inference._blocks import classes
from gald.inference._views import views
from gald.models.segmentor import Segmentor
from gald.params import ProtocolParams

WHOLE = ProtocolParams(name="whole", window=None, overlap=0.0, average="logits", scales=(1.0,), flip=False)


def predict(
    model: Segmentor, image: NDArray[np.uint8], size: tuple[int, int], protocol: ProtocolParams = WHOLE
) -> NDArray[np.uint8]:
    """Predict the train id of every pixel.

    Parameters
    ----------
    model : Segmentor
        Network in evaluation mode.
    image : uint8 array (H, W, 3)
        RGB image at the network's input size.
    size : (int, int)
        Height and width of the prediction; the scores, not the classes, are resized to it.
    protocol : ProtocolParams
        What the network sees of the image, and how its answers become one; see Notes.

    Returns
    -------
    uint8 array of `size`
        Class of the largest score; the first one where several are equal, and the last class where scores are not
        numbers.

    Raises
    ------
    ModelError
        The network takes no image of the window's or a scaled image's size.

    Notes
    -----
    For each scale the image is resized bilinearly (with antialiasing where it shrinks) to its sides times the scale,
    halves rounded up. Without a window the network sees it in one piece. With a window it sees tiles of that size,
    whose step is the window times (1 - `overlap`), rounded up to whole pixels, the last tile moved back to end with the
    image; an image smaller than the window is padded below and at the right by the network's mean colour, and what is
    said of the padding is dropped. With `flip` it sees each tile mirrored too.

    Logits are resized bilinearly in two steps, from the network's resolution to the pixels of its input and from those
    of the whole input to `size`, without antialiasing and by the model's `align_corners`, as mmsegmentation does it.
    Both steps and the mean over tiles are one product with a matrix along each side. Where the input has the
    prediction's size the second step changes nothing.

    ``average: logits`` takes the mean over tiles, then over mirror images and scales. ``average: probabilities`` turns
    logits into probabilities at the prediction's pixels, each tile's for itself, and takes the mean of those. A pixel's
    mean over tiles counts each tile that covers it once. A tile that covers only some of the input's pixels that a
    pixel of the prediction lies between counts with their share.

    References
    ----------
    Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017 (scales and mirroring).
    """
    found = predict_on_device(model, image, size, protocol).cpu().numpy()
    return np.asarray(found)


@torch.inference_mode()
def predict_on_device(
    model: Segmentor, image: NDArray[np.uint8], size: tuple[int, int], protocol: ProtocolParams = WHOLE
) -> UInt8[Tensor, "h w"]:
    """Predict as `predict` does, and leave the classes where the network is, so that they can be counted there."""
    found = views(model, image, size, protocol)
    return classes(found, size, probabilities=protocol.average == "probabilities")
