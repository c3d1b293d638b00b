"""Checkpoints of other params or data of a run, put aside for when these return.

What an error advises to change is a param, and other params are another training, which begins afresh. So that trying
them costs nothing, the state of the former training steps aside as a whole folder, ``<run>.<digest>``, and comes back
when its params do. One such folder is kept for a run, the one that was written last, until a training of it ends.
"""

from __future__ import annotations

import glob
import logging
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gald.errors import GaldError
from gald.files import digest, former_name, remove_folder
from gald.train import checkpoint

_LOG = logging.getLogger("gald.train")
_DIGITS = 8
AFRESH = (
    "with other params the training begins afresh, and the checkpoints of these are put aside until they are as they "
    "were again"
)
"""What a remedy that is a param means."""


def settle(folder: Path, identity: dict[str, str]) -> None:
    """Put what is of another training aside, and bring back what is of this one.

    Killed at any moment, it does the rest the next time.

    Parameters
    ----------
    folder : Path
        The run's checkpoint folder; may be missing, or a link to another disk.
    identity : dict
        What is to be trained now.

    Raises
    ------
    GaldError
        A file stands in the folder's place.
    """
    checkpoint.check_folder(folder)
    real = Path(os.path.realpath(folder))
    found, own = checkpoint.identities(real), _place(real, identity)
    if found and identity not in found:
        theirs = found[0]
        place = _place(real, theirs)
        remove_folder(place)
        real.rename(place)
        changed = " and ".join(key for key, value in identity.items() if theirs.get(key) != value)
        _LOG.warning(
            "%s: its checkpoints were made with other %s; they are kept as %s until a training ends here, and gone on "
            "from where these are as they were",
            folder, changed, place,
        )  # fmt: skip
    if own.is_dir() and not checkpoint.any_in(real):
        checkpoint.clear(real)
        own.rename(real)
        _LOG.info("%s: the checkpoints that were put aside as %s are back", folder, own)
    if folder.is_symlink():
        real.mkdir(parents=True, exist_ok=True)
    _drop(real, _all(real)[1:])


def end(folder: Path, identity: dict[str, str]) -> None:
    """Remove what a finished training has no use for any more: what was put aside of its run, then its own state.

    Its results are there, so nothing fails for the sake of rests: a workflow removes what a failed job has made. As
    long as the folder is there, the end was cut short, and whoever finds the training finished does it again.

    Parameters
    ----------
    folder : Path
        The run's checkpoint folder. Where it holds the state of another training, all stays.
    identity : dict
        What was trained.
    """
    real = Path(os.path.realpath(folder))
    if (found := checkpoint.identities(real)) and identity not in found:
        return
    _drop(real, _all(real))
    try:
        checkpoint.clear(folder)
    except (GaldError, OSError) as error:
        _LOG.warning("the training has ended, but not all of its checkpoint folder could be removed: %s", error)


def _drop(real: Path, places: Iterable[Path]) -> None:
    """Remove folders that were put aside, and what a kill has left of such a removal.

    Each goes whole: half of one would come back without the history and best weights that belong to its checkpoints.
    """
    for place in places:
        with suppress(OSError):
            remove_folder(place)
    for rest in real.parent.glob(former_name(Path(_pattern(real))).name):
        shutil.rmtree(rest, ignore_errors=True)


def _place(real: Path, identity: dict[str, str]) -> Path:
    return real.with_name(f"{real.name}.{digest(identity)[:_DIGITS]}")


def _all(real: Path) -> list[Path]:
    """Folders that were put aside, the one whose checkpoint was written last first."""
    return sorted(real.parent.glob(_pattern(real)), key=checkpoint.written_ns, reverse=True)


def _pattern(real: Path) -> str:
    return f"{glob.escape(real.name)}.{'[0-9a-f]' * _DIGITS}"
