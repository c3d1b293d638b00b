"""What of a training is other on a GPU: where batches lie, how they travel, half precision, bits, memory.

What can be is also run on a CPU, so that the tests themselves are tried where there is no GPU.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import gald
from gald import files, paths
from gald.errors import TrainingInterrupted
from gald.params import Run, RunParams
from gald.train import history, loop
from gald.train.batch_search import find_batch
from gald.train.loader import batches
from gald.train.run import train
from tests.unit.conftest import run_params, scene

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
on_each_device = pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=GPU)]
)
SHORT = {"max_iters": 12, "log_every": 4, "checkpoint_every": 5, "micro_batches": 2}


class Scenes:
    """Samples in memory."""

    num_classes = 4

    def __init__(self) -> None:
        from gald.datasets._samples import Sample

        rng = np.random.default_rng(0)
        self.samples = [Sample(f"scene{index}", *scene(rng)) for index in range(5)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Any:
        return self.samples[index]

    def id(self, index: int, /) -> str:
        return self.samples[index].id


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_lie_where_a_gpu_fetches_them_and_hold_the_same_pixels(workers: int) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        params = RunParams.model_validate(
            run_params(train={"device": device, "workers": workers, "max_iters": 6})
        ).train
        made = [batch for _, batch in batches(Scenes(), params, 0)]
        assert all(batch.images.is_pinned() == batch.masks.is_pinned() == (device == "cuda") for batch in made)
        found[device] = [batch.images.to(device, non_blocking=True).cpu() for batch in made]
    assert all(ours.equal(theirs) for ours, theirs in zip(found["cuda"], found["cpu"], strict=True))


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in history.read(paths.history(run.name))]


@on_each_device
def test_a_training_is_the_same_to_the_bit_twice(device: str, make_run: Callable[..., Run]) -> None:
    first, second = (
        make_run(
            f"mini/camvid/{name}-seed0",
            train={**SHORT, "device": device, "determinism": "bitwise"},
            model={"aggregation": {"name": "psp"}, "distribution": {"name": "affinity"}},
        )
        for name in ("first", "second")
    )
    for run in (first, second):
        train(run)
    assert files.sha256(paths.weights(first.name)) == files.sha256(paths.weights(second.name))
    assert losses(first) == losses(second)
    record = json.loads(paths.run_json(first.name).read_text())
    assert record["determinism"] == "bitwise"
    assert record["environment"]["device"] == ("cpu" if device == "cpu" else torch.cuda.get_device_name())


@on_each_device
@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_stopping_changes_no_bit(
    device: str, precision: str, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(state: loop.State, samples: Any, params: Any, hooks: loop.Hooks, world: Any) -> None:
        def stop() -> str | None:
            return "a test said so" if state.iteration == 7 else None

        real(state, samples, params, dataclasses.replace(hooks, stop=stop), world)

    recipe = {**SHORT, "device": device, "precision": precision, "average_decay": 0.9}
    unbroken, broken = (make_run(f"mini/camvid/{name}-seed0", train=recipe) for name in ("unbroken", "broken"))
    train(unbroken)
    real = loop.train
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", some)
        with pytest.raises(TrainingInterrupted, match="after iteration 7 of 12"):
            train(broken)
    train(broken)
    assert files.sha256(paths.weights(broken.name)) == files.sha256(paths.weights(unbroken.name))
    assert losses(broken) == losses(unbroken)


@on_each_device
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_learns_what_full_precision_does(
    device: str, precision: str, make_run: Callable[..., Run]
) -> None:
    def look(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, nn.Conv2d):
            seen.add(output.dtype)

    seen: set[torch.dtype] = set()
    recipe = {"max_iters": 40, "log_every": 20, "device": device, "determinism": "seeded"}
    full, half = (
        make_run(f"mini/camvid/{kind}-seed0", train={**recipe, "precision": kind}) for kind in ("float32", precision)
    )
    train(full)
    hook = register_module_forward_hook(look)
    try:
        train(half)
    finally:
        hook.remove()
    assert seen == {{"fp16": torch.float16, "bf16": torch.bfloat16}[precision]}
    assert losses(half) == pytest.approx(losses(full), rel=0.1)
    assert losses(half)[-1] < 0.8 * losses(half)[0]
    kept = safetensors.torch.load_file(paths.weights(half.name))
    assert {value.dtype for value in kept.values() if value.is_floating_point()} == {torch.float32}


@on_each_device
def test_the_largest_batch_is_found(device: str, make_run: Callable[..., Run]) -> None:
    run = make_run(train={"device": device, "crop_size": [64, 96]})
    if device == "cuda":  # the whole of it would take a while, and more than is tried
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (1 << 30)) / total)
    try:
        text = find_batch(run)
    finally:
        if device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
    found = re.search(r"takes a batch of (\d+) crops of 64x96 pixels at once \((.*)\)", text)
    assert found is not None
    assert int(found[1]) >= 2
    how = rf"tried on .*; {int(found[1]) + 1} did not fit" if device == "cuda" else "an estimate: steps of 2 and 6 took"
    assert re.match(how, found[2])


OUT_OF_MEMORY = """
import resource, sys, torch
from gald.errors import GaldError
from gald.params import Run, RunParams
from gald.train import loop
from gald.train.run import train
name, content = sys.argv[1:]
params = RunParams.model_validate_json(content)
real = loop.train
def limited(*given):
    if params.train.device == "cuda":
        torch.cuda.set_per_process_memory_fraction((256 << 20) / torch.cuda.mem_get_info()[1])
    else:
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (256 << 20),) * 2)
    real(*given)
loop.train = limited
try:
    train(Run(name, *name.split("/")[:2], "none", params.train.seed, params))
except GaldError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@on_each_device
def test_memory_that_really_runs_out_is_said_with_what_to_lower(device: str, make_run: Callable[..., Run]) -> None:
    """Of an iteration that takes more than half a GiB, in a process that is given half of that."""
    run = make_run(
        train={"device": device, "crop_size": [256, 256], "batch_size": 32},
        model={"backbone": {"name": "tiny", "width": 64, "stem_width": 32}},
    )
    environment = os.environ | {"PYTHONPATH": str(Path(gald.__file__).parents[1])}
    command = [sys.executable, "-c", OUT_OF_MEMORY, run.name, run.params.model_dump_json()]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    said = found.stderr.strip().splitlines()[-1]
    assert found.returncode == 1
    assert re.match(
        rf"GaldError: {run.name}: memory ran out in iteration 1: it needs some \d\.\d GiB for weights, gradients and "
        r"optimiser, and 0\.[5-9] GiB for the features of 32 crops of 256x256 pixels; raise train\.micro_batches",
        said,
    ), found.stderr
    assert "Traceback" not in found.stderr
