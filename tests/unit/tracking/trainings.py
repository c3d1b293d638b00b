"""Trainings as the tracking sees them: a lock, a card and a growing history."""

import contextlib
import gc
import json
import time
import warnings

from gald import paths, tracking
from gald.process import locking
from gald.tracking import announced
from gald.tracking._store import Store

IDENTITY = {"params": "p" * 64, "data": "a" * 64}
CODE = {"commit": "0123456789abcdef"}
OLD, NEW = "c" * 64, "d" * 64


def announce(run, codes=(OLD,)):
    announced.announce(run, {"params": run.digest(), "data": "a" * 64}, CODE, codes)
    return next(card for card in announced.cards() if card.run == run.name)


def write_line(run, iteration, **changes):
    line = {"iteration": iteration, "loss": 2.0 / iteration, "aux_loss": 0.0, "timestamp": time.time()} | changes
    path = paths.growing_history(run.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


@contextlib.contextmanager
def training(run):
    with locking.held(run.name, wait_s=0):
        yield


@contextlib.contextmanager
def store():
    """The store in the current folder; MLflow's own warnings and open connections stay out of the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Store(tracking.store_uri())
        gc.collect()


def curve(opened, entry, name="loss"):
    found = opened._client.get_metric_history(entry.info.run_id, name)
    return sorted((point.step, point.value) for point in found)
