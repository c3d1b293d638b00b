"""Fifty iterations beside an independent loop: the same net, batches and recipe, written out with plain torch.

Both compute in double precision. In single precision a feature within rounding of zero falls to either side of a ReLU,
on one processor or another, and from there on two correct loops are a hundredth of a bias apart.
"""

from collections.abc import Callable, Iterator

import pytest
import safetensors.torch
import torch
from torch.nn import functional

from gald import paths
from gald.datasets._reader import PreparedSplit
from gald.inference import channels_last
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import Run
from gald.train import loop
from gald.train.loader import CachedSamples, make_batch
from gald.train.run import train
from gald.train.seeding import seed_dropout
from tests.unit.conftest import CLASSES

ITERATIONS = 50


@pytest.fixture(autouse=True)
def _double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real, threads = loop.as_input, torch.get_num_threads()
    monkeypatch.setattr(loop, "as_input", lambda images: real(images).double())
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)


def plain_training(run: Run) -> Segmentor:
    """Train as one would in a notebook: logits enlarged, `cross_entropy`, `torch.optim.SGD`, poly with warm-up."""
    params = run.params.train
    samples = CachedSamples(PreparedSplit(paths.prepared("mini", "camvid"), params.splits), len(CLASSES))
    torch.manual_seed(params.seed)
    model = channels_last(build_segmentor(run.params.model, len(CLASSES))).train()
    body = [value for name, value in model.named_parameters() if name.startswith("backbone.")]
    rest = [value for name, value in model.named_parameters() if not name.startswith("backbone.")]
    optimiser = torch.optim.SGD(
        [{"params": body}, {"params": rest}], lr=0.1, momentum=params.momentum, weight_decay=params.weight_decay
    )
    for iteration in range(params.max_iters):
        rate = params.learning_rate * (1 - iteration / params.max_iters) ** params.power
        if iteration < params.warmup_iters:
            rate *= (iteration + 1) / params.warmup_iters
        optimiser.param_groups[0]["lr"] = rate
        optimiser.param_groups[1]["lr"] = rate * params.head_learning_rate_factor
        batch = make_batch(samples, params, iteration)
        images, target = (batch.images.permute(0, 3, 1, 2).float() / 255).double(), batch.masks.long()
        seed_dropout(params.seed, iteration)  # dropout draws from torch's own generator
        main, aux = model(images, with_aux=True, full_size=False)
        loss = torch.zeros(())
        for logits, share in ((main, 1.0), (aux, params.aux_weight)):
            enlarged = functional.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=True)
            loss = loss + share * functional.cross_entropy(enlarged, target, ignore_index=255)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def test_fifty_iterations_of_an_independent_loop_leave_the_same_weights(make_run: Callable[..., Run]) -> None:
    """Within 1e-6 of each tensor's largest value; logits alone round to single precision, and leave some 1e-7."""
    run = make_run(train={"max_iters": ITERATIONS})
    train(run)
    found = safetensors.torch.load_file(paths.weights(run.name))
    torch.manual_seed(run.params.train.seed)
    first = build_segmentor(run.params.model, len(CLASSES)).state_dict()
    expected = plain_training(run).state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.is_floating_point():
            scale = float(value.abs().max())
            assert found[name].dtype == torch.float64
            assert float((found[name] - value).abs().max()) <= 1e-6 * scale, name
            if name.endswith(".weight"):
                assert float((value - first[name]).abs().max()) > 1e-3 * scale, f"{name} did not learn"
        else:
            assert torch.equal(found[name], value), name
