"""Global aggregation, then local distribution: the paper's tables, rebuilt from raw archives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gald.models.weights import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # PEP 562: `gald.load` needs torch, and importing torch takes seconds that `gald --help` should not pay.
    if name == "load":
        from gald.models.weights import load

        return load
    raise AttributeError(f"module 'gald' has no attribute {name!r}")
