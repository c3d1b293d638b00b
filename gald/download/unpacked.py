"""A benchmark whose archives somebody has unpacked already: its files are taken from that tree.

No archive is needed then, and none vouches for the files, which raw.json says. What can be checked is: as many samples
in each split as are published, each with its files, and the digest of the files where one is known.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

from gald.datasets._spec import Archive, DatasetSpec
from gald.download.archives import check_room, sorted_out, verify
from gald.download.glance import lookalike
from gald.download.members import PACKED, Member, in_folder
from gald.errors import ArchiveError, DatasetError

SOURCE = "unpacked tree, archives not verified"
"""What raw.json and the manifest name in place of an archive's digest."""
_PLAIN = "unpacked tree"
REMEDY = "name the folder that the archives were unpacked into, or leave the option out and have them downloaded"
_TELL_S = 5.0
_MOST_NAMED = 20

_log = logging.getLogger("gald")


def take(spec: DatasetSpec, tree: Path, target: Path) -> list[dict[str, Any]]:
    """Take what is needed of an unpacked tree, by hard links where the disk is the same one, else as copies.

    Parameters
    ----------
    spec : DatasetSpec
        The benchmark in the form that is wanted.
    tree : Path
        Folder that its archives were unpacked into, or that of their common top folder.
    target : Path
        Existing folder, a temporary one, since what fails half-way leaves files in it.

    Returns
    -------
    list of dict
        Entries of raw.json, one for each archive.

    Raises
    ------
    ArchiveError
        The tree is none of the whole benchmark.
    OSError
        The target cannot be written, for example because the disk is full.
    """
    if not tree.is_dir():
        raise ArchiveError(f"{tree} is no folder; {REMEDY}")
    found = list(in_folder(tree))
    entries = []
    for archive in spec.archives:
        _log.info("full/%s: taking the files of %s from %s", spec.name, archive.name, tree)
        wanted = _wanted(spec, archive, found, tree)
        _place(wanted, tree, target, archive.name)
        entries.append(_entry(archive, tree))
    _check_samples(spec, tree, target)
    return entries


def _wanted(spec: DatasetSpec, archive: Archive, found: list[Member], tree: Path) -> dict[str, Member]:
    """Pick the files of one archive; what is published as a plain file bears its own name."""
    members = found if archive.name.endswith(PACKED) else [one for one in found if one.path == archive.name]
    try:
        wanted, others = sorted_out(members, archive, tree, most_bytes=math.inf, most_files=math.inf)
    except ArchiveError as error:
        raise ArchiveError(f"{error}; {REMEDY}") from error
    if not wanted:
        what = lookalike(tree, others, spec.lookalikes)
        raise ArchiveError(f"{what or f'{tree} holds no file as {archive.name} does'}; {REMEDY}")
    return wanted


def _place(wanted: dict[str, Member], tree: Path, target: Path, name: str) -> None:
    """Link or copy files to their paths below a folder."""
    told = time.monotonic()
    sources = {path: (tree / member.path).resolve() for path, member in wanted.items()}
    copied = [member for path, member in wanted.items() if _device(sources[path]) != _device(target)]
    check_room(copied, tree, target)
    for number, (path, source) in enumerate(sources.items()):
        if time.monotonic() - told >= _TELL_S:
            told = time.monotonic()
            _log.info("%s: %d of %d files", name, number, len(wanted))
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.hardlink_to(source)
        except OSError:  # another device, a file system without links, or a file that is not ours to link
            shutil.copyfile(source, place)


def _device(path: Path) -> int:
    return path.stat().st_dev


def _entry(archive: Archive, tree: Path) -> dict[str, Any]:
    """Describe an archive for raw.json; a plain file is there itself, and is verified as ever."""
    if archive.name.endswith(PACKED):
        return {"name": archive.name, "sha256": None, "bytes": None, "source": SOURCE}
    path = tree / archive.name
    digest = verify(path, archive, REMEDY)
    return {"name": archive.name, "sha256": digest, "bytes": path.stat().st_size, "source": _PLAIN}


def _check_samples(spec: DatasetSpec, tree: Path, target: Path) -> None:
    """Refuse a tree without all samples."""
    try:
        samples = spec.index(target)
    except DatasetError as error:
        raise ArchiveError(f"{tree} does not hold all of {spec.title}: {error}; {REMEDY}") from error
    problems = [
        f"split {split} has {len(samples.get(split, []))} samples, expected {count}"
        for split, count in spec.counts.items()
        if len(samples.get(split, [])) != count
    ]
    files = {
        path for listed in samples.values() for one in listed for path in (one.image, one.mask) if path is not None
    }
    missing = sorted(path.relative_to(target).as_posix() for path in files if not path.is_file())
    if missing:
        problems.append(f"{len(missing)} of its files are missing: {', '.join(missing[:_MOST_NAMED])}")
    if problems:
        raise ArchiveError(f"{tree} does not hold all of {spec.title}: {'; '.join(problems)}; {REMEDY}")
