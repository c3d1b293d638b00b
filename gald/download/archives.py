"""Verify an archive and unpack what is needed of it, trusting nothing that it says.

Member paths may not leave the folder, links are not followed, and what comes out may be no larger than what the
archive declares and than a benchmark can be. An archive without a published digest is read to its end, since its own
checksums are all there is. Every failure is one `ArchiveError` that names the file.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from gald.datasets._spec import Archive, Lookalike
from gald.download.glance import another, lookalike
from gald.download.members import DAMAGE, Member, opened, shortened
from gald.errors import ArchiveError

_CHUNK = 1 << 20
_MOST_FILES = 400_000
"""The largest benchmark here has some 44 000 files; more than this is no benchmark."""
_MOST_GROWTH, _FREE_GROWTH = 60, 64 << 20
"""Unpacked data may be this many times the archive's size, plus this many bytes: PNG and JPEG hardly shrink."""
_TELL_S = 5.0

_log = logging.getLogger("gald")


def checksums(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    """Return a file's digests by those algorithms, as hex digits; it is read once."""
    running = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for one in running.values():
                one.update(chunk)
    return {name: one.hexdigest() for name, one in running.items()}


def verify(path: Path, archive: Archive, remedy: str, lookalikes: Sequence[Lookalike] = ()) -> str:
    """Compare a file with what is known of the archive: its size and its strongest published digest.

    Parameters
    ----------
    path : Path
        The copy to be checked.
    archive : Archive
        What is known; nothing may be, and then nothing is checked here.
    remedy : str
        What the reader should do, the end of the message.
    lookalikes : sequence of Lookalike
        Archives that are taken for this one, to be named if one of them is what lies here.

    Returns
    -------
    str
        Sha256 of the copy, as hex digits.

    Raises
    ------
    ArchiveError
        The copy is not the published file.
    """
    found = path.stat().st_size
    if archive.size is not None and found != archive.size:
        amiss = another(path, archive, lookalikes)
        amiss = amiss or f"{path}: expected {archive.size} bytes, found {found}: truncated or altered"
        raise ArchiveError(f"{amiss}; {remedy}")
    strongest = next((name for name in ("sha256", "sha1", "md5") if name in archive.digests), None)
    digests = checksums(path, {"sha256", strongest or "sha256"})
    if strongest is None:
        _log.info("%s: no digest is published; its sha256 is %s", archive.name, digests["sha256"])
    elif digests[strongest] != archive.digests[strongest]:
        expected, digest = archive.digests[strongest], digests[strongest]
        amiss = another(path, archive, lookalikes) or f"{path}: expected {strongest} {expected}, found {digest}"
        raise ArchiveError(f"{amiss}; {remedy}")
    return digests["sha256"]


def unpack(path: Path, archive: Archive, target: Path, remedy: str, lookalikes: Sequence[Lookalike] = ()) -> int:
    """Unpack the members that the archive's description asks for; a plain file is copied.

    Parameters
    ----------
    path : Path
        A zip, a tar (compressed or not), or any other file.
    archive : Archive
        Says which members are wanted, and what leading part of their paths to cut off.
    target : Path
        Existing folder; what fails half-way leaves files in it, so let it be a temporary one.
    remedy : str
        What the reader should do about a bad archive, the end of the message.
    lookalikes : sequence of Lookalike
        Archives that are taken for this one, to be named if one of them is what lies here.

    Returns
    -------
    int
        Number of files written.

    Raises
    ------
    ArchiveError
        Damaged, unsafe, too large, or without a single wanted member.
    OSError
        The target cannot be written, for example because the disk is full.
    """
    try:
        with opened(path, archive.name) as members:
            wanted, others = _bounded(members, archive, path)
            if not wanted:
                what = lookalike(path, others, lookalikes)
                raise ArchiveError(what or f"{path}: holds no member like {archive.members!r}; is it {archive.name}?")
            check_room(wanted.values(), path, target)
            told = time.monotonic()
            for number, (name, member) in enumerate(wanted.items()):
                if time.monotonic() - told >= _TELL_S:
                    told = time.monotonic()
                    _log.info("%s: %d of %d files", archive.name, number, len(wanted))
                _write(member, target / name, path)
            if not archive.digests:
                for member in others:
                    for _ in _chunks(member, path):
                        pass  # for the sake of its checksum
    except DAMAGE as error:
        raise ArchiveError(f"{path}: a damaged archive ({_first_line(error)}); {remedy}") from error
    except ArchiveError as error:
        raise ArchiveError(f"{error}; {remedy}") from error
    return len(wanted)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _bounded(members: Iterator[Member], archive: Archive, path: Path) -> tuple[dict[str, Member], list[Member]]:
    """Sort members out, of which an archive may hold so many, and plausibly unpack to so many bytes."""
    most = path.stat().st_size * _MOST_GROWTH + _FREE_GROWTH
    return sorted_out(members, archive, path, most_bytes=most, most_files=_MOST_FILES)


def sorted_out(
    members: Iterable[Member], archive: Archive, path: Path, *, most_bytes: float, most_files: float
) -> tuple[dict[str, Member], list[Member]]:
    """Part what is wanted from the rest; count, sizes and paths of both are checked.

    Parameters
    ----------
    members : iterable of Member
        All that is there.
    archive : Archive
        Says which members are wanted, and what leading part of their paths to cut off.
    path : Path
        Where they are, for messages.
    most_bytes, most_files : float
        What all of them together may have.

    Returns
    -------
    wanted : dict
        By its path to be.
    others : list of Member

    Raises
    ------
    ArchiveError
        Too many members, too large ones, or unsafe ones.
    """
    pattern = re.compile(archive.members)
    wanted: dict[str, Member] = {}
    others: list[Member] = []
    declared = 0
    for count, member in enumerate(members, start=1):
        declared += member.size
        if declared > most_bytes:
            raise ArchiveError(
                f"{path}: would unpack to {declared} bytes, more than the {most_bytes} that are plausible"
            )
        if count > most_files:
            raise ArchiveError(f"{path}: more than {most_files} members, which no benchmark has")
        name = shortened(member, archive)
        if _leaves(member.path) or _leaves(name):
            raise ArchiveError(f"{path}: member {member.path!r} would be written outside its folder")
        if not pattern.fullmatch(name):
            others.append(member)
            continue
        if name in wanted:
            raise ArchiveError(f"{path}: two members are both {name!r}")
        wanted[name] = member
    folders = {parent.as_posix() for name in wanted for parent in PurePosixPath(name).parents}
    if not folders.isdisjoint(wanted):
        raise ArchiveError(f"{path}: {min(folders & wanted.keys())!r} is both a file and a folder")
    return wanted, others


def _leaves(member: str) -> bool:
    """Whether a path would lead out of its folder, here or on a system with drives and backslashes."""
    pure = PurePosixPath(member)
    return pure.is_absolute() or ".." in pure.parts or re.search(r"[\\\x00:]", member) is not None


def check_room(wanted: Iterable[Member], path: Path, target: Path) -> None:
    """Refuse what the disk of an existing folder cannot hold before anything is written there."""
    declared = sum(member.size for member in wanted)
    free = shutil.disk_usage(target).free
    if declared > free:
        raise OSError(
            errno.ENOSPC, f"unpacking {path.name} needs {declared} bytes, {free} are free", str(target.parent)
        )


def _write(member: Member, target: Path, path: Path) -> None:
    """Copy one member; exactly the declared bytes, or an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with target.open("wb") as file:
        for chunk in _chunks(member, path):
            left -= len(chunk)
            if left < 0:
                break
            file.write(chunk)
    if left:
        relation = "more" if left < 0 else "fewer"
        raise ArchiveError(f"{path}: member {member.path!r} holds {relation} bytes than its declared {member.size}")


def _chunks(member: Member, path: Path) -> Iterator[bytes]:
    """Read a member; a place in the archive that does not exist is damage, and no fault of this disk."""
    try:
        with member.open() as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise ArchiveError(f"{path}: a damaged archive ({member.path!r}: {_first_line(error)})") from error
