"""Import timm also where torchvision's compiled operators do not fit the installed torch."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import torch

_KEPT: list[Any] = []  # an operator library lives as long as the object that declared it


def import_timm() -> ModuleType:
    """Import timm.

    timm imports torchvision for two helpers. The torchvision wheels of the package index are built for CUDA; beside a
    CPU build of torch their operators cannot load, and importing torchvision stops at the first use of one. No network
    of timm uses them, so their names are declared, without code, and the import tried again.

    Raises
    ------
    RuntimeError
        torchvision fails for another reason.
    """
    try:
        return importlib.import_module("timm")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _KEPT.append(library)
    return importlib.import_module("timm")
