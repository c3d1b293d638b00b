"""From an image to predicted train ids by a named protocol: whole or in tiles, at several scales, mirrored or not.

One image at a time, so that a prediction never depends on what else is in its batch. Scores stay at the network's own
resolution; they are resized block by block, where the class is chosen at once, so that the scores of all classes at the
image's size never exist. Of large images in tiles the scores of a few tiles exist at a time.
"""

from gald.inference._network import as_input, channels_last, for_prediction
from gald.inference._peak import peak_bytes
from gald.inference._predict import WHOLE, predict, predict_on_device

__all__ = ["WHOLE", "as_input", "channels_last", "for_prediction", "peak_bytes", "predict", "predict_on_device"]
