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
from gald.params import Run, RunParams
from gald.train import loop, run as stage
name, content = sys.argv[1:]
params = RunParams.model_validate_json(content)

def report(*_):
    heavy = {"timm", "torchvision", "mlflow", "pandas", "scipy", "matplotlib", "torch._dynamo", "torch._inductor"}
    print(json.dumps([time.process_time(), sorted(heavy & sys.modules.keys())]))
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
    seconds, heavy = json.loads(answer.stdout)
    assert heavy == []
    assert seconds < 5  # of the processor, so that a busy machine does not count; some 2 s
