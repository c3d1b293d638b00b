"""Joint transforms of image and mask, as a function of (seed, iteration, sample) and nothing else.

All randomness of a sample is drawn at once (`draw`), in an order that no option changes; applying it (`augment`) is
pure. The crop comes before the resize: a window of the source is cut out and resized to its place in the crop, so only
pixels that are shown are read, and never more than once. What lies outside of the source is padding, and ignored.
"""

from gald.transforms._augment import PADDING_COLOUR, Draws, augment, draw
from gald.transforms._crops import scaled_size
from gald.transforms._resize import Pixels, resize_image, resize_mask

__all__ = ["PADDING_COLOUR", "Draws", "Pixels", "augment", "draw", "resize_image", "resize_mask", "scaled_size"]
