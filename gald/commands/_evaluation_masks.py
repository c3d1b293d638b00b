"""Where the masks of an evaluation go: a folder of ids and colours, or the archive that a test server takes.

While an evaluation is under way its masks are kept beside its counts. Folder and archive are written from there when
all are predicted, and take their names when they are whole.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gald import files
from gald.datasets._png import encode, encode_mask
from gald.datasets._spec import DatasetSpec
from gald.errors import DatasetError, ParamsError
from gald.metrics import Mask

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member, so that equal masks make equal archives


class KeptMasks:
    """Masks of an evaluation under way, by the indices of the images.

    Parameters
    ----------
    folder : Path
        Of the evaluation's journal, so that they live and go with it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, index: int, image: Mask, mask: Mask) -> None:
        """Keep the mask of an image."""
        files.write_bytes(self._file(index), encode_mask(mask))

    def masks(self, ids: Sequence[str]) -> Iterator[tuple[str, Mask]]:
        """Read the masks of all images back, each with its id."""
        for index, sample_id in enumerate(ids):
            with Image.open(self._file(index)) as picture:
                yield sample_id, np.asarray(picture)

    def _file(self, index: int) -> Path:
        return self._folder / "masks" / f"{index:06d}.png"


class MaskFolder:
    """A folder with ``ids/<id>.png`` (8-bit train ids) and ``colour/<id>.png`` (RGB) of every image.

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
        if folder.exists() and any(folder.iterdir()):
            raise ParamsError(f"--save-predictions {folder}: it is not empty; name a new folder")
        self._folder = folder
        self._palette = np.array(spec.palette, np.uint8)

    def write(self, masks: Iterable[tuple[str, Mask]]) -> None:
        """Write all masks, or none."""
        with files.replaced_folder(self._folder) as folder:
            for sample_id, mask in masks:
                for kind, content in (("ids", encode_mask(mask)), ("colour", encode(self._palette[mask]))):
                    files.write_bytes(folder / kind / f"{sample_id}.png", content)


class SubmissionArchive:
    """The zip that a benchmark's test server takes.

    Parameters
    ----------
    path : Path
        Of the zip.
    spec : DatasetSpec
        Knows the server and the raw ids.
    ids : sequence of str
        Images that will be written.

    Raises
    ------
    DatasetError
        The benchmark has no server, its raw ids cannot be told from the classes, or an image has a name that the
        server does not know.
    ParamsError
        The path does not end in .zip.
    """

    def __init__(self, path: Path, spec: DatasetSpec, ids: Sequence[str]) -> None:
        if spec.submission is None:
            raise DatasetError(f"--submission: {spec.title} has no test server that takes masks; its labels are public")
        if path.suffix != ".zip":
            raise ParamsError(f"--submission {path}: the server takes a .zip; name one")
        self._raw_ids = spec.raw_ids().astype(np.uint8)
        self._names = {sample_id: _member(sample_id, spec) for sample_id in ids}
        if len(set(self._names.values())) < len(ids):
            raise DatasetError(f"--submission: {spec.title}: two images would have one name in the archive")
        self._path = path

    def write(self, masks: Iterable[tuple[str, Mask]]) -> None:
        """Write all masks, or none."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
            for sample_id, mask in masks:
                archive.writestr(zipfile.ZipInfo(self._names[sample_id], _EPOCH), encode_mask(self._raw_ids[mask]))
        files.write_bytes(self._path, buffer.getvalue())


def _member(sample_id: str, spec: DatasetSpec) -> str:
    assert spec.submission is not None
    stem = sample_id.rpartition("/")[2]
    match = re.fullmatch(spec.submission.pattern, stem)
    if match is None:
        raise DatasetError(
            f"--submission: {spec.title}'s server knows no image {stem!r} (one of its names is "
            f"{spec.submission.example}); predict the test images under their own names"
        )
    return f"{match['name']}.png"
