"""Import what needs torchvision also where torchvision's compiled operators do not fit the installed torch."""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

_KEPT: list[Any] = []  # an operator library lives as long as the object that declared it


def import_with_torchvision(name: str) -> ModuleType:
    """Import a module that imports torchvision, but calls none of its compiled operators.

    The torchvision wheels of the package index are built for CUDA; beside a CPU build of torch their operators cannot
    load, and importing torchvision stops at the first use of one. So their names are declared, without code, and the
    import is tried again. It takes seconds: nothing on the way to a training's first iteration may need it.

    Parameters
    ----------
    name : str
        Full name of the module, for example ``timm``.

    Raises
    ------
    RuntimeError
        torchvision fails for another reason.
    """
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for half in [
        module for module in sys.modules if module.partition(".")[0] in (name.partition(".")[0], "torchvision")
    ]:
        del sys.modules[half]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _KEPT.append(library)
    return importlib.import_module(name)
