"""`gald import-weights`: a checkpoint of the paper authors' released code becomes a weights file of ours.

How the released networks want their images is carried by the weights, since our networks take RGB in [0, 1]. A network
for BGR in 0..255 less a mean m sees 255 x_c - m_c. That is (x_c - m_c / 255) / (1 / 255), so mean and deviation are
m / 255 and 1 / 255, and the order of colours is that of the first convolution's input channels, which are reversed.
Padding with zeros follows the normalisation there and here, so nothing is lost at the border.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gald.commands._targets import check_file
from gald.datasets import load_spec
from gald.errors import ModelError
from gald.models import released, weights
from gald.models.backbone._checkpoint import read, tensors
from gald.models.backbone._features import IMAGENET, Normalisation
from gald.models.released import Released
from gald.models.segmentor import Segmentor, build_segmentor

_CITYSCAPES = 19
_COUNTER = "num_batches_tracked"
_OWN = ("mean", "std")  # buffers of ours that no released network has


def import_weights(file: Path, net: str, classes: int, out: Path, *, rgb: bool | None = None) -> str:
    """Convert a checkpoint strictly: every tensor is placed, or nothing is written.

    Parameters
    ----------
    file : Path
        State dict saved by the released code, perhaps under the key ``state_dict``, perhaps with names that begin
        with ``module.``. The counters of batch norm may be absent; they are set to zero, being no weights.
    net : {"gald_res50", "gald_res101", "dualgcn_res50", "dualgcn_res101"}
        Network that it belongs to.
    classes : int
        Classes K of its logits. With 19 they bear the names of Cityscapes', otherwise ``class_0`` and so on.
    out : Path
        Weights file to write, for `gald.load`.
    rgb : bool, optional
        The checkpoint was trained with ``--rgb 1`` of the released code; by default what the network's own training
        script there says, see `gald.models.released`.

    Returns
    -------
    str
        What was written.

    Raises
    ------
    ModelError
        No such network, no such file, a damaged one or one that holds more than tensors; classes that no mask tells
        apart; tensors that are missing, unexpected, of another shape, not finite or a negative variance, all of them
        named.
    ParamsError
        `out` cannot be written, lies where trainings keep their files, or is the checkpoint itself.
    """
    origin = released.find(net)
    check_file("-o", out, read=[file])
    model = _unfilled(origin, classes)
    state = read(file)
    own = model.state_dict()
    names = _released_names(own, origin)
    _check(file, state, {name: own[ours].shape for name, ours in names.items()}, net, classes)
    rgb = origin.rgb if rgb is None else rgb
    if not rgb:
        state[released.FIRST_CONVOLUTION] = state[released.FIRST_CONVOLUTION].flip(1)
    placed = {ours: state[name].to(torch.float32, copy=True) for name, ours in names.items()}
    placed |= _normalisation(IMAGENET if rgb else _caffe())
    counters = {name: torch.tensor(0) for name in own if name.endswith(_COUNTER)}
    model.load_state_dict(placed | counters, strict=True, assign=True)
    weights.save(out, model, origin.model, _class_names(classes))
    images = "RGB with ImageNet's mean and deviation" if rgb else "BGR with Caffe's mean"
    return f"{out}: {net} of {classes} classes, all {len(names)} tensors of {file}, which was trained on {images}"


def _unfilled(origin: Released, classes: int) -> Segmentor:
    """Build the network without memory for its tensors: all of them come from the checkpoint."""
    with torch.device("meta"):
        return build_segmentor(origin.model, classes)


def _released_names(own: Mapping[str, Tensor], origin: Released) -> dict[str, str]:
    """Map each released name to ours."""
    return released.released_names((name for name in tensors(own) if name not in _OWN), origin.renames)


def _check(file: Path, state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], net: str, classes: int) -> None:
    """Hold the checkpoint against the network, tensor by tensor."""
    both = [name for name in expected if name in state]
    reshaped = [name for name in both if state[name].shape != expected[name]]
    problems = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} (found {tuple(state[name].shape)}, expected {tuple(expected[name])})" for name in reshaped
        ],
        "not of finite numbers": [
            name for name in both if not state[name].is_floating_point() or not state[name].isfinite().all()
        ],
        "a variance below zero": [
            name for name in weights.unusable({name: state[name] for name in both}) if state[name].isfinite().all()
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        remedy = _remedy(state, reshaped, net, classes)
        raise ModelError(f"{file} does not fit {net} of {classes} classes, {listed}; {remedy}")


def _remedy(state: Mapping[str, Tensor], reshaped: Sequence[str], net: str, classes: int) -> str:
    """Say what would have been right, where it can be known."""
    for other, origin in released.NETS.items():
        if other != net and _released_names(_unfilled(origin, classes).state_dict(), origin).keys() == state.keys():
            return f"its names are those of {other}: pass --net {other}"
    classifier = state.get("head.bottleneck.3.bias")
    if classifier is not None and "head.bottleneck.3.bias" in reshaped and classifier.dim() == 1:
        return f"its classifier has {len(classifier)} classes: pass --classes {len(classifier)}"
    return "use a checkpoint of the released code that is whole"


def _caffe() -> Normalisation:
    """Mean of Caffe's networks for RGB in [0, 1], with the deviation that brings images back to 0..255."""
    blue, green, red = (value / 255 for value in released.CAFFE_MEAN)
    return Normalisation((red, green, blue), (1 / 255, 1 / 255, 1 / 255))


def _normalisation(normalisation: Normalisation) -> dict[str, Tensor]:
    values = dict(zip(_OWN, normalisation, strict=True))
    return {name: torch.tensor(value).view(1, 3, 1, 1) for name, value in values.items()}


def _class_names(classes: int) -> tuple[str, ...]:
    if classes == _CITYSCAPES:
        return load_spec("cityscapes").class_names
    return tuple(f"class_{index}" for index in range(classes))
