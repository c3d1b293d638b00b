"""The folder that a command writes into, looked at before the work rather than after it."""

from pathlib import Path

from gald.errors import ParamsError


def check_folder(out: Path) -> None:
    """Refuse a folder for results where a file is in its place, or in that of a folder above it.

    Parameters
    ----------
    out : Path
        What ``-o`` says; it need not exist.

    Raises
    ------
    ParamsError
        It cannot be a folder.
    """
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir():
        raise ParamsError(f"-o {out}: {there} is a file; name a folder for the results")
