"""State to resume a training from: whole files, checked by digest, the previous one kept.

A checkpoint is one line of JSON (what it belongs to, the sha256 of the rest) and then tensors in safetensors form, so
that reading one never runs anybody's code. Neither the data order nor random states are in it, since both are functions
of seed and iteration.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from gald import files
from gald.errors import GaldError

_LOG = logging.getLogger("gald.train")
_KEPT = 2  # the newest, and the one before it in case the newest is damaged
_SUFFIX = ".checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """State after some iterations.

    Attributes
    ----------
    iteration : int
        Iterations made so far, which is the number of the next one.
    identity : dict
        What the state is of: digests of params and manifest. Other identities are never resumed.
    origins : list of dict
        What made it (code, environment, effective recipe), oldest first. A change there is resumed with a warning and
        recorded.
    progress : dict
        Numbers that go on from here: the ``interval`` under way, the ``scale`` of fp16, the ``best`` validation.
    tensors : dict of dict of Tensor
        By kind, then by name: ``model``, parameters and buffers of the network; ``optimiser``, what it remembers;
        ``average``, the moving average of the weights, if there is one.
    """

    iteration: int
    identity: dict[str, str]
    origins: list[dict[str, Any]]
    progress: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically, then remove all but the two newest."""
    flat = {
        f"{kind}:{name}": value.detach().cpu().contiguous()
        for kind, named in checkpoint.tensors.items()
        for name, value in named.items()
    }
    payload = safetensors.torch.save(flat)
    header = {
        "iteration": checkpoint.iteration,
        "identity": checkpoint.identity,
        "origins": checkpoint.origins,
        "progress": checkpoint.progress,
    }
    line = json.dumps({"sha256": _digest(header, payload), **header})
    files.write_bytes(folder / f"{checkpoint.iteration:09d}{_SUFFIX}", line.encode() + b"\n" + payload)
    for old in _newest_first(folder)[_KEPT:]:
        old.unlink()


def load(folder: Path, identity: dict[str, str]) -> Checkpoint | None:
    """Read the newest whole checkpoint.

    Parameters
    ----------
    folder : Path
        The run's checkpoint folder.
    identity : dict
        What is to be trained now.

    Returns
    -------
    Checkpoint or None
        None where there is none, or only of other params or data. Each one passed over is named in the log.

    Raises
    ------
    GaldError
        One cannot be read, perhaps only now, and there is no older one to take.
    """
    for rest in folder.glob(".*.part"):
        rest.unlink()  # of a kill while writing
    unread: OSError | None = None
    for path in _newest_first(folder):
        try:
            checkpoint = _read(path)
        except OSError as error:  # a disk or a server that will be back, or rights that can be given
            _LOG.warning("%s cannot be read (%s); trying an older checkpoint", path, error)
            unread = unread or error
            continue
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            _LOG.warning("%s is damaged (%s); trying an older checkpoint", path, error)
            continue
        changed = [key for key, value in identity.items() if checkpoint.identity.get(key) != value]
        if changed:
            _LOG.warning("%s was made with other %s; starting afresh", path, " and ".join(changed))
            return None
        return checkpoint
    if unread is not None:
        raise GaldError(
            f"{folder}: no checkpoint can be read ({unread}), so the training neither goes on nor starts afresh; try "
            "again when it can be, or remove the folder to start afresh"
        ) from unread
    return None


def bests(folder: Path) -> set[int]:
    """Iterations whose weights the checkpoints call the best so far."""
    return {best["iteration"] for _, best in _headers(folder) if best is not None}


def identities(folder: Path) -> list[dict[str, str]]:
    """What the checkpoints are of, the newest first."""
    return [identity for identity, _ in _headers(folder)]


def any_in(folder: Path) -> bool:
    """Whether a folder holds checkpoints, whole or not."""
    return bool(_newest_first(folder))


def written_ns(folder: Path) -> int:
    """When the last of a folder's checkpoints was written, 0 without any; a removal changes the folder's own time."""
    return max((path.stat().st_mtime_ns for path in _newest_first(folder)), default=0)


def _headers(folder: Path) -> Iterator[tuple[dict[str, str], dict[str, Any] | None]]:
    """Identity and best validation of each checkpoint, the newest first; damaged ones are left out."""
    for path in _newest_first(folder):
        with suppress(OSError, ValueError, KeyError, TypeError), path.open("rb") as file:
            header = json.loads(file.readline())
            yield header["identity"], header["progress"]["best"]


def check_folder(folder: Path) -> None:
    """Refuse a file in the place of a checkpoint folder, or of one above it.

    Raises
    ------
    GaldError
        There is one.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise GaldError(f"{place} is a file, where trainings keep their checkpoints in a folder; move it away")


def clear(folder: Path) -> None:
    """Remove all state of a training that has ended or is to start afresh.

    Checkpoints go first: killed in between, none must be left without the history and best weights that belong to it.

    Raises
    ------
    GaldError
        Something is in the folder that no training put there.
    """
    for path in _newest_first(folder):
        path.unlink()
    for path in folder.glob("*"):
        if path.is_dir() and not path.is_symlink():
            raise GaldError(f"{path} is a folder that no training made; move it out of {folder}, which is cleared")
        path.unlink(missing_ok=True)  # not the folder with all in it, which may be a link to another disk
    with suppress(OSError):
        folder.rmdir()


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{_SUFFIX}"), reverse=True)


def _read(path: Path) -> Checkpoint:
    line, _, payload = path.read_bytes().partition(b"\n")
    header = json.loads(line)
    if header.pop("sha256") != _digest(header, payload):
        raise ValueError("its digest does not match")
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, value in safetensors.torch.load(payload).items():
        kind, _, rest = name.partition(":")
        tensors.setdefault(kind, {})[rest] = value
    return Checkpoint(**header, tensors=tensors)


def _digest(header: dict[str, Any], payload: bytes) -> str:
    return hashlib.sha256(files.canonical_json(header).encode() + b"\n" + payload).hexdigest()
