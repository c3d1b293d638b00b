"""Reads how large the objects of a benchmark are, as `gald objects` wrote it down."""

from __future__ import annotations

import json

from gald import paths
from gald.errors import DatasetError
from gald.files import sha256


def read_edges(edition: str, dataset: str) -> tuple[int, ...]:
    """Read the areas that separate the quarters, in pixels.

    Raises
    ------
    DatasetError
        The file is missing or damaged, or was made of other prepared data; the message says what to run.
    """
    path = paths.objects(edition, dataset)
    again = f"run `gald objects {edition}/{dataset}`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        edges, made_of = tuple(map(int, content["area_edges"])), content["manifest_sha256"]
        if len(edges) != 3 or list(edges) != sorted(edges):
            raise ValueError(f"area_edges are {edges}, not three ascending areas")
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing, which says how large objects are: {again}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error}): {again}") from error
    if made_of != sha256(paths.manifest(edition, dataset)):
        raise DatasetError(f"{path} was made of {dataset} as it was prepared before: {again}")
    return edges
