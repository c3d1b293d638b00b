"""Trainings in a process of their own or stopped on the way, and what they leave."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gald
from gald import files, paths
from gald.params import Run
from gald.train import history, loop

CHILD = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
from gald.errors import GaldError
from gald.params import Run, RunParams
from gald.train.run import train
name, content = sys.argv[1:]
params = RunParams.model_validate_json(content)
try:
    train(Run(name, *name.split("/")[:2], "none", params.train.seed, params))
except GaldError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def start(run: Run, **kwargs: Any) -> subprocess.Popen[str]:
    """Train in a process of its own, as a workflow does."""
    environment = os.environ | {"PYTHONPATH": str(Path(gald.__file__).parents[1])}
    arguments = [sys.executable, "-c", CHILD, run.name, run.params.model_dump_json()]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment, **kwargs)


def outcome(run: Run) -> tuple[str, str, list[dict[str, Any]], str]:
    """What a run leaves, times left out."""
    lines = history.read(paths.history(run.name))
    kept = [
        {
            key: value
            for key, value in line.items()
            if key not in ("images_per_second", "data_wait", "memory_mib", "timestamp")
        }
        for line in lines
    ]
    csv = paths.history_csv(run.name).read_text()
    return files.sha256(paths.weights(run.name)), paths.run_json(run.name).read_text(), kept, csv


def stop_at(monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    """Let the next training be told to stop after some iterations."""

    def train_some(state: loop.State, samples: Any, params: Any, hooks: loop.Hooks, world: Any) -> None:
        def stop() -> str | None:
            return "a test said so" if state.iteration == iteration else None

        real(state, samples, params, dataclasses.replace(hooks, stop=stop), world)

    real = loop.train
    monkeypatch.setattr(loop, "train", train_some)
