"""Pixel losses: cross-entropy, its online hard example mining, and the weighting of the auxiliary head.

Scores come as the heads leave them and are resized to the mask on the way, strip by strip. A loss is a sum over pixels
divided by a count that the caller may give, so that micro-batches and devices with unequal numbers of ignored pixels
add up to what one batch would give. Where all pixels are ignored it is 0 with zero gradients and not NaN.
"""

from gald.losses._pixels import HardPixels
from gald.losses._segmentation import Losses, pixel_loss, segmentation_loss, valid_weight

__all__ = ["HardPixels", "Losses", "pixel_loss", "segmentation_loss", "valid_weight"]
