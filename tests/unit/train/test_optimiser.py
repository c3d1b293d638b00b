import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from gald.models.segmentor import build_segmentor
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


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_groups_are_torchs_own_to_the_bit(
    make_run: Callable[..., Run], optimiser: str, decay_norm_and_bias: bool
) -> None:
    """A whole network, in which one parameter has no gradient in some iterations."""
    run = make_run(
        train={
            "optimiser": optimiser,
            "betas": [0.8, 0.95],
            "momentum": 0.9,
            "weight_decay": 0.05,
            "decay_norm_and_bias": decay_norm_and_bias,
            "head_learning_rate_factor": 3.0,
        }
    )
    torch.manual_seed(0)
    ours = build_segmentor(run.params.model, 4)
    theirs = copy.deepcopy(ours)
    optimiser_of_ours = Optimiser(ours, run.params.train)
    groups = []
    for name, parameter in theirs.named_parameters():
        bare = parameter.ndim == 1 and not decay_norm_and_bias
        factor = 1.0 if name.startswith("backbone.") else 3.0
        groups.append({"params": [parameter], "weight_decay": 0.0 if bare else 0.05, "factor": factor})
    reference: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        if optimiser == "sgd"
        else torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.95))
    )
    generator = torch.Generator().manual_seed(0)
    for iteration, rate in enumerate((0.01, 0.02, 0.005)):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        if iteration == 1:
            ours.head.classifier.weight.grad = theirs.head.classifier.weight.grad = None
        for group in reference.param_groups:
            group["lr"] = rate * group["factor"]
        optimiser_of_ours.step(rate)
        reference.step()
        for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(mine, other), (iteration, name)


def test_only_norms_and_biases_are_left_out_of_weight_decay(make_run: Callable[..., Run]) -> None:
    run = make_run(train={"decay_norm_and_bias": False, "weight_decay": 0.5, "momentum": 0.0})
    torch.manual_seed(0)
    model = build_segmentor(run.params.model, 4)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    Optimiser(model, run.params.train).step(0.1)
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name]) and value.any()}
    assert {before[name].ndim for name in still} == {1}
    assert {before[name].ndim for name in before.keys() - still if before[name].any()} == {4}


def test_what_adamw_remembers_goes_on_where_it_was(make_run: Callable[..., Run]) -> None:
    params = make_run(train={"optimiser": "adamw", "weight_decay": 0.1}).params.train
    torch.manual_seed(0)
    unbroken = nn.ModuleDict({"backbone": nn.Linear(3, 4), "head": nn.Linear(4, 2)})
    gradients = [[torch.randn_like(value) for value in unbroken.parameters()] for _ in range(6)]
    broken = copy.deepcopy(unbroken)

    def steps(model: nn.Module, optimiser: Optimiser, drawn: list[list[torch.Tensor]]) -> None:
        for each in drawn:
            for value, gradient in zip(model.parameters(), each, strict=True):
                value.grad = gradient.clone()
            optimiser.step(0.01)

    steps(unbroken, Optimiser(unbroken, params), gradients)
    first = Optimiser(broken, params)
    steps(broken, first, gradients[:2])
    second = Optimiser(broken, params)
    second.load({name: value.clone() for name, value in first.state.items()})
    steps(broken, second, gradients[2:])
    for mine, other in zip(broken.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(mine, other)
