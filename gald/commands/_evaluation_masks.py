"""Where the masks of an evaluation go: a folder of ids and colours, or the archive that a test server takes."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from gald import files
from gald.datasets._spec import DatasetSpec
from gald.errors import DatasetError, ParamsError
from gald.metrics import Mask

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member, so that equal masks make equal archives


class MaskFolder:
    """Writes ``ids/<id>.png`` (8-bit train ids) and ``colour/<id>.png`` (RGB) of every image.

    Parameters
    ----------
    folder : Path
        New, or empty.
    spec : DatasetSpec
        Of whose colours the pictures are.

    Raises
    ------
    ParamsError
        The folder holds something.
    """

    def __init__(self, folder: Path, spec: DatasetSpec) -> None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ParamsError(f"--save-predictions {folder}: it is not empty; name a new folder")
        self._folder = folder
        self._palette = np.array(spec.palette, np.uint8)

    def write(self, sample_id: str, mask: Mask) -> None:
        """Write one mask."""
        for kind, pixels in (("ids", mask), ("colour", self._palette[mask])):
            files.write_bytes(self._folder / kind / f"{sample_id}.png", _png(pixels))


class SubmissionArchive:
    """Writes the zip that a benchmark's test server takes; it takes its name when it is whole.

    Parameters
    ----------
    path : Path
        Of the zip.
    spec : DatasetSpec
        Knows the server and the raw ids.
    ids : list of str
        Images that will be written.

    Raises
    ------
    DatasetError
        The benchmark has no server, its raw ids cannot be told from the classes, or an image has a name that the
        server does not know.
    ParamsError
        The path does not end in .zip.
    """

    def __init__(self, path: Path, spec: DatasetSpec, ids: list[str]) -> None:
        if spec.submission is None:
            raise DatasetError(f"--submission: {spec.title} has no test server that takes masks; its labels are public")
        if path.suffix != ".zip":
            raise ParamsError(f"--submission {path}: the server takes a .zip; name one")
        self._raw_ids = spec.raw_ids().astype(np.uint8)
        self._names = {sample_id: _member(sample_id, spec) for sample_id in ids}
        if len(set(self._names.values())) < len(ids):
            raise DatasetError(f"--submission: {spec.title}: two images would have one name in the archive")
        self._path = path
        self._buffer = io.BytesIO()
        self._zip = zipfile.ZipFile(self._buffer, "w", zipfile.ZIP_STORED)  # PNG is compressed already

    def write(self, sample_id: str, mask: Mask) -> None:
        """Add one mask."""
        self._zip.writestr(zipfile.ZipInfo(self._names[sample_id], _EPOCH), _png(self._raw_ids[mask]))

    def __enter__(self) -> SubmissionArchive:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the archive, unless something went wrong."""
        self._zip.close()
        if kind is None:
            files.write_bytes(self._path, self._buffer.getvalue())


def _member(sample_id: str, spec: DatasetSpec) -> str:
    assert spec.submission is not None
    stem = sample_id.rpartition("/")[2]
    match = re.fullmatch(spec.submission.pattern, stem)
    if match is None:
        raise DatasetError(
            f"--submission: {spec.title}'s server knows no image {stem!r} (its names look like "
            f"{spec.submission.pattern}); predict the test images under their own names"
        )
    return f"{match['name']}.png"


def _png(pixels: Mask) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
