"""What a file at hand is at a glance: whether it can be the archive whose name it bears, before it is verified."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from gald.datasets._spec import Archive, DatasetSpec
from gald.download.archives import lookalike
from gald.download.members import DAMAGE, opened
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
        What the file is, beginning with its path; None if it may be the archive, which its digest tells alone.
    """
    found = path.stat().st_size
    if archive.size is not None and found != archive.size:
        return f"{path} has {found} bytes instead of {archive.size}"
    listed = archive.name.endswith(".zip")
    try:
        with opened(path, archive.name) as members:
            seen = list(islice(members, None if listed else _FEW))
    except ArchiveError as error:
        return str(error)
    except (*DAMAGE, OSError):
        return f"{path} is no whole archive"
    if any(re.fullmatch(archive.members, re.sub(rf"\A(?:{archive.strip})", "", member.path)) for member in seen):
        return None
    return lookalike(path, seen, spec.lookalikes) or (f"{path} holds nothing of {archive.name}" if listed else None)
