"""Names of the scores, as params, metrics files and tables spell them, and their titles as printed."""

from __future__ import annotations

WIDTHS = (1, 3, 5, 9, 12)
"""Distances to a boundary in pixels: the very edge, and those of Gated-SCNN (Takikawa et al., ICCV 2019)."""

_QUARTERS = ("smallest quarter", "second quarter", "third quarter", "largest quarter")
_ZONES = 4

SCORES: dict[str, str] = {
    "mean_iou": "mIoU (%)",
    "pixel_accuracy": "Pixel accuracy (%)",
    "mean_accuracy": "Mean accuracy (%)",
    "frequency_weighted_iou": "Frequency-weighted IoU (%)",
    **{f"trimap_mean_iou_{width}": f"Trimap mIoU, {width} px (%)" for width in WIDTHS},
    **{f"boundary_iou_{width}": f"Boundary IoU, {width} px (%)" for width in WIDTHS},
    **{f"boundary_f_{width}": f"Boundary F-score, {width} px (%)" for width in WIDTHS},
    **{f"object_accuracy_{place}": f"Object accuracy, {name} (%)" for place, name in enumerate(_QUARTERS, 1)},
    **{f"object_found_{place}": f"Objects found, {name} (%)" for place, name in enumerate(_QUARTERS, 1)},
    **{f"border_mean_iou_{zone}": f"mIoU, border zone {zone} of {_ZONES} (%)" for zone in range(1, _ZONES + 1)},
}
"""Scores of a run, fractions in files and percent when printed; `gald.metrics.detail` says how each is computed."""

COSTS: dict[str, str] = {
    "parameters": "Parameters (M)",
    "gmacs": "GMACs",
    "peak_memory": "Peak memory (MiB)",
    "latency": "Latency (ms)",
}
"""What a row's network takes; the last two are of a machine."""
