"""Scores from counts: every statistic of an image is a vector of int64 counts that adds up over images."""

from gald.metrics._tally import Counts, Mask
from gald.metrics.border import BORDER
from gald.metrics.confusion import Scores, confusion_matrix, confusion_on_device, scores
from gald.metrics.counts import CountTable, Layout, count_image
from gald.metrics.detail import detail_per_class, detail_scores
from gald.metrics.objects import area_edges, component_areas
from gald.params import WIDTHS

__all__ = [
    "BORDER",
    "WIDTHS",
    "CountTable",
    "Counts",
    "Layout",
    "Mask",
    "Scores",
    "area_edges",
    "component_areas",
    "confusion_matrix",
    "confusion_on_device",
    "count_image",
    "detail_per_class",
    "detail_scores",
    "scores",
]
