"""What a file at hand is at a glance, by its size and the names of its members, before or without its digest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from gald.datasets._spec import Archive, DatasetSpec, Lookalike
from gald.download.members import DAMAGE, Member, opened, shortened
from gald.errors import ArchiveError

_FEW = 20  # members of a tar, which has no list of them


def mistaken(path: Path, archive: Archive, spec: DatasetSpec) -> str | None:
    """Say why a file is not the archive whose name it bears, as far as its size and the names of its members tell.

    Parameters
    ----------
    path : Path
        The file.
    archive : Archive
        What its name promises.
    spec : DatasetSpec
        The benchmark, which knows what is taken for it.

    Returns
    -------
    str or None
        What the file is, beginning with its path; None if it may be the archive, which its digest tells alone. A
        lookalike is named before a wrong size, as when a copy is verified.
    """
    found = path.stat().st_size
    size = None if archive.size in (None, found) else f"{path} has {found} bytes instead of {archive.size}"
    try:
        wanted, others = _first(path, archive)
    except PermissionError as error:
        return size or f"{path} cannot be read ({error.strerror})"
    except ArchiveError as error:
        return size or str(error)
    except (*DAMAGE, OSError):
        return size or f"{path} is no whole archive"
    if wanted and size is None:
        return None
    nothing = f"{path} holds nothing of {archive.name}" if _is_listed(archive) else None
    return lookalike(path, others, spec.lookalikes) or size or nothing


def another(path: Path, archive: Archive, lookalikes: Sequence[Lookalike]) -> str | None:
    """Say which lookalike a copy is that is not the published file; one that is damaged is none."""
    if not lookalikes:
        return None
    try:
        return lookalike(path, _first(path, archive)[1], lookalikes)
    except (*DAMAGE, OSError, ArchiveError):
        return None


def lookalike(path: Path, members: Iterable[Member], lookalikes: Iterable[Lookalike]) -> str | None:
    """Tell a lookalike by the paths of its members."""
    for member in members:
        for one in lookalikes:
            if re.match(one.pattern, member.path):
                return f"{path} is {one.what}"
    return None


def _is_listed(archive: Archive) -> bool:
    """Whether all members are seen, and not the first few alone."""
    return archive.name.endswith(".zip")


def _first(path: Path, archive: Archive) -> tuple[list[Member], list[Member]]:
    """Return those of the members at the beginning that are wanted, and the others."""
    wanted: list[Member] = []
    others: list[Member] = []
    with opened(path, archive.name) as members:
        for member in islice(members, None if _is_listed(archive) else _FEW):
            (wanted if re.fullmatch(archive.members, shortened(member, archive)) else others).append(member)
    return wanted, others
