"""Reads what benchmarks store: lists of files, masks as PNG ids, MATLAB maps or colours, tables of facts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gald.datasets._mat import check
from gald.datasets._spec import ClassInfo, RawSample
from gald.errors import DatasetError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TABLES = Path(__file__).parent / "classes"
_DEPTH_AT = 24  # offset of the bit depth in a PNG's header
_MOST = 1 << 31  # no id is near, and the cast keeps all below


def read_table(name: str) -> list[dict[str, str]]:
    """Read ``classes/<name>.csv``, the rows of a table with a header."""
    with (_TABLES / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_classes(name: str) -> tuple[ClassInfo, ...]:
    """Read ``classes/<name>.csv``: index, name, red, green, blue, raw_ids (separated by blanks).

    Returns
    -------
    tuple of ClassInfo
        In train id order.
    """
    rows = read_table(name)
    assert [int(row["index"]) for row in rows] == list(range(len(rows))), f"classes/{name}.csv: indices out of order"
    return tuple(
        ClassInfo(
            row["name"],
            (int(row["red"]), int(row["green"]), int(row["blue"])),
            tuple(int(raw) for raw in row["raw_ids"].split()),
        )
        for row in rows
    )


def read_list(path: Path) -> list[str]:
    """Read the lines of a list of the benchmark, without blank ones.

    Raises
    ------
    DatasetError
        The list is missing, or no text.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing; run `gald download` again")
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is damaged ({error}); run `gald download` again") from error


def read_png_ids(sample: RawSample) -> npt.NDArray[np.generic]:
    """Read a mask stored as a single-channel PNG of raw ids.

    Returns
    -------
    ndarray of uint8, shape (h, w)

    Raises
    ------
    DatasetError
        It is no PNG, or one of colours, of 16 bits, or of gray values of fewer than 8, which decoding would spread over
        0 to 255: ids would be lost.
    OSError
        The file is absent or damaged.
    """
    import numpy as np
    from PIL import Image

    assert sample.mask is not None  # asked for on labelled splits alone
    with Image.open(sample.mask) as picture:
        if picture.format != "PNG":
            raise DatasetError(f"{sample.mask}: a mask of raw ids is a PNG, found {picture.format}")
        with sample.mask.open("rb") as file:
            depth = file.read(_DEPTH_AT + 1)[_DEPTH_AT]
        if picture.mode not in ("L", "P") or (picture.mode == "L" and depth != 8):
            raise DatasetError(
                f"{sample.mask}: a mask of raw ids has mode L of 8 bits or mode P, found {picture.mode} of {depth}"
            )
        return np.asarray(picture)


def read_mat_ids(sample: RawSample, field: str) -> npt.NDArray[np.generic]:
    """Read a label map from one field of a MATLAB file; its other fields are left alone.

    Parameters
    ----------
    sample : RawSample
        Its mask is the file.
    field : str
        Name of the field.

    Returns
    -------
    ndarray of an integer type, shape (h, w)
        Raw ids, of the type that the file has, so that nothing wraps around; int64 where it has floating point.

    Raises
    ------
    DatasetError
        The file has no such field, or it is no map of whole numbers.
    ValueError
        The field is damaged; SciPy raises others for some damage.
    """
    import numpy as np
    from scipy.io import loadmat

    assert sample.mask is not None  # asked for on labelled splits alone
    file = sample.mask.read_bytes()
    check(file, field)
    content = loadmat(io.BytesIO(file), variable_names=[field])
    if field not in content:
        raise DatasetError(f"the MATLAB file has no field {field}")
    ids = content[field]
    if not isinstance(ids, np.ndarray) or ids.ndim != 2 or ids.size == 0 or ids.dtype.kind not in "uif":
        shape = f"{ids.dtype} of shape {ids.shape}" if isinstance(ids, np.ndarray) else type(ids).__name__
        raise DatasetError(f"field {field} must be a map of numbers, found {shape}")
    if ids.dtype.kind != "f":
        return ids
    if not np.isfinite(ids).all() or np.abs(ids).max() >= _MOST or (ids != np.rint(ids)).any():
        raise DatasetError(f"field {field}: raw ids must be whole numbers, and small ones")
    return ids.astype(np.int64)


def read_colour_ids(sample: RawSample, colours: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.generic]:
    """Read a mask stored as an RGB picture, by its exact colours.

    Parameters
    ----------
    sample : RawSample
        Its mask is the picture.
    colours : sequence of (int, int, int)
        Colour of each raw id, from 0 on; all different.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        Raw ids, positions in `colours`.

    Raises
    ------
    DatasetError
        The picture is not RGB, or has a colour that is not listed; the message names such colours.
    OSError
        The file is absent or damaged.
    """
    import numpy as np
    from PIL import Image

    assert sample.mask is not None  # asked for on labelled splits alone
    with Image.open(sample.mask) as picture:
        if picture.mode != "RGB":
            raise DatasetError(f"{sample.mask}: a mask of colours has mode RGB, found {picture.mode}")
        pixels = np.asarray(picture).astype(np.int32)
    found = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    listed = np.array([(red << 16) | (green << 8) | blue for red, green, blue in colours], dtype=np.int32)
    order = np.argsort(listed)
    place = np.minimum(np.searchsorted(listed[order], found), len(listed) - 1)
    unknown = listed[order][place] != found
    if unknown.any():
        codes, counts = np.unique(found[unknown], return_counts=True)
        named = ", ".join(
            f"({code >> 16}, {code >> 8 & 255}, {code & 255}) in {count} pixels"
            for code, count in list(zip(codes.tolist(), counts.tolist(), strict=True))[:10]
        )
        raise DatasetError(f"colours (red, green, blue) of no class: {named}")
    return order.astype(np.uint8)[place]
