"""Fifty iterations beside an independent loop: the same net, batches and recipe, written out with plain torch."""

from collections.abc import Callable

import torch
from torch.nn import functional

from gald import paths
from gald.datasets._reader import PreparedSplit
from gald.inference import channels_last
from gald.models import weights
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import Run
from gald.train.loader import CachedSamples, make_batch
from gald.train.run import train
from gald.train.seeding import seed_dropout
from tests.unit.conftest import CLASSES

ITERATIONS = 50


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
        images, target = batch.images.permute(0, 3, 1, 2).float() / 255, batch.masks.long()
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
    """Within 1e-6 of each tensor's largest value.

    Not equal to the bit: our loss adds the pixels up strip by strip in another order. Each iteration grows such a
    difference with the learning rate; at 0.005 some 4e-7 are found after fifty.
    """
    run = make_run(train={"max_iters": ITERATIONS, "learning_rate": 0.005})
    train(run)
    torch.manual_seed(run.params.train.seed)
    first = build_segmentor(run.params.model, len(CLASSES)).state_dict()
    found = weights.load(paths.weights(run.name)).state_dict()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = plain_training(run).state_dict()
    finally:
        torch.set_num_threads(threads)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.is_floating_point():
            scale = float(value.abs().max())
            assert float((found[name] - value).abs().max()) <= 1e-6 * scale, name
            if name.endswith(".weight"):
                assert float((value - first[name]).abs().max()) > 1e-3 * scale, f"{name} did not learn"
        else:
            assert torch.equal(found[name], value), name
