"""`gald datasets`: every benchmark, its state on this machine, what is missing, and the next command to type.

All of it is read from boundary files, names and sizes; of an archive that waits to be unpacked, the list of its members
is looked at. Nothing large is hashed.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from gald import paths, plugins
from gald.commands._datasets_state import State, total
from gald.datasets import load_spec
from gald.datasets import names as all_names
from gald.datasets._spec import Archive
from gald.download.places import MIRROR, mirrors
from gald.download.run import Params, archives_folder
from gald.download.space import download_size, size

_NARROWEST, _WIDEST = 80, 120  # columns
_HEADER = ("benchmark", "source", "state", "download", "disk", "licence")


class Prepare(Protocol):
    """What is needed of the ``prepare`` section."""

    @property
    def store(self) -> str:
        """What trainings read: packed or files."""


def datasets(download: Params, prepare: Prepare, names: Sequence[str] = (), *, as_json: bool = False) -> str:
    """List benchmarks.

    Parameters
    ----------
    download, prepare : Params
        The sections of these names.
    names : sequence of str
        Those to list; all if there is none.
    as_json : bool
        For machines: bytes as numbers, and nothing that only a reader wants.

    Returns
    -------
    str
        A table, then what is missing of each benchmark and the next command, its terms, and its other sources.

    Raises
    ------
    ParamsError
        No benchmark has such a name.
    ArchiveError
        The environment names a mirror that does not exist.
    """
    for name in names:
        plugins.check_name("datasets", name)
    listed = dict.fromkeys(names or all_names())
    states = [State(load_spec(name, download.source(name)), prepare.store == "packed") for name in listed]
    if as_json:
        return json.dumps([_fields(state) for state in states], indent=2, ensure_ascii=False) + "\n"
    blocks = [_columns([_HEADER, *map(_row, states)], right=(3, 4)), *_details(states), _remarks(download)]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _row(state: State) -> tuple[str, ...]:
    spec = state.spec
    return spec.name, spec.source, state.words(), _download(spec.archives), str(state.disk()), spec.licence


def _details(states: Sequence[State]) -> list[list[str]]:
    """Spell next commands, terms and other sources, each under its head."""
    steps = [tuple(step) for state in states if (step := state.step()) is not None]
    terms = [(state.spec.name, str(state.spec.terms)) for state in states]
    others = [
        (form.name, form.source, _download(form.archives), form.about_source)
        for state in states
        for form in load_spec(state.spec.name).sources.values()
        if form.source != state.spec.source
    ]
    return [
        [head, *_columns(rows, right=right, indent=2)]
        for head, rows, right in (
            ("Next commands, and what is missing:", steps, ()),
            ("What you accept or do:", terms, ()),
            ("Other sources, chosen by download.sources.<benchmark> in params/base.yaml:", others, (2,)),
        )
        if rows
    ]


def _fields(state: State) -> dict[str, Any]:
    """Spell one benchmark for machines; what is not known is null."""
    spec, step, disk = state.spec, state.step(), state.disk()
    return {
        "name": spec.name,
        "title": spec.title,
        "source": spec.source,
        "state": state.words(),
        "licence": spec.licence,
        "terms": {"text": spec.terms.text, "urls": list(spec.terms.urls)},
        "archives": [
            {
                "name": archive.name,
                "bytes": download_size(archive),
                "present": archive not in state.missing and archive.name not in state.mistaken,
                "mistaken": state.mistaken.get(archive.name),
            }
            for archive in spec.archives
        ],
        "disk": {
            "archives": list(disk.archives),
            "unpacked": list(disk.unpacked),
            "prepared": disk.prepared,
            "packed": disk.packed,
            "known": sum(filter(None, disk.parts)),
        },
        "next": None if step is None else {"command": step.command, "why": step.why},
    }


def _download(archives: Sequence[Archive]) -> str:
    return total(map(download_size, archives))


def _remarks(params: Params) -> list[str]:
    """Say where data lie, what is taken from where, and how the miniatures stand."""
    root = paths.DATA_ROOT
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = size(shutil.disk_usage(existing).free)
    places = ", ".join(str(place) for place in mirrors() if isinstance(place, Path))
    ready = [name for name in all_names() if paths.manifest("mini", name).is_file()]
    text = (
        "Disk: archives, unpacked files, what is prepared of them, and the packed store; + for what is not known yet.",
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


def _width() -> int:
    """Columns to fill: the terminal's, within what can be read."""
    return min(max(shutil.get_terminal_size((_WIDEST, 24)).columns, _NARROWEST), _WIDEST)


def _columns(rows: Sequence[tuple[str, ...]], *, right: Sequence[int] = (), indent: int = 0) -> list[str]:
    """Align columns, some of them to the right; the last one is wrapped."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    begin = indent + sum(widths) + 2 * len(widths)
    lines = []
    for *cells, last in rows:
        aligned = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        first, *rest = textwrap.wrap(
            last, max(_width() - begin, 40), break_long_words=False, break_on_hyphens=False
        ) or [""]
        lines += [" " * indent + "  ".join([*aligned, first]), *(" " * begin + line for line in rest)]
    return lines
