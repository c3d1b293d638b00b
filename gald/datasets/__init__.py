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


def load_spec(name: str, source: str | None = None) -> DatasetSpec:
    """Import a benchmark's file and return its ``SPEC``.

    Parameters
    ----------
    name : str
        Name of the file.
    source : str, optional
        Published form of the benchmark; its usual one by default.

    Raises
    ------
    DatasetError
        No file bears that name, or the benchmark has no such form; the message lists what there is.
    """
    if name not in names():
        raise DatasetError(f"no dataset is called {name!r}; {nearest(name, names())}")
    spec: DatasetSpec = importlib.import_module(f"gald.datasets.{name}").SPEC
    if source is None:
        return spec
    if source not in spec.sources:
        raise DatasetError(f"{name} has no source {source!r}; {nearest(source, spec.sources)}")
    return spec.sources[source]
