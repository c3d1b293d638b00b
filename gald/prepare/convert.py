"""One raw sample -> its prepared image and mask, or what is wrong with it; the same for every benchmark and edition."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gald.datasets import load_spec
from gald.datasets._packed import pixels_sha256
from gald.datasets._png import encode, encode_mask
from gald.datasets._spec import DatasetSpec, RawSample
from gald.errors import DatasetError
from gald.files import sha256
from gald.prepare.dhash import dhash
from gald.prepare.images import Picture, bounded, decode, read, reason
from gald.prepare.masks import Lookup

SIZES = "size mismatch"
UNDEFINED, FOREIGN, ALTERED = "undefined raw id", "mask of another form", "altered file"
FATAL = (UNDEFINED, FOREIGN, ALTERED)
"""Signs of other data or another map than the benchmark's, not of a file that is damaged there: never skipped."""


@dataclass(frozen=True)
class Task:
    """A sample to be converted, and the split it is listed in.

    Attributes
    ----------
    split : str
        Where it is listed.
    sample : RawSample
        What to read.
    expected : (str or None, str or None)
        Sha256 of the image and of the mask file as they were unpacked, "" for one that was not, None if a file is not
        to be compared.
    """

    split: str
    sample: RawSample
    expected: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True)
class Record:
    """One prepared sample.

    Attributes
    ----------
    split : str
        Where it is listed.
    row : dict
        Fields of the index.
    counts : list of int
        Pixels of each class; empty without a mask.
    ignored : dict
        Pixels of each raw id that occurs and is ignored, by name.
    kinds : list of str
        Why its image was converted, if it was.
    written : list of (bytes, sha256)
        Of the prepared image file, and of the mask file if there is one.
    raw : list of (bytes, modification time in ns)
        Of the raw files, in the same order.
    """

    split: str
    row: dict[str, str | int]
    counts: list[int]
    ignored: dict[str, int]
    kinds: list[str]
    written: list[tuple[int, str]]
    raw: list[tuple[int, int]]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a raw file: its kind, the file, and the words after it."""

    kind: str
    file: Path
    text: str

    def __str__(self) -> str:
        """Name the file, then say what is wrong."""
        return f"{self.file}: {self.text}"


@dataclass(frozen=True)
class Failure:
    """A sample that cannot be prepared, and all that is wrong with it."""

    split: str
    id: str
    problems: tuple[Problem, ...]


def convert(dataset: str, source: str, folder: Path, task: Task) -> Record | Failure:
    """Write one sample's image and mask below `folder`; never raises for bad data.

    Parameters
    ----------
    dataset, source : str
        Name of the benchmark and of its published form, so that the work can be sent to another process.
    folder : Path
        The folder being made; gets ``images/<split>/<id>.*`` and ``masks/<split>/<id>.png``, whose folders must exist.
    task : Task
        What to read.

    Raises
    ------
    OSError
        The folder cannot be written; unreadable *input* is a problem in the list instead.
    """
    spec, lookup = _tools(dataset, source)
    sample, problems = task.sample, []
    raw = raw_state(sample)  # before it is read: a file that changes meanwhile is read again
    picture = _read_picture(sample, task.expected[0])
    if isinstance(picture, Problem):
        problems.append(picture)
    labels = _read_labels(spec, lookup, sample, task.expected[1]) if sample.mask is not None else None
    if isinstance(labels, Problem):
        problems.append(labels)
    if isinstance(picture, Problem) or isinstance(labels, Problem):
        return Failure(task.split, sample.id, tuple(problems))
    image = picture.fitted(None if labels is None else (labels[0].shape[1], labels[0].shape[0]))
    if image is None:
        return Failure(task.split, sample.id, (_mismatch(sample, picture, labels),))
    image_name = f"images/{task.split}/{sample.id}{picture.suffix}"
    mask_name = f"masks/{task.split}/{sample.id}.png" if labels is not None else ""
    pixels = np.asarray(image)
    content = encode(pixels) if picture.kinds else picture.content
    written = [_place(content, folder / image_name, None if picture.kinds else sample.image)]
    row: dict[str, str | int] = {
        "id": sample.id,
        "image": image_name,
        "mask": mask_name,
        "height": image.height,
        "width": image.width,
        "image_sha256": pixels_sha256(pixels),
        "mask_sha256": "",
        "dhash": dhash(image),
    }
    if labels is None:
        return Record(task.split, row, [], {}, list(picture.kinds), written, raw)
    written.append(_place(encode_mask(labels[0]), folder / mask_name))
    row["mask_sha256"] = pixels_sha256(labels[0])
    counts, ignored = _census(spec, labels[1])
    return Record(task.split, row, counts, ignored, list(picture.kinds), written, raw)


def raw_state(sample: RawSample) -> list[tuple[int, int]]:
    """Size and modification time of a sample's raw files, (-1, -1) for one that is absent."""
    state = []
    for path in (sample.image, sample.mask):
        if path is None:
            continue
        try:
            found = path.stat()
            state.append((found.st_size, found.st_mtime_ns))
        except (OSError, ValueError):
            state.append((-1, -1))
    return state


@cache
def _tools(dataset: str, source: str) -> tuple[DatasetSpec, Lookup]:
    spec = load_spec(dataset, source)
    return spec, Lookup(spec)


def altered(path: Path, expected: str | None, content: bytes | None = None) -> Problem | None:
    """Compare a raw file with what was unpacked.

    Parameters
    ----------
    path : Path
        The file.
    expected : str or None
        As in `Task`.
    content : bytes, optional
        The file's bytes, if they have been read.

    Returns
    -------
    Problem or None
        None if it is the same, if it is not to be compared, or if it is for its reader to say what is wrong with it.
    """
    if expected is None:
        return None
    try:
        found = sha256(path) if content is None else hashlib.sha256(content).hexdigest()
    except (OSError, ValueError):  # the latter of a name that no file can have
        gone = expected and not path.exists()
        return Problem(ALTERED, path, "missing, though it was unpacked") if gone else None
    if found == expected:
        return None
    return Problem(ALTERED, path, "altered since it was unpacked" if expected else "not among the unpacked files")


def _read_picture(sample: RawSample, expected: str | None) -> Picture | Problem:
    content = None
    try:
        content = read(sample.image)
        return altered(sample.image, expected, content) or decode(content)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins each have their own ways to say that a file is damaged
        problem = altered(sample.image, expected) if content is None else None
        return problem or _unreadable("image", sample.image, error)


def _read_labels(
    spec: DatasetSpec, lookup: Lookup, sample: RawSample, expected: str | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]] | Problem:
    """Read and map a mask; return its train ids and the pixels of each raw id."""
    assert sample.mask is not None
    problem = altered(sample.mask, expected)
    if problem is not None:
        return problem
    try:
        with bounded():
            ids = spec.read_mask(sample)
    except MemoryError:
        raise
    except DatasetError as error:
        text = str(error).removeprefix(f"{sample.mask}: ")
        return Problem(FOREIGN, sample.mask, f"{text}{_which(sample)}")
    except Exception as error:  # SciPy, Pillow and json each have their own ways to say that a file is damaged
        return _unreadable("mask", sample.mask, error, _which(sample))
    try:
        return lookup(ids)
    except DatasetError as error:
        return Problem(UNDEFINED, sample.mask, f"{error}{_which(sample)}")


def _unreadable(what: str, path: Path, error: Exception, which: str = "") -> Problem:
    """Say that a file is not there, or why it cannot be read."""
    if isinstance(error, FileNotFoundError):
        return Problem(f"missing {what}", path, f"missing{which}")
    return Problem(f"unreadable {what}", path, f"unreadable {what} ({reason(error)}){which}")


def _which(sample: RawSample) -> str:
    """Name the sample where its mask's file does not, as one file with all masks."""
    assert sample.mask is not None
    return "" if sample.id in sample.mask.name else f" (sample {sample.id})"


def _mismatch(
    sample: RawSample, picture: Picture, labels: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]] | None
) -> Problem:
    assert labels is not None
    height, width = labels[0].shape
    turned = " (also when turned as its EXIF data asks)" if picture.orientation != 1 else ""
    found = f"is {picture.image.width}x{picture.image.height}{turned}, its mask {sample.mask} is {width}x{height}"
    return Problem(SIZES, sample.image, found + _which(sample))


def _place(content: bytes, target: Path, source: Path | None = None) -> tuple[int, str]:
    """Write a file, or link the raw one that has this content where links work; return its bytes and sha256."""
    target.unlink(missing_ok=True)  # what a killed attempt left: to write into a link would change raw data
    if source is not None:
        try:
            target.hardlink_to(source.resolve() if source.is_symlink() else source)
            return len(content), hashlib.sha256(content).hexdigest()
        except OSError:  # another device, or a file system without links
            pass
    target.write_bytes(content)
    return len(content), hashlib.sha256(content).hexdigest()


def _census(spec: DatasetSpec, counts: npt.NDArray[np.int64]) -> tuple[list[int], dict[str, int]]:
    """Sum pixels by raw id to pixels of each class, and of each ignored name."""
    classes = [sum(int(counts[raw]) for raw in info.raw_ids) for info in spec.classes]
    ignored: dict[str, int] = {}
    for raw, name in spec.ignored.items():
        if counts[raw]:
            ignored[name] = ignored.get(name, 0) + int(counts[raw])
    return classes, ignored
