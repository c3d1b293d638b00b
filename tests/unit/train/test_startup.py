"""A training reaches its first iteration soon, because it imports little."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gald
from gald.params import Run

PROBE = """
import dataclasses, json, sys, time
import torch
of_torch = time.process_time()
from gald.params import Run, RunParams
from gald.train import loop, run as stage
name, content = sys.argv[1:]
params = RunParams.model_validate_json(content)

def report(*_):
    heavy = {"timm", "torchvision", "mlflow", "pandas", "scipy", "matplotlib", "torch._dynamo", "torch._inductor"}
    print(json.dumps([time.process_time() / of_torch, sorted(heavy & sys.modules.keys())]))
    sys.exit()

real = loop.train
loop.train = lambda state, samples, params, hooks, world: real(
    state, samples, params, dataclasses.replace(hooks, show=report), world
)
stage.train(Run(name, *name.split("/")[:2], "none", 0, params))
"""


def test_the_first_iteration_comes_soon_and_nothing_heavy_is_imported(make_run: Callable[..., Run]) -> None:
    run = make_run()
    environment = os.environ | {"PYTHONPATH": str(Path(gald.__file__).parents[1])}
    arguments = [sys.executable, "-c", PROBE, run.name, run.params.model_dump_json()]
    answer = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=True)
    times, heavy = json.loads(answer.stdout)
    assert heavy == []
    assert times < 4  # the processor's time for the import of torch alone; some 1.7
