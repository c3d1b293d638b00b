"""A recipe in words, as the params plan it; each property that changes a number has its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gald import files
from gald.params import Choice, EvaluateParams, LossParams, ModelParams, RunParams, TrainParams, input_in_words

_SOURCES = ("pretrained", "file", "allow_missing")  # of a backbone's weights; what arrived is said by itself
_SPELLED_OUT = 20  # class weights


def planned(run: RunParams, samples: int | None) -> Iterator[tuple[str, str]]:
    """Properties of a recipe that the params alone decide, in words.

    Parameters
    ----------
    run : RunParams
        The recipe.
    samples : int or None
        Samples to train on, where they are known.

    Yields
    ------
    tuple of str
        The property, and what is planned.
    """
    params = run.train
    yield "global batch", str(params.batch_size)
    yield "batch norm sees", "frozen statistics" if params.batch_norm == "frozen" else f"{params.batch_size} samples"
    yield "optimiser", _optimiser(params)
    yield "learning rate", _rate(params)
    yield "iterations", str(params.max_iters)
    if samples is not None:
        yield "epochs", f"{params.max_iters * params.batch_size / samples:.1f}"
        yield "samples seen", str(params.max_iters * params.batch_size)
    yield "early stop", _early_stop(params)
    yield "data", f"{run.edition} {run.dataset}, {run.source}"
    yield "training splits", ", ".join(params.splits)
    yield "input size", "as prepared" if params.image_size is None else input_in_words(params.image_size)
    yield "crop", size(params.crop_size)
    yield "crop's largest class", "any share" if params.max_class_ratio == 1 else f"{params.max_class_ratio:g}"
    yield "scale", "{:g} to {:g}".format(*params.scale_range)
    yield "flip", "yes" if params.flip else "no"
    yield "colours", _colours(params)
    yield "loss", loss_in_words(params.loss)
    yield "auxiliary loss weight", f"{params.aux_weight:g}" if run.model.aux_head is not None else "no auxiliary head"
    yield "network", _network(run.model)
    source = run.model.backbone.options.get("pretrained", "none")
    yield "pretrained", "none" if source == "none" else f"from {source}"
    yield "precision", params.precision
    yield "compiled", "by torch.compile" if params.compile else "no"
    yield "scored by", _protocol(run.evaluate)


def loss_in_words(loss: LossParams, shared_by: int = 1, *, of: str = "") -> str:
    """Spell the main head's pixel loss, class weights by their values.

    Parameters
    ----------
    loss : LossParams
        The loss.
    shared_by : int
        Samples to share OHEM's least number of pixels out to.
    of : str
        Of what those pixels are, in words.
    """
    text = "cross-entropy"
    if loss.name == "ohem":
        text = f"OHEM, threshold {loss.threshold:g}, at least {loss.min_kept / shared_by:.8g} pixels{of}"
    if loss.class_weights is not None:
        text += f", class weights {_weights(loss.class_weights)}"
    return text + (f", labels smoothed by {loss.label_smoothing:g}" if loss.label_smoothing else "")


def size(height_and_width: Sequence[int]) -> str:
    """Spell a size, for example ``769x769``."""
    return f"{height_and_width[0]}x{height_and_width[1]}"


def _weights(weights: Sequence[float]) -> str:
    if len(weights) <= _SPELLED_OUT:
        return " ".join(f"{weight:g}" for weight in weights)
    return f"{min(weights):g} to {max(weights):g} (digest {files.digest(list(weights))[:8]})"


def _optimiser(params: TrainParams) -> str:
    numbers = f"momentum {params.momentum:g}" if params.optimiser == "sgd" else "betas {:g}, {:g}".format(*params.betas)
    bare = "" if params.decay_norm_and_bias else ", none for norms and biases"
    clipped = "" if params.clip_gradient_norm is None else f", gradients clipped at {params.clip_gradient_norm:g}"
    averaged = "" if params.average_decay is None else f", weights averaged at {params.average_decay:g}"
    return f"{params.optimiser}, {numbers}, weight decay {params.weight_decay:g}{bare}{clipped}{averaged}"


def _rate(params: TrainParams) -> str:
    head = f", head x {params.head_learning_rate_factor:g}" if params.head_learning_rate_factor != 1 else ""
    warm = f", {params.warmup_iters} iterations of warm-up" if params.warmup_iters else ""
    return f"{params.learning_rate:g}, poly {params.power:g}{head}{warm}"


def _early_stop(params: TrainParams) -> str:
    found = params.validation
    if not found.every or found.patience is None:
        return "never"
    seen = "" if found.samples is None else f" of {found.samples} samples"
    return f"after {found.patience} validations{seen} on {found.split} without a better one, every {found.every}"


def _colours(params: TrainParams) -> str:
    changed = {kind: value for kind, value in params.photometric.model_dump().items() if value}
    return ", ".join(f"{kind} +-{value:g}" for kind, value in changed.items()) or "as they are"


def _network(model: ModelParams) -> str:
    """All of the network that a table's rows share: what they vary is no matter of the recipe."""
    head = "no auxiliary head"
    if model.aux_head is not None:
        relu = "" if model.aux_head.relu else " without ReLU"
        head = f"auxiliary head of {model.aux_head.channels}{relu}, dropout {model.aux_head.dropout:g}"
    corners = "" if model.align_corners else ", corners not aligned"
    return f"{_backbone(model.backbone)}, neck of {model.channels}, {head}{corners}"


def _backbone(backbone: Choice) -> str:
    options = {key: value for key, value in backbone.options.items() if key not in _SOURCES}
    return " ".join([backbone.name, *(f"{key}={_value(value)}" for key, value in options.items())])


def _value(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _protocol(evaluate: EvaluateParams) -> str:
    """Spell how the run will be scored; what the protocol's name stands for too, since its file can be edited."""
    found = evaluate.protocol
    tiles = "" if found.window is None else f" of {size(found.window)} tiles overlapping by {found.overlap:.2g}"
    given = "" if evaluate.image_size is None else f", images resized to {input_in_words(evaluate.image_size)}"
    scales = "" if found.scales == (1.0,) else ", at scales " + " ".join(f"{scale:g}" for scale in found.scales)
    flipped = ", flipped too" if found.flip else ""
    several = f", {found.average} averaged" if tiles or len(found.scales) > 1 or found.flip else ""
    return f"{found.name}{tiles} on {evaluate.split}{given}{scales}{flipped}{several}"
