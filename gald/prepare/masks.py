"""One raw sample -> its trainId mask and its image, checked; the same for every benchmark and edition."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from gald.datasets import load_spec
from gald.datasets._spec import UNKNOWN, DatasetSpec, RawSample
from gald.errors import DatasetError
from gald.files import sha256

_AS_IT_IS = {"PNG": ".png", "JPEG": ".jpg"}
"""Formats every reader knows; an RGB file of these is linked, anything else becomes an RGB PNG."""


@dataclass(frozen=True)
class Prepared:
    """One prepared sample: its row in the index, its pixels by class, or what is wrong with it.

    Attributes
    ----------
    row : dict
        Fields of the index; empty if there are problems.
    counts : tuple of int
        Pixels of each class.
    ignored : int
        Pixels of no class.
    problems : tuple of str
        Each names its file.
    """

    row: dict[str, str | int] = field(default_factory=dict)
    counts: tuple[int, ...] = ()
    ignored: int = 0
    problems: tuple[str, ...] = ()


def to_train_ids(raw: npt.NDArray[np.generic], spec: DatasetSpec) -> npt.NDArray[np.uint8]:
    """Look every raw id up in the benchmark's table.

    Parameters
    ----------
    raw : ndarray, shape (h, w)
        Raw ids; whole numbers of any type (MATLAB stores some as float64).
    spec : DatasetSpec
        Holds the table.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        Train ids, or ``spec.ignore_index``.

    Raises
    ------
    DatasetError
        An id is fractional, or the benchmark does not define it; the message lists such ids.
    """
    if raw.ndim != 2:
        raise DatasetError(f"a mask has two dimensions, found shape {raw.shape}")
    ids = raw.astype(np.int64)
    if not np.issubdtype(raw.dtype, np.integer) and not np.array_equal(ids, raw):
        raise DatasetError("raw ids must be whole numbers")
    table = spec.lookup()
    defined = (ids >= 0) & (ids < len(table))
    mask = table[np.where(defined, ids, 0)]
    unknown = ~defined | (mask == UNKNOWN)
    if unknown.any():
        found = ", ".join(str(value) for value in np.unique(ids[unknown])[:10])
        raise DatasetError(f"raw id {found} is not defined by {spec.title}")
    return mask.astype(np.uint8)


def prepare_sample(dataset: str, sample: RawSample, split: str, folder: Path) -> Prepared:
    """Write one sample's mask and image below `folder`; never raises for bad data.

    Parameters
    ----------
    dataset : str
        Name, so that the work can be sent to another process.
    sample : RawSample
        What to read.
    split : str
        Part of the paths written: ``images/<split>/<id>.*`` and ``masks/<split>/<id>.png``.
    folder : Path
        The folder being made.

    Returns
    -------
    Prepared
        With problems instead of a row when a file is unreadable, sizes differ or an id is undefined.

    Raises
    ------
    OSError
        The folder cannot be written; unreadable *input* is a problem in the list instead.
    """
    spec = load_spec(dataset)
    try:
        size, suffix = _check_image(sample.image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return Prepared(problems=(f"{sample.image}: unreadable image ({_short(error)})",))
    try:
        mask = to_train_ids(spec.read_mask(sample), spec)
    except DatasetError as error:
        return Prepared(problems=(f"{sample.mask} ({sample.id}): {error}",))
    except Exception as error:  # scipy, PIL and json each have their own ways to say that a file is damaged
        return Prepared(problems=(f"{sample.mask} ({sample.id}): unreadable mask ({_short(error)})",))
    height, width = mask.shape
    if (width, height) != size:
        found = f"{sample.image} is {size[0]}x{size[1]}, its mask {sample.mask} is {width}x{height}"
        return Prepared(problems=(found,))
    image_name = f"images/{split}/{sample.id}{suffix or '.png'}"
    mask_name = f"masks/{split}/{sample.id}.png"
    _place_image(sample.image, folder / image_name, as_it_is=suffix is not None)
    Image.fromarray(mask).save(folder / mask_name)
    counts = np.bincount(mask.ravel(), minlength=256)
    row: dict[str, str | int] = {
        "id": sample.id,
        "image": image_name,
        "mask": mask_name,
        "height": height,
        "width": width,
        "image_sha256": sha256(folder / image_name),
        "mask_sha256": sha256(folder / mask_name),
    }
    classes = len(spec.classes)
    return Prepared(row, tuple(int(count) for count in counts[:classes]), int(counts[spec.ignore_index]))


def _check_image(path: Path) -> tuple[tuple[int, int], str | None]:
    """Decode the whole image; return (width, height), and its suffix if the file can be used as it is."""
    with Image.open(path) as image:
        image.load()
        usable = image.mode == "RGB" and image.format in _AS_IT_IS and "transparency" not in image.info
        return image.size, _AS_IT_IS[str(image.format)] if usable else None


def _place_image(source: Path, target: Path, *, as_it_is: bool) -> None:
    """Link the raw file, copy it where links do not work, or convert it to RGB."""
    if not as_it_is:
        with Image.open(source) as image:
            image.convert("RGB").save(target)
        return
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
