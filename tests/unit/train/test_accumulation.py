import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from gald import paths
from gald.models.segmentor import build_segmentor
from gald.params import Run
from gald.train import history
from gald.train.loader import Batch
from gald.train.loop import State, train_one_iteration
from gald.train.norms import training_mode
from gald.train.optimiser import Optimiser
from gald.train.parallel import World
from gald.train.precision import Precision
from gald.train.run import train

ALONE = World(0, 1, torch.device("cpu"))
SMALL = {"name": "tiny", "width": 16, "stem_width": 8}


pytestmark = pytest.mark.usefixtures("one_thread")


def weights_of(run: Run) -> dict[str, Tensor]:
    return safetensors.torch.load_file(paths.weights(run.name))


def state_of(run: Run) -> State:
    torch.manual_seed(0)
    model = build_segmentor(run.params.model, 11)
    params = run.params.train
    training_mode(model, params)
    return State(model, model, Optimiser(model, params), Precision(params))


def uneven_batch(samples: int = 4) -> Batch:
    """Samples of which each has another number of ignored pixels; the first has none, the last one few others."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (samples, 32, 48, 3), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 11, (samples, 32, 48), generator=generator, dtype=torch.uint8)
    for index in range(samples):
        masks[index, : index * 10] = 255
    return Batch(images, masks, tuple(f"sample{index}" for index in range(samples)))


FROZEN: dict[str, Any] = {"model": {"backbone": SMALL, "aux_head": {"channels": 8, "relu": True, "dropout": 0.0}}}


@pytest.mark.parametrize(
    "loss", [{}, {"class_weights": [0.5, 1.0, 2.0, 4.0, *[1.5] * 7], "label_smoothing": 0.1}], ids=["plain", "weighted"]
)
def test_parts_of_a_batch_add_up_to_the_whole(make_run: Callable[..., Run], loss: dict[str, Any]) -> None:
    base = make_run().params.train.loss.model_dump()
    found = []
    for parts in (1, 2, 4):
        run = make_run(**FROZEN, train={"micro_batches": parts, "batch_norm": "frozen", "loss": base | loss})
        state = state_of(run)
        numbers = [train_one_iteration(state, uneven_batch(), run.params.train, i, 0.05, ALONE) for i in range(3)]
        found.append((state.model.state_dict(), [dataclasses.astuple(losses) for losses in numbers]))
    for other, numbers in found[1:]:
        torch.testing.assert_close(numbers, found[0][1], rtol=1e-5, atol=1e-6)
        for name, value in found[0][0].items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-6, msg=name)


def test_a_part_without_a_valid_pixel_takes_nothing_away(make_run: Callable[..., Run]) -> None:
    batch = uneven_batch(2)
    batch.masks[1] = 255
    found = []
    for parts in (1, 2):
        run = make_run(**FROZEN, train={"batch_size": 2, "micro_batches": parts, "batch_norm": "frozen"})
        state = state_of(run)
        train_one_iteration(state, batch, run.params.train, 0, 0.05, ALONE)
        found.append(state.model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=0, atol=1e-6, msg=name)


def test_frozen_norms_keep_their_statistics_and_learn_their_affine_part(make_run: Callable[..., Run]) -> None:
    validation = {"every": 2, "split": "test", "samples": 2, "patience": None}
    run = make_run(train={"max_iters": 5, "batch_norm": "frozen", "validation": validation})
    train(run)
    found = weights_of(run)
    means = [value for name, value in found.items() if name.endswith("running_mean")]
    counted = [value for name, value in found.items() if name.endswith("num_batches_tracked")]
    assert means
    assert not any(value.any() for value in means)
    assert counted
    assert not any(value.any() for value in counted)
    assert all((value == 1).all() for name, value in found.items() if name.endswith("running_var"))
    assert found["backbone.stem.1.bias"].abs().sum() > 0


@pytest.mark.slow
def test_whole_trainings_agree_whatever_the_number_of_parts(make_run: Callable[..., Run]) -> None:
    expected = None
    for parts in (1, 2, 4):
        run = make_run(**FROZEN, train={"max_iters": 6, "micro_batches": parts, "batch_norm": "frozen"})
        train(run)
        found = weights_of(run)
        lines = [line["loss"] for line in history.read(paths.history(run.name))]
        expected = expected or (found, lines)
        torch.testing.assert_close(lines, expected[1], rtol=1e-5, atol=0)
        for name, value in expected[0].items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=name)


def test_gradients_are_clipped_to_the_norm_and_shorter_ones_left_alone(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Tensor]] = []
    step = Optimiser.step

    def note(self: Optimiser, rate: float) -> None:
        seen.append([value.grad.clone() for group in self.param_groups for value in group["params"]])
        step(self, rate)

    monkeypatch.setattr(Optimiser, "step", note)
    norms = []
    for limit in (None, 0.05, 1e6):
        run = make_run(train={"clip_gradient_norm": limit})
        norms.append(train_one_iteration(state_of(run), uneven_batch(), run.params.train, 0, 0.05, ALONE).gradient_norm)
    free, clipped, untouched = seen
    assert norms[0] == norms[1] == norms[2] > 0.05  # the history tells the norm before it is clipped
    total = torch.linalg.vector_norm(torch.cat([value.flatten() for value in free])).item()
    assert norms[0] == pytest.approx(total, rel=1e-5)
    for mine, whole, same in zip(clipped, free, untouched, strict=True):
        assert torch.equal(same, whole)
        torch.testing.assert_close(mine, whole * (0.05 / total), rtol=1e-4, atol=1e-9)


def test_hard_pixels_are_chosen_in_each_part_by_itself(make_run: Callable[..., Run]) -> None:
    loss = make_run().params.train.loss.model_dump() | {"name": "ohem", "threshold": 0.01}
    recipe = {"batch_norm": "frozen", "loss": loss | {"min_kept": 198}}
    run = make_run(**FROZEN, train=recipe | {"micro_batches": 4})
    whole = make_run(**FROZEN, train=recipe | {"batch_size": 1, "loss": loss | {"min_kept": 50}})
    batch = uneven_batch()
    found = train_one_iteration(state_of(run), batch, run.params.train, 0, 0.05, ALONE)
    each = [
        train_one_iteration(
            state_of(whole),
            Batch(batch.images[i : i + 1], batch.masks[i : i + 1], ("one",)),
            whole.params.train, 0, 0.05, ALONE,
        ).main
        for i in range(4)
    ]  # fmt: skip
    assert found.main == pytest.approx(sum(each) / 4, rel=1e-5)


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_travel_once_an_iteration_whatever_the_micro_batches(
    make_run: Callable[..., Run], compiled: bool
) -> None:
    def reduce(_: None, bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:
        sent.append(bucket.index())
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    sent: list[int] = []
    world, counts = World(0, 2, torch.device("cpu")), {}
    for micro_batches in (1, 4):
        run = make_run(train={"micro_batches": micro_batches}, **FROZEN)
        state = state_of(run)
        network: Any = world.wrap(state.model)
        network.register_comm_hook(None, reduce)
        state.network = torch.compile(network, backend="eager") if compiled else network
        for iteration in range(3):
            sent.clear()
            train_one_iteration(state, uneven_batch(), run.params.train, iteration, 0.01, world)
        counts[micro_batches] = len(sent)
    assert counts[1] == counts[4] > 0
