"""Bring the store up to date with the files, as often as one likes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from gald import paths
from gald.errors import GaldError
from gald.files import write_json
from gald.params import Suite, load_suite, suites_of_scale
from gald.process import locking
from gald.tracking import _live, announced
from gald.tracking._items import items
from gald.tracking._store import LOCK, Store, check_server, store_uri

LOG = logging.getLogger("gald")


def track(suites: Sequence[Suite]) -> bool:
    """Bring the store up to date with the files of some suites; never fail for the store's sake.

    Whatever was shown while it ran and has died since is closed, and what the params no longer list is put away.

    Parameters
    ----------
    suites : sequence of Suite
        Runs without results, or with stale ones, are passed over.

    Returns
    -------
    bool
        Whether the store was brought up to date. If not, one line of warning says why.
    """
    reached = True
    try:
        check_server(store_uri())
        with warnings.catch_warnings(), locking.held(LOCK, wait_s=120):
            warnings.simplefilter("ignore")  # of MLflow's own dependencies; none of them is the user's business
            _bring_up_to_date(Store(store_uri()), suites)
    except Exception as error:  # whatever ails the store, the results are complete without it
        reached = False
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        LOG.warning(
            "tracking store not brought up to date (%s); nothing else is lost: `gald track` tries again", reason
        )
    for suite in suites:
        write_json(paths.tracking_stamp(suite.name), {"suite": suite.name, "reached": reached})
    return reached


def _bring_up_to_date(store: Store, suites: Sequence[Suite]) -> None:
    ended = [card for card in announced.cards() if _live.stage(card) != "RUNNING"]
    for card in ended:
        _live.Told(store, card).tell()
    store.entries()
    closed = _live.close_dead(store)
    counts = [store.show(item) for suite in suites for item in items(suite)]
    dropped = _put_away_dropped(store, suites)
    LOG.info("tracking store: %d shown, %d of them new or changed", len(counts), sum(counts))
    if page := store.page():
        LOG.info("shown %sat %s", "by `mlflow ui` " if store.local else "", page)
    if closed or dropped:
        LOG.info("tracking store: %d closed, since their training died; %d put away, since no params list them any "
                 "more", closed, dropped)  # fmt: skip


def _put_away_dropped(store: Store, suites: Sequence[Suite]) -> int:
    """Put away runs that no suite of their scale lists, and tables that their suite does not list."""
    runs: dict[str, set[str]] = {}
    for scale in {suite.scale for suite in suites}:
        try:
            runs[scale] = {run.name for name in suites_of_scale(scale) for run in load_suite(name).runs}
        except GaldError:
            continue  # a suite that is refused may list any run
    tables = {suite.name: {table.name for table in suite.tables} for suite in suites}
    dropped = 0
    for identity, entry in store.ours():
        kind, _, name = identity.partition(":")
        scale, _, table = name.partition("/")
        gone = (kind == "run" and name not in runs.get(scale, {name})) or (
            kind == "table" and table not in tables.get(scale, {table})
        )
        if gone and not locking.is_held(name):
            store.put_away(entry, "the params list it no longer")
            dropped += 1
    return dropped
