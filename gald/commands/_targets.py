"""Where a command is to write: held against what is there before any work, not when hours of it are done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gald.errors import ParamsError

_DEVICES = Path("/dev")  # whose /dev/stdout may lead to a file


def check_file(option: str, path: Path | None, *, read: Iterable[Path] = ()) -> None:
    """Refuse a file that could not be written.

    Parameters
    ----------
    option : str
        Which the path was given by, for the message.
    path : Path or None
        None where nothing is to be written.
    read : iterable of Path
        Files that the command reads, under whatever names: the result must not replace one.

    Raises
    ------
    ParamsError
        It is a folder, a device, a pipe or one of what is read, would lie in a file, or in a folder that cannot be
        written.
    """
    if path is None:
        return
    if path.is_dir():
        raise ParamsError(f"{option} {path} is a folder; name a file")
    if (path.exists() and not path.is_file()) or path.absolute().parent == _DEVICES:  # a file would take its place
        raise ParamsError(f"{option} {path} is a device or a pipe, and a result is a whole file; name a file")
    if path.resolve() in {one.resolve() for one in read}:
        raise ParamsError(f"{option} {path} is what is read here; name another file for the result")
    _check(option, path, *path.parents, remedy="name a file in a folder")


def check_folder(option: str, path: Path | None) -> None:
    """Refuse a folder that could not be made, or not be written; see `check_file`."""
    if path is not None:
        _check(option, path, path, *path.parents, remedy="name a folder for the results")


def _check(option: str, path: Path, *places: Path, remedy: str) -> None:
    """Look at the nearest of the places that is there: it must be a folder that can be written."""
    there = next(place for place in places if place.exists())
    if not there.is_dir():
        raise ParamsError(f"{option} {path}: {there} is a file; {remedy}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ParamsError(f"{option} {path}: the folder {there} cannot be written; name another place")
