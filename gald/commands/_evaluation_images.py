"""Pictures of any origin that an evaluation predicts in the place of a split: there is no truth to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from gald import files
from gald.commands._predict_files import plan
from gald.commands.predict import read
from gald.errors import DatasetError
from gald.evaluate.counting import Pixels
from gald.prepare import images

_MOST_NAMED = 20


class Photographs:
    """Pictures of a folder, whose ids are their relative paths without suffix.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    DatasetError
        There is no such folder, no picture in it, or two would have one id; or some are no pictures, or too large: all
        of them at once.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DatasetError(f"--images {folder}: no such folder")
        jobs, problems = plan([folder], Path(".no-results-here"))
        if problems:
            raise DatasetError("\n".join(problems))
        found: dict[str, Path] = {}
        for job in jobs:
            name = job.image.relative_to(folder).with_suffix("").as_posix()
            if found.setdefault(name, job.image) != job.image:
                raise DatasetError(f"--images: {found[name]} and {job.image} would have one mask; rename one of them")
        self.ids, self._pictures = list(found), list(found.values())
        self._sizes = _sizes(folder, self._pictures)

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of picture `i`, as its file begins; a viewer may turn it."""
        return self._sizes[i]

    def verified_pixels(self, i: int) -> tuple[Pixels, None]:
        """Read picture `i`, uint8 (H, W, 3); there is no truth.

        Raises
        ------
        DatasetError
            It is damaged behind its beginning.
        """
        try:
            return read(self._pictures[i]), None
        except Exception as error:  # Pillow's plugins each have their own ways to say that a file is damaged
            raise DatasetError(_unreadable(self._pictures[i], error)) from error

    def digest(self) -> str:
        """Digest of which pictures these are: path, size and time of the last change of each."""
        looks = [(picture, picture.stat()) for picture in self._pictures]
        return files.digest([[str(picture.absolute()), look.st_size, look.st_mtime_ns] for picture, look in looks])


def listed(problems: Sequence[str]) -> str:
    """Spell problems a line each, the first of many, under their number."""
    more = [f"and {len(problems) - _MOST_NAMED} more"] if len(problems) > _MOST_NAMED else []
    return "\n".join([f"{len(problems)} problem(s):", *(f"  {line}" for line in [*problems[:_MOST_NAMED], *more])])


def _sizes(folder: Path, pictures: Sequence[Path]) -> list[tuple[int, int]]:
    """Height and width of pictures, of which nothing is decoded."""
    sizes, problems = [], []
    for picture in pictures:
        try:
            with images.bounded(), Image.open(picture) as opened:
                sizes.append((opened.height, opened.width))
        except Exception as error:  # as above
            problems.append(_unreadable(picture, error))
    if problems:
        raise DatasetError(f"--images {folder}: nothing was predicted, {listed(problems)}")
    return sizes


def _unreadable(picture: Path, error: Exception) -> str:
    return f"{picture}: cannot be read as a picture ({images.reason(error)})"
