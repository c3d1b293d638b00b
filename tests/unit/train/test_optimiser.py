from collections.abc import Callable

import torch
from torch import nn

from gald.params import Run
from gald.train.optimiser import Optimiser


def test_bit_for_bit_torchs_own(make_run: Callable[..., Run]) -> None:
    params = make_run(train={"momentum": 0.9, "weight_decay": 0.01, "head_learning_rate_factor": 3.0}).params.train
    torch.manual_seed(0)
    ours, theirs = (nn.ModuleDict({"backbone": nn.Linear(3, 4), "head": nn.Linear(4, 2)}) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimiser = Optimiser(ours, params)
    reference = torch.optim.SGD(
        [{"params": theirs["backbone"].parameters()}, {"params": theirs["head"].parameters()}],
        lr=0.1, momentum=0.9, weight_decay=0.01,
    )  # fmt: skip
    for rate in (0.1, 0.05, 0.2):
        inputs = torch.randn(5, 3)
        for model in (ours, theirs):
            model["head"](model["backbone"](inputs)).square().sum().backward()
        optimiser.step(rate)
        optimiser.drop_gradients()
        reference.param_groups[0]["lr"] = rate
        reference.param_groups[1]["lr"] = 3 * rate
        reference.step()
        reference.zero_grad()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(mine, other)
            assert mine.grad is None
