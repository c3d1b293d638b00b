"""Trainings under way, shown as they go on: histories are read as they grow and told to the store in batches.

All that could be lost lies in files, so a store that is dead, slow or full costs nothing but a later try. The follower
is never waited for; what it did not tell, `gald track` tells. Beside busy cores it rests most of the time, and a first
point may take minutes to be shown.
"""

from __future__ import annotations

import logging
import socket
import time
import warnings
from typing import TYPE_CHECKING, Any, Literal

from gald import paths
from gald.errors import RunBusy
from gald.process import locking
from gald.tracking import announced
from gald.tracking._courtesy import Courtesy, resting
from gald.tracking._curves import points, read_lines
from gald.tracking._items import Dataset, benchmark, dataset, flat, origin_of, origin_tags, read_run
from gald.tracking._store import LOCK, Store, belongs, check_server, load_mlflow, store_uri
from gald.tracking.announced import Card

if TYPE_CHECKING:
    from mlflow.entities import Run as Entry

Stage = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_LOG = logging.getLogger("gald")
_EVERY_S = 5.0
_LONGEST_BACK_OFF_S = 60.0
_LINGER_S = 30.0  # so long no training is there before the follower ends: the next one saves the import
_LOOK_S = 0.5
_SILENT_S = 600.0  # another machine's lock may not be seen from here; a history that does not grow is


def stage(card: Card) -> Stage:
    """Tell from the files whether a training runs, has finished, said that it failed, or died."""
    held = locking.is_held(card.run)  # first: who lets go of the lock has written run.json before
    record = read_run(card.run)
    if record is not None:
        made = origin_of(record)
        if (made.params, made.data) == (card.origin.params, card.origin.data):
            return "FINISHED"
    if not held and announced.current(card).failed is not None:  # written before the lock was let go
        return "FAILED"
    return "RUNNING" if held or not _is_dead(card.run, card.host, card.began) else "KILLED"


def _is_dead(run: str, host: str, began: float) -> bool:
    """Whether a training whose lock looks free is gone: certain on this machine, a guess from its silence elsewhere."""
    if host == socket.gethostname():
        return True
    try:
        began = max(began, paths.growing_history(run).stat().st_mtime)
    except OSError:
        pass  # nothing written yet
    return time.time() - began > _SILENT_S


class Told:
    """What the store was told of one training.

    Parameters
    ----------
    store : Store
        Where it is told.
    card : Card
        The training.
    """

    def __init__(self, store: Store, card: Card) -> None:
        self.card = card
        self._store = store
        self._entry: Entry | None = None
        self._highest: dict[str, int] = {}

    def tell(self) -> Stage:
        """Tell what is new; once the training has ended, tell that and withdraw its card."""
        now = stage(self.card)  # before its history is read: what is written meanwhile is told the next time
        lines = read_lines(paths.history(self.card.run) if now == "FINISHED" else paths.growing_history(self.card.run))
        if self._entry is None and not self._is_complete(now):
            self._entry = self._begin(now)
        if self._entry is not None:
            new = list(points(lines, self._highest))
            self._store.log_points(self._entry, new)
            for name, _, _, step in new:
                self._highest[name] = max(step, self._highest.get(name, step))
            if now != "RUNNING":
                self._end(self._entry, now, lines)
        if now != "RUNNING":
            announced.withdraw(self.card)
        return now

    def _is_complete(self, now: Stage) -> bool:
        """Whether the store shows the finished training with its scores already."""
        known = self._store.find(f"run:{self.card.run}")
        return now == "FINISHED" and known is not None and "gald.state" in known.data.tags

    def _begin(self, now: Stage) -> Entry:
        """Go on with the training's entry, or make it; one of an earlier training is put away."""
        card, store = self.card, self._store
        entry = store.find(f"run:{card.run}")
        again = entry is not None and entry.info.status == "FINISHED" and now == "RUNNING"  # from the start
        if entry is not None and (again or not belongs(entry, card.origin)):
            store.put_away(entry, "trained again")
            entry = None
        tags = origin_tags(card.origin) | {"gald.commit": card.commit, "gald.host": card.host}
        if entry is None:
            entry = store.create(f"run:{card.run}", card.run, round(1000 * card.began), tags | self._tags())
        else:
            self._highest = store.highest(entry)
            store.reopen(entry)
        store.set_tags(entry, tags)
        store.log_params(entry, dict(flat(card.values)))
        store.log_datasets(entry, [self._dataset()])
        return entry

    def _dataset(self) -> Dataset:
        return dataset(self.card.edition, self.card.dataset, self.card.origin.data)

    def _tags(self) -> dict[str, str]:
        card = self.card
        parent = benchmark(card.run, card.edition, (round(1000 * card.began), 0), (self._dataset(),))
        self._store.find(parent.identity)
        self._store.show(parent)
        return {
            "gald.kind": "run",
            "gald.edition": card.edition,
            "gald.dataset": card.dataset,
            "gald.row": card.row,
            "gald.seed": str(card.seed),
            "mlflow.parentRunId": self._store.run_id(parent.identity),
        }

    def _end(self, entry: Entry, how: Stage, lines: list[dict[str, Any]]) -> None:
        last = lines[-1] if lines else {"iteration": 0, "timestamp": self.card.began}
        if how == "KILLED":
            of = self.card.values["train"]["max_iters"]
            self._store.interrupt(entry, f"at iteration {last['iteration']} of {of}", round(1000 * last["timestamp"]))
        elif how == "FAILED":
            self._store.fail(entry, str(announced.current(self.card).failed), round(1000 * last["timestamp"]))
        else:
            self._store.set_status(entry, how, round(1000 * last["timestamp"]))


def close_dead(store: Store) -> int:
    """Close what the store shows as running although its process is gone and left no card; return how many."""
    shown = {card.run for card in announced.cards()}
    closed = 0
    for identity, entry in store.ours():
        kind, _, run = identity.partition(":")
        if kind != "run" or entry.info.status != "RUNNING" or run in shown or locking.is_held(run):
            continue
        if _is_dead(run, entry.data.tags.get("gald.host", ""), entry.info.start_time / 1000):
            store.interrupt(entry, "at an unknown iteration", round(1000 * time.time()))
            closed += 1
    return closed


def follow(*, every_s: float = _EVERY_S, linger_s: float = _LINGER_S) -> None:
    """Show every training of this host and folder while it runs; return when none is left, or another process does it.

    Parameters
    ----------
    every_s : float
        Seconds between two batches; twice as long after each failure, up to a minute.
    linger_s : float
        Seconds without any training after which it ends.
    """
    while paths.STATE.exists():
        try:
            with locking.held(announced.follower_lock(), wait_s=0):
                _Follower(every_s, linger_s).run()
        except RunBusy:
            return
        # A training that began just now may have seen the lock held. It left its card before it looked.
        if not any(stage(card) == "RUNNING" for card in _own_cards()):
            return


def _own_cards() -> list[Card]:
    return [card for card in announced.cards() if card.host == socket.gethostname()]


class _Follower:
    """Rounds over all cards, and patience with the store."""

    def __init__(self, every_s: float, linger_s: float) -> None:
        self._every_s = every_s
        self._linger_s = linger_s
        self._store: Store | None = None
        self._told: dict[str, Told] = {}
        self._failures = 0
        self._next_try = 0.0
        self._last = ""  # run that failed last: its turn comes after the others', which may be in order

    def run(self) -> None:
        """Go round until no training was there for a while, or the folder is gone."""
        alive, rested = time.monotonic(), 0.0
        while paths.STATE.exists():
            cards = _own_cards()
            running = any(stage(card) == "RUNNING" for card in cards)
            if running:
                alive = time.monotonic()
            else:
                rested = 0.0
            if time.monotonic() - alive > self._linger_s:
                return
            if cards and time.monotonic() >= max(self._next_try, rested):
                courtesy = Courtesy()
                self._try(cards)
                if running:  # beside busy cores a batch takes minutes, and a training that ended in it is told yet
                    alive = time.monotonic()
                rested = time.monotonic() + courtesy.due_s()
            until = time.monotonic() + self._every_s
            while paths.STATE.exists() and time.monotonic() < until:
                time.sleep(min(_LOOK_S, self._every_s))

    def _try(self, cards: list[Card]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of MLflow's own dependencies
                self._tell(cards)
        except RunBusy:
            return  # `gald track` is at it
        except Exception as error:  # whatever ails the store: the files keep everything
            self._failures += 1
            wait = min(_LONGEST_BACK_OFF_S, self._every_s * 2**self._failures)
            self._next_try = time.monotonic() + wait
            self._told.clear()  # what arrived of the last batch is asked for anew
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            _LOG.warning("tracking store does not take it (%s); next try in %.0f s", reason, wait)
        else:
            if self._failures:
                _LOG.info("tracking store takes it again")
            self._failures, self._last = 0, ""

    def _tell(self, cards: list[Card]) -> None:
        uri = store_uri()
        if self._store is None:
            check_server(uri)
            with resting():
                load_mlflow()  # before the lock is taken: beside busy cores it takes minutes
        with locking.held(LOCK, wait_s=0):
            self._store = self._store or Store(uri)
            for card in sorted(cards, key=lambda card: card.run == self._last):
                self._last = card.run
                told = self._told.get(card.run)
                if told is None or told.card != card:
                    told = self._told[card.run] = Told(self._store, card)
                if told.tell() != "RUNNING":
                    del self._told[card.run]
