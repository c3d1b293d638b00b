"""How scores came about, as a record and as a sentence; no number travels without it."""

from __future__ import annotations

from typing import Any

from gald.params import EvaluateParams, ProtocolParams, input_in_words

SCORED = {"scored_at": "the mask's own size", "ignored": "pixels that the truth ignores count nowhere"}
"""What holds of all scores, whoever predicted."""


def protocol(params: EvaluateParams, num_classes: int) -> dict[str, Any]:
    """Record a protocol.

    Parameters
    ----------
    params : EvaluateParams
        How a class was found for each pixel, and on which split.
    num_classes : int
        Classes K that are scored.

    Returns
    -------
    dict
        ``name`` and ``text`` for readers, and a field for each decision.
    """
    inference = params.protocol
    return {
        "name": inference.name,
        "text": sentence(params),
        "split": params.split,
        "classes": num_classes,
        "input_size": params.model_dump(mode="json", include={"image_size"})["image_size"],
        **inference.model_dump(mode="json", exclude={"name"}),
        **SCORED,
    }


def sentence(params: EvaluateParams) -> str:
    """Say a protocol in words.

    Examples
    --------
    >>> tiles = ProtocolParams(
    ...     name="sliding", window=(769, 769), overlap=1 / 3, average="logits", scales=(1.0,), flip=False
    ... )
    >>> sentence(EvaluateParams(split="val", protocol=tiles, image_size=None, gallery=0, threads=1))
    "sliding window 769x769, overlap 0.33, logits averaged, native size, single scale, no flip, scored at the mask's size on val"
    """  # noqa: E501 - the sentence is one line
    inference = params.protocol
    several = inference.window is not None or len(inference.scales) > 1 or inference.flip
    parts = ["whole image"]
    if inference.window is not None:
        parts = ["sliding window {}x{}".format(*inference.window), f"overlap {inference.overlap:.2g}"]
    parts += [f"{inference.average} averaged"] if several else []
    parts.append("native size" if params.image_size is None else f"input {input_in_words(params.image_size)}")
    parts.append(_scales(inference))
    parts.append("flip" if inference.flip else "no flip")
    return f"{', '.join(parts)}, scored at the mask's size on {params.split}"


def _scales(inference: ProtocolParams) -> str:
    if inference.scales == (1.0,):
        return "single scale"
    return f"scale{'s' * (len(inference.scales) > 1)} " + " ".join(f"{scale:g}" for scale in inference.scales)
