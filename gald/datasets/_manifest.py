"""Reads manifest.json of a prepared benchmark, and refuses what is of no shape that the prepare stage writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gald.errors import DatasetError

_SHAPES: dict[str, Any] = {
    "archives": [dict],
    "palette": [[int]],
    "ignore_index": int,
    "raw_sha256": str,
    "pixel_counts": {str: [int]},
    "ignored_pixels": {str: int},
    "ignored_by_name": {str: {str: int}},
    "all_ignored": {str: [str]},
    "converted": {str: dict},
    "skipped": {str: [dict]},
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
        if not isinstance(entry.get("count", 0), int) or not isinstance(entry.get("labelled", True), bool):
            return f"count or labelled of its split {name!r} cannot be read"
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        return "it lists no classes"
    wrong = [key for key, shape in _SHAPES.items() if key in manifest and not _fits(manifest[key], shape)]
    if wrong:
        return f"its {', '.join(wrong)} cannot be read"
    if any(len(counts) != len(classes) for counts in manifest.get("pixel_counts", {}).values()):
        return f"its pixel_counts are not those of {len(classes)} classes"
    return None


def _fits(value: object, shape: Any) -> bool:
    """Whether a value is of a type, or a list or an object of such values.

    Examples
    --------
    >>> _fits({"train": [1, 2]}, {str: [int]}), _fits({"train": [1, "2"]}, {str: [int]})
    (True, False)
    """
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(one, shape[0]) for one in value)
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(_fits(one, shape[str]) for one in value.values())
    return isinstance(value, shape) and not isinstance(value, bool)
