"""Decode the common kinds of PNG in half the time that Pillow takes, with Wuffs, where it is installed.

Most of the time that training from files takes goes into PNG. Pixels are the same; whatever Wuffs is not installed for,
does not know or finds wrong is left to Pillow, whose errors name what is the matter.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KIND = slice(24, 26)  # bit depth and colour type in the header
_KINDS = {b"\x08\x02": "RGB", b"\x08\x00": "L"}


def decode(content: bytes, mode: str) -> NDArray[np.uint8] | None:
    """Decode a PNG.

    Parameters
    ----------
    content : bytes
        The whole file.
    mode : str
        Pillow's name of the kind that is expected, ``RGB`` or ``L``.

    Returns
    -------
    uint8 array (H, W, 3) or (H, W), or None
        The pixels; None where Pillow must look at the file: it is of another kind, is damaged, or Wuffs is missing.
    """
    if not content.startswith(_SIGNATURE) or _KINDS.get(content[_KIND]) != mode:
        return None
    if b"tRNS" in content[: content.find(b"IDAT")]:  # a transparent colour, which Pillow leaves as it is
        return None
    config = _CONFIGS.get(mode)
    if config is None:
        return None
    decoded = _aux.ImageDecoder(config).decode(content)
    if decoded.error_message:
        return None
    pixels: NDArray[np.uint8] = np.asarray(decoded.pixbuf)
    return pixels if mode == "RGB" else pixels[..., 0]


def _configs() -> dict[str, Any]:
    """Say what each mode asks of the decoder; nothing where it is not installed."""
    if _wuffs is None:
        return {}
    formats = {"RGB": _wuffs.PixelFormat.RGB, "L": _wuffs.PixelFormat.Y}
    configs = {}
    for mode, pixel_format in formats.items():
        configs[mode] = _aux.ImageDecoderConfig()
        configs[mode].enabled_decoders = [_wuffs.ImageDecoderType.PNG]
        configs[mode].pixel_format = pixel_format
    return configs


def _module(name: Literal["pywuffs", "pywuffs.aux"]) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_wuffs = _module("pywuffs")
_aux = _module("pywuffs.aux")
_CONFIGS = _configs()
