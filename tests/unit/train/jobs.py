"""Trainings by several processes, and what they leave."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import gald
from gald import files, paths
from gald.params import Run
from gald.train import history
from tests.processes import children

# `gald train` of runs that lie in no suite, one after the other
CHILD = """
import json, os, sys
from gald import cli
from gald.cli import runs
from gald.params import Run, RunParams
wanted = json.loads(sys.argv[1])
def look_up(name, digest, *, evaluate):
    params = RunParams.model_validate(wanted[name])
    return Run(name, *name.split("/")[:2], "none", params.train.seed, params)
runs._run, runs._store, runs._tell_progress = look_up, lambda: "auto", lambda run: None
for name in wanted:
    cli.LOGGER.handlers.clear()
    status = cli.main(["train", name])
    print(f"rank {os.environ['RANK']} ends with {status}", file=sys.stderr, flush=True)
    if status:
        sys.exit(status)
"""
RECIPE: dict[str, Any] = {"batch_norm": "frozen", "max_iters": 10, "warmup_iters": 2, "log_every": 4}
ENDLESS = {**RECIPE, "max_iters": 100_000, "checkpoint_every": 2, "log_every": 3}
LOSS = {"threshold": 0.7, "min_kept": 100000, "class_weights": None, "label_smoothing": 0.0}
NO_DROPOUT = {"aux_head": {"channels": 8, "relu": True, "dropout": 0.0}}


class Job:
    """Runs that torchrun trains, with what it prints."""

    def __init__(
        self, *wanted: Run, processes: int = 2, options: tuple[str, ...] = ("--standalone",), log: str = "log"
    ):
        Path("child.py").write_text(CHILD)
        self.log = Path(log)
        given = json.dumps({run.name: run.params.model_dump(mode="json") for run in wanted})
        options = (*options, f"--nproc-per-node={processes}", "--local-addr=127.0.0.1")  # names may lead nowhere
        command = [sys.executable, "-m", "torch.distributed.run", *options]
        folders = f"{Path.cwd()}:{Path(gald.__file__).parents[1]}"  # the first one for a sitecustomize.py
        environment = os.environ | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as file:
            self.agent = subprocess.Popen(
                [*command, "child.py", given], stderr=file, stdout=file, env=environment, start_new_session=True
            )

    def workers(self) -> dict[int, int]:
        """Process ids by rank."""
        found = {}
        for pid in children(self.agent.pid):
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
            if rank := re.search(r"\0RANK=(\d+)\0", environment):
                found[int(rank[1])] = pid
        return found

    def workers_left(self) -> list[str]:
        """Command lines of processes that work in this folder and are no test."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if b"child.py" in command and (folder / "cwd").readlink() == Path.cwd():
                    found.append(command.decode())
        return found

    def end(self, seconds: float = 300) -> str:
        try:
            self.agent.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(self.log.read_text())
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], object], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.agent.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


def tensors(run: Run) -> dict[str, Tensor]:
    return safetensors.torch.load_file(paths.weights(run.name))


def digest(run: Run) -> str:
    return files.sha256(paths.weights(run.name))


def lines(run: Run) -> list[dict[str, Any]]:
    kept = ("iteration", "loss", "main_loss", "aux_loss", "gradient_norm", "learning_rate", "validation_mean_iou")
    return [{key: line[key] for key in kept if key in line} for line in history.read(paths.history(run.name))]


def assert_close(found: Run, expected: Run, tolerance: float = 2e-5) -> None:
    theirs = tensors(expected)
    for name, value in tensors(found).items():
        torch.testing.assert_close(
            value, theirs[name], atol=tolerance, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    for line, other in zip(lines(found), lines(expected), strict=True):
        assert line == pytest.approx(other, rel=1e-4)


def checkpoints(run: Run) -> list[int]:
    return sorted(int(path.stem) for path in paths.checkpoint_dir(run.name).glob("*.checkpoint"))


def record(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(paths.run_json(run.name).read_text())
    return found


def changes(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """What a resumed training marks as done otherwise before, with both."""
    formerly = {line["what"]: line["effective"] for line in before}
    return {line["what"]: (formerly[line["what"]], line["effective"]) for line in now if line["changed"]}


def told(log: str) -> list[str]:
    """What processes say of how they ended; torchrun's own report left out."""
    return re.findall(r"^(?:process \d of \d: )?gald train: .*", log, re.MULTILINE)


def stops(log: str) -> list[str]:
    return re.findall(r"stopped after iteration .*", log)


BREAKABLE = {"max_iters": 60, "warmup_iters": 2, "checkpoint_every": 2, "log_every": 7}


THREE = {**RECIPE, "batch_size": 6}
