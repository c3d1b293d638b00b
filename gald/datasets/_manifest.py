"""Reads manifest.json of a prepared benchmark, and refuses what is of no shape that the prepare stage writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gald.errors import DatasetError

_SHAPES: dict[str, type] = {
    "archives": list,
    "palette": list,
    "ignore_index": int,
    "raw_sha256": str,
    "pixel_counts": dict,
    "ignored_pixels": dict,
    "ignored_by_name": dict,
    "all_ignored": dict,
    "converted": dict,
    "skipped": dict,
}
"""What an entry has to be, if it is there; `splits` and `classes` always are."""


def parse_manifest(content: bytes, path: Path, *, remedy: str) -> dict[str, Any]:
    """Read a manifest and check its shape, so that nobody has to who uses it.

    Parameters
    ----------
    content : bytes
        Of the file.
    path : Path
        The file, for messages.
    remedy : str
        What cures a damaged folder.

    Raises
    ------
    DatasetError
        It is no JSON, or not of a manifest's shape.
    """
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise DatasetError(f"{path} is damaged ({error}); {remedy}") from error
    problem = _problem(manifest)
    if problem is not None:
        raise DatasetError(f"{path} is damaged ({problem}); {remedy}")
    checked: dict[str, Any] = manifest
    return checked


def _problem(manifest: object) -> str | None:
    """Say what is wrong with a manifest's shape, if anything."""
    if not isinstance(manifest, dict):
        return "it is no object"
    splits, classes = manifest.get("splits"), manifest.get("classes")
    if not isinstance(splits, dict) or not splits:
        return "it lists no splits"
    for name, entry in splits.items():
        told = isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("index", "sha256"))
        if not told:
            return f"its split {name!r} names no index and digest"
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        return "it lists no classes"
    wrong = [key for key, shape in _SHAPES.items() if not isinstance(manifest.get(key, shape()), shape)]
    return f"its {', '.join(wrong)} cannot be read" if wrong else None
