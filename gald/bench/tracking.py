"""What a training loses by being shown while it runs, whatever ails the store.

As many trainings side by side as there are cores, so that every moment of the follower's is taken from one of them;
each round has all cases in turn, and the follower starts and imports MLflow within its case. That is the most it can
cost: a training of hours meets the import once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from gald import files, follow, locking, paths
from gald.bench._measure import machine
from gald.bench._scenes import Scenes, data_in
from gald.params import Run, RunParams, read_yaml
from gald.tracking._store import Store
from gald.train.run import train

_ROUNDS = 5
_ITERATIONS = 240
_TARGET = 1.02
_SCENES = Scenes("camvid", (128, 192), 4, ".png", 1.0, 8)
_REFUSAL = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_NOBODY = "http://127.0.0.1:9"  # the discard service, which is off everywhere


def bench() -> str:
    """Time trainings with and without a follower, and return the report."""
    side_by_side = os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gald-bench-")))
        params = _prepare(root / "data")
        cases = _cases(stack, root)
        pool = stack.enter_context(ProcessPoolExecutor(side_by_side, mp_context=multiprocessing.get_context("spawn")))
        taken: dict[str, list[float]] = {case: [] for case in cases}
        for number in range(_ROUNDS + 1):
            for case, environment in cases.items():
                folder = root / f"{case}-{number}".replace(" ", "-")
                seconds = _round(pool, side_by_side, folder, partial(_train, root / "data", params, environment))
                if number > 0:  # the first is a warm-up
                    taken[case].append(seconds)
    off = taken.pop("off")
    heading = (
        f"{machine()}; {side_by_side} trainings of {_ITERATIONS} iterations side by side, one thread each, {_ROUNDS} "
        f"rounds; without a follower {1000 * statistics.median(off):.1f} ms an iteration"
    )
    head = "| tracking store | ms an iteration | times off | min to max | target | met |\n|---|---|---|---|---|---|\n"
    return f"{heading}\n\n{head}" + "\n".join(_row(case, found, off) for case, found in taken.items()) + "\n"


def _row(case: str, taken: list[float], off: list[float]) -> str:
    ratios = [ours / without for ours, without in zip(taken, off, strict=True)]
    median = statistics.median(ratios)
    met = "yes" if median < _TARGET else "NO"
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    return f"| {case} | {1000 * statistics.median(taken):.1f} | {median:.3f} | {spread} | {_TARGET} | {met} |"


def _cases(stack: contextlib.ExitStack, root: Path) -> dict[str, dict[str, str]]:
    """Environment of each case, with the servers that it needs."""
    silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    full = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    threading.Thread(target=_refuse, args=(full,), daemon=True).start()
    database = f"sqlite:///{root}/mlflow.db"
    with _in_folder(root):
        Store(database)  # makes its tables, which is done once in a repository's life
    stores = {
        "up": database,
        "down": _NOBODY,
        "never answers": f"http://127.0.0.1:{silent.getsockname()[1]}",
        "full": f"http://127.0.0.1:{full.getsockname()[1]}",
    }
    shown = {case: {follow.SWITCH: "1", "MLFLOW_TRACKING_URI": uri} for case, uri in stores.items()}
    return {"off": {follow.SWITCH: "0"}} | shown


def _refuse(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed at the end
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(_REFUSAL)


def _prepare(root: Path) -> str:
    """Draw a benchmark; return the params of a training on it as JSON."""
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
            "max_iters": _ITERATIONS,
            "learning_rate": 0.01,
            "warmup_iters": 0,
            "log_every": 10,
            "checkpoint_every": 100,
        },
        "evaluate": {"split": "test"},
    }
    sections = {key: base[key] | small[key] for key in small}
    content = {"edition": "full", "dataset": _SCENES.name, "source": "segnet", **sections}
    return RunParams.model_validate(content).model_dump_json()


def _round(pool: ProcessPoolExecutor, count: int, folder: Path, one: Callable[[Path, int], float]) -> float:
    """Train side by side in a repository of their own; return the mean time of an iteration in seconds."""
    folder.mkdir()
    running = [pool.submit(one, folder, seed) for seed in range(count)]
    seconds = statistics.mean(each.result() for each in running)
    with _in_folder(folder):
        _end_follower()
    return seconds


def _train(data: Path, content: str, environment: dict[str, str], folder: Path, seed: int) -> float:
    """Train one run; return the mean time of an iteration in seconds, from the end of the first interval on."""
    os.environ |= environment
    params = RunParams.model_validate_json(content)
    run = Run(f"bench/{params.dataset}/none-seed{seed}", "bench", params.dataset, "none", seed, params)
    with _in_folder(folder), data_in(data):
        train(run, store="files")
        lines = [json.loads(text) for text in paths.history(run.name).read_text().splitlines()]
    return float((lines[-1]["timestamp"] - lines[0]["timestamp"]) / (lines[-1]["iteration"] - lines[0]["iteration"]))


def _end_follower() -> None:
    """Stop the follower of this folder, so that no case pays for the one before it."""
    lock = paths.lock(follow.follower_lock())
    if not locking.is_held(follow.follower_lock()):
        return
    with lock.open(encoding="utf-8") as file:
        os.kill(int(file.read().split()[1]), signal.SIGKILL)
        fcntl.flock(file, fcntl.LOCK_SH)


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
