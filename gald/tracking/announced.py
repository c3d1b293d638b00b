"""Announce a training to the process that shows it in the tracking store, and see to it that such a process runs.

Importing MLflow takes seconds and a call to its server may block for minutes, so a training does neither. It leaves a
card and goes on; a follower (`gald track --follow`) finds the cards, reads the histories as they grow and tells the
store. One follower serves all trainings of a host in this folder, at the lowest priority, and ends when they have.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gald import paths
from gald.files import digest
from gald.params import Run
from gald.process import locking, watch

SWITCH = "GALD_LIVE"
"""Environment variable that turns live tracking off: ``0``, ``no``, ``off`` or ``false``."""
_OFF = ("0", "no", "off", "false")
_LOG = logging.getLogger("gald")
_started: list[subprocess.Popen[bytes]] = []  # kept, since a forgotten child that still runs is warned about


@dataclass(frozen=True)
class Origin:
    """What decides whether two stretches of training belong to one curve.

    Attributes
    ----------
    params, data : str
        Digests of the run's params and of its dataset's manifest.
    codes : tuple of str
        Digests of the code that made the training so far, the newest last. A training that begins afresh after the code
        has changed has the new one only, and is another training.
    """

    params: str
    data: str
    codes: tuple[str, ...]

    @property
    def key(self) -> str:
        """Digest of params and data."""
        return digest([self.params, self.data])


@dataclass(frozen=True)
class Card:
    """What a training says of itself when it begins or goes on.

    Attributes
    ----------
    run, dataset, edition, row, seed
        Who it is; see `gald.params.Run`.
    values : dict
        The merged params, as they are written out beside the weights.
    origin : Origin
        What the training is made of.
    commit : str
        Commit of the code, or ``None`` as text where git knows none.
    host : str
        Where it runs.
    began : float
        Seconds since the epoch; tells a card from the next one of the same run.
    failed : str or None
        What the training says that it failed with. None: it goes on, was stopped, or died without a word.
    """

    run: str
    dataset: str
    edition: str
    row: str
    seed: int
    values: dict[str, Any]
    origin: Origin
    commit: str
    host: str
    began: float
    failed: str | None = None


def announce(run: Run, identity: Mapping[str, str], code: Mapping[str, Any], codes: Sequence[str]) -> None:
    """Leave a run's card, and start a follower unless one is alive; costs milliseconds and raises nothing.

    Parameters
    ----------
    run : Run
        What is trained; its lock must be held.
    identity : mapping
        Digests of `params` and `data`, as in the run's checkpoints.
    code : mapping
        Its `commit`.
    codes : sequence of str
        Digests of the code that made the training so far, the newest last.
    """
    if not is_on():
        return
    try:
        origin = Origin(identity["params"], identity["data"], tuple(codes))
        values = {"run": run.name, **run.params.model_dump(mode="json")}
        who = (run.name, run.dataset, run.params.edition, run.row, run.seed)
        _write(Card(*who, values, origin, str(code["commit"]), socket.gethostname(), time.time()))
        if not locking.is_held(follower_lock()):  # looked at after the card lies there; see `gald.tracking.follow`
            _start_follower()
    except Exception as error:  # a view of the training must never cost the training
        _LOG.warning("%s: not shown in the tracking store while it runs (%s)", run.name, error)


def is_on() -> bool:
    """Whether trainings are shown while they run; see `SWITCH`."""
    return os.environ.get(SWITCH, "").strip().lower() not in _OFF


def follower_lock() -> str:
    """Name of the lock that this host's follower holds."""
    return f"follower-{socket.gethostname()}"


def cards() -> Iterator[Card]:
    """Cards of trainings whose end the store was not told of yet; what cannot be read is passed over."""
    root = paths.live_card("x").parent
    for path in sorted(root.rglob("*.json")):
        card = _read(path)
        if card is not None:
            yield card


def current(card: Card) -> Card:
    """Card as it lies there by now, with what its training has failed with since; itself if it is gone or another's."""
    found = _read(paths.live_card(card.run))
    return card if found is None or found.began != card.began else found


def tell_failure(run: str, message: str) -> None:
    """Write into a run's card what its training failed with; raises nothing.

    Parameters
    ----------
    run : str
        Its lock must be held by a process of the training.
    message : str
        What the user is told.
    """
    if not is_on():
        return
    try:
        card = _read(paths.live_card(run))
        if card is not None:
            _write(dataclasses.replace(card, failed=message))
    except OSError as error:  # as in `announce`
        _LOG.warning("%s: the tracking store will show it as interrupted (%s)", run, error)


def withdraw(card: Card) -> None:
    """Remove a card, unless its run has left a newer one since."""
    path = paths.live_card(card.run)
    found = _read(path)
    if found is not None and found.began == card.began:
        with suppress(OSError):
            path.unlink()


def _read(path: Path) -> Card | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        origin = content.pop("origin")
        return Card(origin=Origin(origin["params"], origin["data"], tuple(origin["codes"])), **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(card: Card) -> None:
    """Write a card whole, but without waiting for the disk: it is worth nothing after a crash of the machine."""
    path = paths.live_card(card.run)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(dataclasses.asdict(card)), encoding="utf-8")
    part.replace(path)


def _start_follower() -> None:
    environment = {key: value for key, value in os.environ.items() if key != watch.PARENT}  # it outlives the workflow
    _started.append(
        subprocess.Popen(
            [sys.executable, "-m", "gald.cli", "track", "--follow"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    )
    os.setpriority(os.PRIO_PROCESS, _started[-1].pid, 19)  # from its first moment; see `lower_priority` for the rest


def lower_priority() -> None:
    """Let this process compute only when nobody else wants to: beside a busy core it gets a 70th of it at most."""
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    if os.getsid(0) != os.getpid():
        return  # called by hand: the session is the user's, and so is its niceness
    try:
        # Where the kernel groups processes by session, niceness counts inside a session only, and this one has its own.
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")
    except OSError:
        return
