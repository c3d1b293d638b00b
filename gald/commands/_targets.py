"""Where a command is to write: held against what is there before any work, not when hours of it are done."""

from __future__ import annotations

import os
from pathlib import Path

from gald.errors import ParamsError


def check_file(option: str, path: Path | None) -> None:
    """Refuse a file that could not be written.

    Parameters
    ----------
    option : str
        Which the path was given by, for the message.
    path : Path or None
        None where nothing is to be written.

    Raises
    ------
    ParamsError
        It is a folder, would lie in a file, or in a folder that cannot be written.
    """
    if path is None:
        return
    if path.is_dir():
        raise ParamsError(f"{option} {path} is a folder; name a file")
    _check_above(option, path)


def check_folder(option: str, path: Path | None) -> None:
    """Refuse a folder that could not be made, or not be written; see `check_file`."""
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise ParamsError(f"{option} {path} is a file; name a folder")
    _check_above(option, path)


def _check_above(option: str, path: Path) -> None:
    whole = path.absolute()
    above = next(place for place in (whole, *whole.parents) if place.is_dir() or (place != whole and place.exists()))
    if not above.is_dir():
        raise ParamsError(f"{option} {path}: {above} is a file, so nothing can lie in it; name another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ParamsError(f"{option} {path}: the folder {above} cannot be written; name another place")
