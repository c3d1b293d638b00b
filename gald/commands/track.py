"""`gald track`: bring the MLflow store up to date with the files, as often as one likes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gald import paths
from gald.params import load_suite, suite_names
from gald.process import locking
from gald.tracking import announced
from gald.tracking import follow as show_live
from gald.tracking import track as show

LOG = logging.getLogger("gald")


def track(suites: Sequence[str]) -> None:
    """Show suites in the tracking store.

    Parameters
    ----------
    suites : sequence of str
        Names of suites; none means every suite that has a start page.

    Raises
    ------
    ParamsError
        A suite does not exist or is invalid. A store that cannot be reached raises nothing: it costs a warning.
    """
    names = suites or [name for name in suite_names() if paths.index(name).exists()]
    if not names and not any(announced.cards()):
        LOG.info("no suite has a start page yet: nothing to track")
        return
    show([load_suite(name) for name in names])


def follow() -> None:
    """Show trainings while they run, out of the way of everybody; return at once if another process does it."""
    if locking.is_held(announced.follower_lock()):
        LOG.info("another process follows the trainings of this folder")
        return
    announced.lower_priority()
    log = paths.follow_log()
    log.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(log, mode="w")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOG.addHandler(file)
    show_live()
