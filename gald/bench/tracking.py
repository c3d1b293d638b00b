"""What a training loses by being shown while it runs, whatever ails the store.

A training is compared with itself: its follower is stopped every third second, and what an iteration takes while it
stands still is what it takes without. All that the follower does counts, its start too. With one training a core, and
with one that computes on all cores, every moment of the follower's is taken from a training. Beside busy cores it takes
minutes until a follower speaks to its store at all, so the rows but one show one that had met it before.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import multiprocessing
import os
import signal
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gald import files, paths
from gald.bench._measure import machine, tell
from gald.bench._scenes import Scenes, data_in
from gald.inference import WHOLE
from gald.params import Run, RunParams, read_yaml
from gald.process import locking
from gald.tracking import announced
from gald.train.run import train

_SECONDS = 40.0
_WARM_UP_ITERATIONS = 200
_STOPPED_S, _GOING_S = 1.0, 2.0
_TARGET = 1.02
_SCENES = Scenes("camvid", (128, 192), 4, ".png", 1.0, 8)
_REFUSAL = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_OPEN = "up, opened before"
_NEW = "up, not opened before"
_NOBODY = "http://127.0.0.1:9"  # the discard service, which is off everywhere
_HEAD = "| trainings | tracking store | ms an iteration | times without | told | target | met |\n|" + "---|" * 7 + "\n"

Line = tuple[int, float]
"""Iteration, and when it was done in seconds since the epoch."""
Stretch = tuple[float, float]


class _Bench(NamedTuple):
    """What all cases share: processes to train in, the repository's folder, data and params of a training."""

    pool: ProcessPoolExecutor
    root: Path
    params: RunParams


def bench() -> str:
    """Time trainings whose follower is stopped now and then, and return the report."""
    cores = os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gald-bench-")))
        params = _prepare(root / "data")
        stores = _stores(stack)
        pool = stack.enter_context(ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")))
        shared = _Bench(pool, root, params)
        rows = [*_rows(shared, stores, cores, 1), *_rows(shared, {_OPEN: stores[_OPEN]}, 1, cores)]
    heading = (
        f"{machine()}; trainings of {_SECONDS:.0f} s, their follower stopped for {_STOPPED_S:.0f} of every "
        f"{_STOPPED_S + _GOING_S:.0f} s"
    )
    return f"{heading}\n\n{_HEAD}" + "\n".join(rows) + "\n"


def _rows(shared: _Bench, stores: dict[str, str], count: int, threads: int) -> Iterator[str]:
    """Yield a row for every store, of `count` trainings side by side."""
    what = f"{count}, {threads} thread{'s' * (threads > 1)} each"
    pace = _paces(*_round(shared, f"{count}-{threads}", None, (count, threads, _WARM_UP_ITERATIONS)))[0]
    iterations = 10 * math.ceil(_SECONDS / pace / 10)
    for number, (case, uri) in enumerate(stores.items()):
        name = f"{count}-{threads}-{number}"
        tell("tracking", f"{what}, {case}")
        if case != _NEW:
            _meet(shared, name, uri)
        before = _told(shared.root / name)
        taken, without = _paces(*_round(shared, name, uri, (count, threads, iterations)))
        number_told, what_told = _told(shared.root / name)
        told = f"{number_told - before[0]} {what_told}"
        ratio = taken / without
        met = "yes" if ratio < _TARGET else "NO"
        yield f"| {what} | {case} | {1000 * taken:.2f} | {ratio:.3f} | {told} | {_TARGET} | {met} |"


def _paces(histories: Sequence[Sequence[Line]], stopped: Sequence[Stretch]) -> tuple[float, float]:
    """Seconds of an iteration, of all together and of those in stretches in which the follower stood still.

    Only the time in which every training runs counts: the last one has the machine to itself.
    """
    first, last = max(lines[0][1] for lines in histories), min(lines[-1][1] for lines in histories)
    all_of_them, still = [], []
    for lines in histories:
        spans = [(done, end, number - before) for (before, done), (number, end) in itertools.pairwise(lines)]
        spans = [span for span in spans if first <= span[0] and span[1] <= last]
        kept = [span for span in spans if any(begin <= span[0] and span[1] <= end for begin, end in stopped)]
        all_of_them.append(_mean(spans))
        still.append(_mean(kept or spans))
    return statistics.mean(all_of_them), statistics.mean(still)


def _mean(spans: Sequence[tuple[float, float, int]]) -> float:
    return sum(end - begin for begin, end, _ in spans) / sum(count for _, _, count in spans)


def _told(folder: Path) -> tuple[int, str]:
    """What became of it so far: points in the database, or refusals in the follower's log."""
    if (folder / "mlflow.db").exists():
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
            return database.execute("select count(*) from metrics").fetchone()[0], "points"
    log = folder / paths.follow_log()
    return log.read_text().count("next try") if log.exists() else 0, "refusals"


def _stores(stack: contextlib.ExitStack) -> dict[str, str]:
    """Address of each store, with the servers that it needs."""
    silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    full = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    threading.Thread(target=_refuse, args=(full,), daemon=True).start()
    return {
        _OPEN: "sqlite:///mlflow.db",
        _NEW: "sqlite:///mlflow.db",
        "down": _NOBODY,
        "never answers": f"http://127.0.0.1:{silent.getsockname()[1]}",
        "full": f"http://127.0.0.1:{full.getsockname()[1]}",
    }


def _refuse(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed at the end
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(_REFUSAL)


def _prepare(root: Path) -> RunParams:
    """Draw a benchmark; return the params of a training on it."""
    with data_in(root):
        folder = _SCENES.write()
    manifest = folder / "manifest.json"
    classes = [f"class {number}" for number in range(_SCENES.classes)]
    files.write_json(manifest, json.loads(manifest.read_text()) | {"classes": classes, "source": "segnet"})
    base = read_yaml(paths.PARAMS / "base.yaml")
    small = {
        "model": {
            "backbone": {"name": "tiny", "width": 16, "stem_width": 8},
            "channels": 16,
            "aux_head": {"channels": 8, "relu": True, "dropout": 0.1},
        },
        "train": {
            "crop_size": [96, 128],
            "scale_range": [0.5, 2.0],
            "batch_size": 4,
            "learning_rate": 0.01,
            "warmup_iters": 0,
            "log_every": 10,
            "checkpoint_every": 100,
        },
        "evaluate": {"split": "test", "protocol": WHOLE.model_dump(mode="json")},
    }
    sections = {key: base[key] | small[key] for key in small}
    content = {"edition": "full", "dataset": _SCENES.name, "source": "segnet", **sections}
    return RunParams.model_validate(content)


def _round(
    shared: _Bench, name: str, uri: str | None, how: tuple[int, int, int]
) -> tuple[list[list[Line]], list[Stretch]]:
    """Train side by side in a folder of their own; return their histories and when the follower stood still.

    Parameters
    ----------
    shared : _Bench
        What all rounds share.
    name : str
        Of the folder.
    uri : str or None
        Store; None for no follower at all.
    how : tuple of int
        Trainings, threads of each, iterations of each.
    """
    count, threads, iterations = how
    folder = shared.root / name
    folder.mkdir(exist_ok=True)
    environment = {announced.SWITCH: "0"} if uri is None else {announced.SWITCH: "1", "MLFLOW_TRACKING_URI": uri}
    changed = shared.params.train.model_copy(update={"threads": threads, "max_iters": iterations})
    content = shared.params.model_copy(update={"train": changed}).model_dump_json()
    one = partial(_train, shared.root / "data", content, environment, folder)
    running = [shared.pool.submit(one, seed) for seed in range(count)]
    with _in_folder(folder):
        stopped = list(_stop_and_go(running))
        _end_follower()
    return [each.result() for each in running], stopped


def _meet(shared: _Bench, name: str, uri: str) -> None:
    """Have a follower tell the store of a training that died, while nobody computes, until it is taken or refused."""
    folder = shared.root / name
    folder.mkdir()
    shared.pool.submit(_announce, shared.params.model_dump_json(), uri, folder).result()
    with _in_folder(folder):
        while any(announced.cards()) and not (_told(folder)[0] and _told(folder)[1] == "refusals"):
            time.sleep(_STOPPED_S)


def _announce(content: str, uri: str, folder: Path) -> None:
    os.environ |= {announced.SWITCH: "1", "MLFLOW_TRACKING_URI": uri}
    params = RunParams.model_validate_json(content)
    with _in_folder(folder):
        run = Run(f"bench/{params.dataset}/died-seed0", "bench", params.dataset, "died", 0, params)
        announced.announce(run, {"params": "", "data": ""}, {"commit": ""}, [""])


def _train(data: Path, content: str, environment: dict[str, str], folder: Path, seed: int) -> list[Line]:
    """Train one run; return when which iterations were done."""
    os.environ |= environment
    params = RunParams.model_validate_json(content)
    run = Run(f"bench/{params.dataset}/none-seed{seed}", "bench", params.dataset, "none", seed, params)
    with _in_folder(folder), data_in(data):
        train(run, store="files")
        lines = [json.loads(text) for text in paths.history(run.name).read_text().splitlines()]
    return [(line["iteration"], line["timestamp"]) for line in lines]


def _stop_and_go(running: Sequence[Future[list[Line]]]) -> Iterator[Stretch]:
    """Stop the follower of this folder and let it go on until the trainings have ended; yield when it stood still."""
    while not all(each.done() for each in running):
        process = _follower()
        if process is not None:
            os.kill(process, signal.SIGSTOP)
            begin = time.time()
            time.sleep(_STOPPED_S)
            end = time.time()
            os.kill(process, signal.SIGCONT)
            yield begin, end
        time.sleep(_GOING_S)


def _follower() -> int | None:
    """Process of this folder's follower."""
    if not locking.is_held(announced.follower_lock()):
        return None
    return int(paths.lock(announced.follower_lock()).read_text(encoding="utf-8").split()[1])


def _end_follower() -> None:
    """Stop the follower of this folder, so that no case pays for the one before it."""
    process = _follower()
    if process is not None:
        os.kill(process, signal.SIGKILL)
        locking.wait_until_free(announced.follower_lock(), say=lambda _: None)


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
