"""The raw files as they were unpacked: what raw.json says, and the list of digests that it vouches for.

What is prepared bears the digest of the raw files. So each of them is compared with the list before it is used: a file
that differs was altered since it was unpacked, and nothing is made of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from gald import paths
from gald.errors import DatasetError
from gald.files import LISTING, listing_digest, parse_listing
from gald.prepare.convert import Problem, Task, altered


def downloaded(edition: str, dataset: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Read raw.json and the list of files beside it; the caller holds the lock of the download.

    Returns
    -------
    raw : dict
        Content of raw.json.
    listing : dict
        Sha256 of each unpacked file, by its path below ``files``.

    Raises
    ------
    DatasetError
        Nothing was downloaded, or one of the two is damaged or does not fit the other.
    """
    boundary = paths.raw_json(edition, dataset)
    command = f"`gald download {edition}/{dataset}`"
    if not boundary.is_file():
        raise DatasetError(f"{boundary} is missing; run {command} first")
    try:
        raw: dict[str, Any] = json.loads(boundary.read_bytes())
        _ = raw["tree_sha256"], [archive[key] for archive in raw["archives"] for key in ("name", "sha256", "bytes")]
        if not isinstance(raw.get("source", ""), str):
            raise TypeError(f"its source is {raw['source']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{boundary} is damaged ({error}); delete it and run {command} again") from error
    if "source" not in raw:
        raise DatasetError(f"{boundary} is of an earlier version and does not name its source; run {command} again")
    path = boundary.with_name(LISTING)
    if not path.is_file():
        raise DatasetError(f"{path}, the list of unpacked files, is missing; run {command} again")
    listing = path.read_bytes().decode(errors="replace")
    if listing_digest(listing) != raw["tree_sha256"]:
        raise DatasetError(f"{path} is not the list of files that {boundary} vouches for; run {command} again")
    return raw, parse_listing(listing)


def expecting(tasks: Sequence[Task], root: Path, listing: Mapping[str, str]) -> tuple[list[Task], list[str]]:
    """Tell each task what digests its files should have.

    Parameters
    ----------
    tasks : sequence of Task
        Every sample.
    root : Path
        Folder of the unpacked files.
    listing : mapping
        Sha256 of each of them.

    Returns
    -------
    tasks : list of Task
        The same, each with what is to be compared when it is converted.
    rest : list of str
        Files that no task compares: lists, and one file with the masks of many samples.
    """
    uses = Counter(task.sample.mask for task in tasks)
    compared: set[str] = set()

    def digest(path: Path | None) -> str | None:
        if path is None:
            return None
        name = path.relative_to(root).as_posix()
        compared.add(name)
        return listing.get(name, "")

    told = []
    for task in tasks:
        mask = task.sample.mask
        shared = bool(task.sample.segments) or uses[mask] > 1
        told.append(replace(task, expected=(digest(task.sample.image), None if shared else digest(mask))))
    return told, [name for name in listing if name not in compared]


def altered_rest(rest: Sequence[str], root: Path, listing: Mapping[str, str], threads: int) -> list[Problem]:
    """Compare the files that no task compares; return what is wrong with them."""
    with ThreadPoolExecutor(threads) as pool:  # hashing releases the interpreter
        found = pool.map(lambda name: altered(root / name, listing[name]), rest)
        return [problem for problem in found if problem is not None]
