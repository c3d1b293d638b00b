"""The benchmarks: one file each, looked up by file name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from gald.errors import DatasetError
from gald.plugins import available, nearest

if TYPE_CHECKING:
    from gald.datasets._spec import DatasetSpec

IGNORE_INDEX = 255
"""Train id of pixels that count neither in the loss nor in a score, in every mask of every benchmark."""


def names() -> tuple[str, ...]:
    """Names of the benchmarks, sorted; imports none of them."""
    return available("datasets")


def load_spec(name: str) -> DatasetSpec:
    """Import a benchmark's file and return its ``SPEC``.

    Raises
    ------
    DatasetError
        No file bears that name; the message lists those that do.
    """
    if name not in names():
        raise DatasetError(f"no dataset is called {name!r}; {nearest(name, names())}")
    spec: DatasetSpec = importlib.import_module(f"gald.datasets.{name}").SPEC
    return spec
