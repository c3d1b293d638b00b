"""The bases of `ema` are those of the whole batch, also where several processes share it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gald
from gald.models.aggregation import ema

CHILD = """
import sys, torch
from torch import distributed, nn
from gald.models.aggregation import ema
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
module = ema.build(8, bases=4, momentum=0.5)
module.load_state_dict(given["module"])
wrapped = nn.parallel.DistributedDataParallel(module)
for feature in given["features"]:
    wrapped(feature.chunk(2)[rank]).sum().backward()
torch.save(module.bases, f"{folder}/bases{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_bases_of_two_processes_equal_those_of_the_whole_batch_in_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = ema.build(8, bases=4, momentum=0.5)
    features = [torch.randn(4, 8, 5, 6) for _ in range(2)]
    torch.save({"module": module.state_dict(), "features": features}, tmp_path / "given.pt")
    environment = os.environ | {"PYTHONPATH": str(Path(gald.__file__).parents[1]), "GLOO_SOCKET_IFNAME": "lo"}
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(rank), str(tmp_path)], env=environment) for rank in range(2)
    ]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    for feature in features:
        module(feature)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"bases{rank}.pt"), module.bases)
