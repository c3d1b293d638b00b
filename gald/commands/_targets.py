"""Where a command is to write: held against what is there before any work, not when hours of it are done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gald import paths
from gald.errors import ParamsError

_DEVICES = Path("/dev")  # where /dev/stdout may lead to a file


def check_file(option: str, path: Path | None, *, read: Iterable[Path] = ()) -> None:
    """Refuse a file that could not be written, or must not.

    Parameters
    ----------
    option : str
        Which the path was given by, for the message.
    path : Path or None
        None where nothing is to be written.
    read : iterable of Path
        Files that the command reads, under whatever names.

    Raises
    ------
    ParamsError
        It is a folder or a device, would lie in a file, in a folder that cannot be written or among the files of
        trainings, or is one of what is read.
    """
    if path is None:
        return
    if path.is_dir():
        raise ParamsError(f"{option} {path} is a folder; name a file")
    if (path.exists() and not path.is_file()) or path.absolute().parent == _DEVICES:  # a file would take its place
        raise ParamsError(f"{option} {path} is a device or a pipe; name a file")
    if os.path.realpath(path) in map(os.path.realpath, read):
        raise ParamsError(f"{option} {path} is what is read here; name another file for the result")
    _check(option, path, *path.parents, remedy="name a file in a folder")


def check_folder(option: str, path: Path | None) -> None:
    """Refuse a folder that could not be made, or not be written, or must not; see `check_file`."""
    if path is not None:
        _check(option, path, path, *path.parents, remedy="name a folder for the results")


def check_owner(option: str, path: Path | None) -> None:
    """Refuse what lies where trainings keep their files, any of which it might write over.

    Raises
    ------
    ParamsError
        It does.
    """
    if path is not None and paths.is_of_runs(path):
        raise ParamsError(
            f"{option} {path} lies in {paths.RUNS}/ or {paths.STATE}/, whose files are trainings'; name another place"
        )


def _check(option: str, path: Path, *places: Path, remedy: str) -> None:
    """Look at the nearest of the places that is there: it must be a folder that can be written."""
    check_owner(option, path)
    there = next(place for place in places if os.path.lexists(place))
    if not there.is_dir():
        what = "is a file" if there.exists() else "is a link that leads nowhere"
        raise ParamsError(f"{option} {path}: {there} {what}; {remedy}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ParamsError(f"{option} {path}: the folder {there} cannot be written; name another place")
