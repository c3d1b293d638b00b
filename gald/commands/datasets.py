"""`gald datasets`: every benchmark, its state on this machine, what is missing, and the next command to type.

All of it is read from the boundary files and the names of files: no archive is opened, and nothing large is hashed.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gald import paths
from gald.datasets import load_spec, names
from gald.datasets._spec import Archive, DatasetSpec, Login
from gald.download.login import credentials, half_told
from gald.download.part import Part
from gald.download.places import MIRROR, OFFLINE, here, mirrors, offline
from gald.download.run import Params, archives_folder
from gald.download.space import download_size, size
from gald.files import sha256

_NARROWEST, _WIDEST = 80, 120  # columns
_HEADER = ("benchmark", "source", "state", "size", "licence")


def datasets(params: Params) -> str:
    """List the benchmarks.

    Parameters
    ----------
    params : Params
        The download section.

    Returns
    -------
    str
        A table, then what is missing of each benchmark and the next command, then the other sources.

    Raises
    ------
    ArchiveError
        The environment names a mirror that does not exist.
    """
    specs = [load_spec(name, params.source(name)) for name in names()]
    rows: list[tuple[str, ...]] = [
        (spec.name, spec.source, _state(spec), _size(spec.archives), spec.licence) for spec in specs
    ]
    steps = [step for spec in specs if (step := _next(spec)) is not None]
    others: list[tuple[str, ...]] = [
        (form.name, form.source, _size(form.archives), form.about_source)
        for spec in specs
        for form in load_spec(spec.name).sources.values()
        if form.source != spec.source
    ]
    blocks = [_columns([_HEADER, *rows], right=3)]
    if steps:
        blocks.append(["Next commands, and what is missing:", *_columns(steps, indent=2)])
    if others:
        head = "Other sources, chosen by download.sources.<benchmark> in params/base.yaml:"
        blocks.append([head, *_columns(others, right=2, indent=2)])
    blocks.append(_remarks(params))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _state(spec: DatasetSpec) -> str:
    """Say in a few words how far a benchmark is."""
    raw, manifest = _read(paths.raw_json("full", spec.name)), _read(paths.manifest("full", spec.name))
    if manifest.get("source") == spec.source:
        if raw and not _is_made_of(manifest, raw):
            return "prepared from older files"
        return "prepared, packed" if _is_packed(spec.name) else "prepared"
    if raw.get("source") == spec.source:
        return "downloaded"
    former = manifest or raw
    if former:
        return f"only {former['source']} is here" if "source" in former else "of an older version"
    folder = archives_folder("full", spec.name)
    present = sum(here(archive, folder) is not None for archive in spec.archives)
    begun = sum(Part(folder, archive.name).size for archive in spec.archives)
    if present or begun:
        return f"archives: {present} of {len(spec.archives)}" + (f", {size(begun)} begun" if begun else "")
    return "missing"


def _is_made_of(manifest: dict[str, Any], raw: dict[str, Any]) -> bool:
    return (manifest.get("source"), manifest.get("raw_sha256")) == (raw.get("source"), raw.get("tree_sha256"))


def _is_packed(name: str) -> bool:
    recorded = _read(paths.packed_json("full", name)).get("manifest_sha256")
    return recorded is not None and recorded == sha256(paths.manifest("full", name))


def _next(spec: DatasetSpec) -> tuple[str, str] | None:
    """Return the command to type and what it brings or needs; None if the benchmark can be trained on."""
    raw, manifest = _read(paths.raw_json("full", spec.name)), _read(paths.manifest("full", spec.name))
    if manifest.get("source") == spec.source and (not raw or _is_made_of(manifest, raw)):
        return None
    if raw.get("source") == spec.source:
        return f"gald prepare full/{spec.name}", "makes images and masks of what is unpacked"
    command = f"gald download full/{spec.name}"
    folder = archives_folder("full", spec.name)
    missing = [archive for archive in spec.archives if here(archive, folder) is None]
    if not missing:
        return command, "verifies and unpacks the archives that are here"
    wanted = f"{', '.join(archive.name for archive in missing)} ({_size(missing)})"
    closed = next((a.login for a in missing if a.login is not None and credentials(a.login) is None), None)
    if closed is not None:
        return command, f"{wanted}; first {_enter(closed, folder)}"
    if not all(archive.urls for archive in missing):
        return command, f"{wanted}; first get it from {missing[0].page} and put it into {folder}"
    return command, wanted + (f"; first unset {OFFLINE}" if offline() else "")


def _enter(login: Login, folder: Path) -> str:
    half = half_told(login)
    if half is not None:
        return f"set the other one too: {half}"
    user, password = login.variables
    return f"register at {login.register} and set {user} and {password}, or put the archives into {folder} yourself"


def _size(archives: Sequence[Archive]) -> str:
    """Spell the size of archives together; a plus sign stands for those of unknown size."""
    known = [count for archive in archives if (count := download_size(archive)) is not None]
    return size(sum(known)) + ("+" if len(known) < len(archives) else "") if known else "unknown"


def _remarks(params: Params) -> list[str]:
    """Say where data lie, what is taken from where, and how the miniatures stand."""
    root = paths.DATA_ROOT
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = size(shutil.disk_usage(existing).free)
    places = ", ".join(str(place) for place in mirrors() if isinstance(place, Path))
    ready = [name for name in names() if paths.manifest("mini", name).is_file()]
    text = (
        f"Data lie in {root.absolute()}, where {free} are free; GALD_DATA names another place.",
        f"Archives that you have already are taken from {archives_folder('full', '<benchmark>')}"
        + (f" or {places}" if places else f", or from a folder or URL that {MIRROR} names,")
        + " under their published names, once they are verified.",
        f"Miniatures are drawn from seed {params.seed} and need no download; prepared: {', '.join(ready) or 'none'}. "
        "For example: gald download mini/camvid",
    )
    return [
        line
        for sentence in text
        for line in textwrap.wrap(sentence, _width(), break_long_words=False, break_on_hyphens=False)
    ]


def _read(path: Path) -> dict[str, Any]:
    """Read a boundary file; empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _width() -> int:
    """Columns to fill: the terminal's, within what can be read."""
    return min(max(shutil.get_terminal_size((_WIDEST, 24)).columns, _NARROWEST), _WIDEST)


def _columns(rows: Sequence[tuple[str, ...]], *, right: int | None = None, indent: int = 0) -> list[str]:
    """Align columns, one of them to the right; the last one is wrapped."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    begin = indent + sum(widths) + 2 * len(widths)
    lines = []
    for *cells, last in rows:
        aligned = [
            cell.rjust(width) if column == right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        first, *rest = textwrap.wrap(
            last, max(_width() - begin, 40), break_long_words=False, break_on_hyphens=False
        ) or [""]
        lines += [" " * indent + "  ".join([*aligned, first]), *(" " * begin + line for line in rest)]
    return lines
