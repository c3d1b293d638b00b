"""Which pictures a prediction reads, and under which names it writes: no two inputs ever share a name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gald.errors import ParamsError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2")
"""What counts as a picture in a folder; a file that is named itself may have any suffix."""


class Job(NamedTuple):
    """One picture and the files made of it.

    Attributes
    ----------
    image : Path
        The picture.
    overlay, mask, ids : Path
        Where the results go.
    """

    image: Path
    overlay: Path
    mask: Path
    ids: Path


def plan(inputs: Sequence[Path], out: Path) -> tuple[list[Job], list[str]]:
    """List the pictures and name their results.

    A folder is walked to its depths, without hidden entries and without `out`; results keep the relative path. They are
    named by the picture's stem, where another picture has the same one by the whole file name, and where that is the
    same too (of two folders) with a number.

    Parameters
    ----------
    inputs : sequence of Path
        Pictures and folders.
    out : Path
        Folder of the results.

    Returns
    -------
    jobs : list of Job
        Each picture once, in the order of the inputs, folders sorted; links to one file are pictures of their own.
    problems : list of str
        Inputs that are missing or empty, and pictures that a result would overwrite.

    Raises
    ------
    ParamsError
        `out` is one of the input folders: results would lie among the pictures and be read as such the next time.
    """
    found: dict[Path, Path] = {}  # place of a picture -> its relative path without `inputs`' own
    given: dict[Path, Path] = {}
    problems: list[str] = []
    for path in inputs:
        if path.is_dir():
            if path.resolve() == out.resolve():
                raise ParamsError(f"--out {out} is a folder of pictures; choose another one for the results")
            relative = _walk(path, out, problems)
        else:
            relative = [Path(path.name)] if path.exists() else []
            problems += [] if relative else [f"{path}: no such file or folder"]
        for name in relative:
            picture = path / name if path.is_dir() else path
            found.setdefault(_place(picture), name)
            given.setdefault(_place(picture), picture)
    jobs = []
    for place, stem in zip(found, _stems(list(found.values())), strict=True):
        job = _job(given[place], out / stem)
        hit = next((path for path in job[1:] if _place(path) in found), None)
        if hit is None:
            jobs.append(job)
        else:
            problems.append(f"{job.image}: its result would overwrite the picture {hit}; choose another --out")
    return jobs, problems


def _place(path: Path) -> Path:
    """Spell a path in one way, whatever it is a link to: caches keep equal pictures of two names as links to one."""
    return path.parent.resolve() / path.name


def _walk(folder: Path, out: Path, problems: list[str]) -> list[Path]:
    """Relative paths of the pictures in a folder."""
    pictures: list[Path] = []
    refused: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=refused.append):
        here = Path(root)
        folders[:] = [name for name in _visible(folders) if (here / name).resolve() != out.resolve()]
        pictures += [here / name for name in _visible(names) if Path(name).suffix.lower() in SUFFIXES]
    problems += [f"{error.filename}: cannot be read ({error.strerror})" for error in refused]
    if not pictures and not refused:
        problems.append(f"{folder}: no picture in it ({', '.join(SUFFIXES)})")
    return sorted(path.relative_to(folder) for path in pictures)


def _visible(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def _stems(paths: Sequence[Path]) -> list[Path]:
    """Name without suffix where that is the only one, else the whole name, else with a number; case does not count.

    Examples
    --------
    >>> [stem.as_posix() for stem in _stems([Path(name) for name in ("x/a.png", "b.jpg", "b.png", "b.png", "B.tif")])]
    ['x/a', 'b.jpg', 'b.png', 'b.png-2', 'B.tif']
    """
    short = [path.with_suffix("") for path in paths]
    times = Counter(map(_folded, short))
    taken = {name for name, count in times.items() if count == 1}
    stems = []
    for path, stem in zip(paths, short, strict=True):
        if times[_folded(stem)] > 1:
            stem, number = path, 1
            while _folded(stem) in taken:
                number += 1
                stem = path.with_name(f"{path.name}-{number}")
            taken.add(_folded(stem))
        stems.append(stem)
    return stems


def _folded(path: Path) -> str:
    return path.as_posix().casefold()  # some file systems take names that differ in case for one


def _job(image: Path, stem: Path) -> Job:
    photo = ".jpg" if image.suffix.lower() in (".jpg", ".jpeg") else ".png"
    endings = (f"-overlay{photo}", "-mask.png", "-ids.png")
    return Job(image, *(stem.with_name(stem.name + ending) for ending in endings))
