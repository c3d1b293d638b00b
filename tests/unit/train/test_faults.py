import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from gald import paths
from gald.bench._memory import Work, peak_bytes
from gald.errors import GaldError, TrainingDiverged
from gald.losses import segmentation_loss
from gald.models import _recompute
from gald.models.released import NETS
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import ModelParams, Run
from gald.train import faults, loop
from gald.train.faults import first_bad_layer, memory_needed, told, what_to_lower
from gald.train.recompute import recompute_blocks
from gald.train.run import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(make_run: Callable[..., Run]) -> Run:
    return make_run()


@pytest.fixture
def model(run: Run) -> Segmentor:
    torch.manual_seed(0)
    return build_segmentor(run.params.model, 4).train()


def bad_layer(model: Segmentor, run: Run) -> str | None:
    torch.manual_seed(1)
    images, mask = torch.rand(2, 3, 32, 48), torch.randint(0, 4, (2, 32, 48), dtype=torch.uint8)
    return first_bad_layer(
        model, images, lambda scores: segmentation_loss(scores, mask, run.params.train, align_corners=True)
    )


class Spoilt(torch.autograd.Function):
    """Identity whose gradient is infinite."""

    @staticmethod
    def forward(_context: Any, feature: Tensor) -> Tensor:
        return feature.clone()

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * float("inf")


def test_a_sound_iteration_has_no_bad_layer(model: Segmentor, run: Run) -> None:
    assert bad_layer(model, run) is None


@pytest.mark.parametrize("twice", [False, True], ids=["plain", "recomputed"])
def test_the_first_bad_layer_is_named(model: Segmentor, run: Run, twice: bool) -> None:
    if twice:
        recompute_blocks(model.backbone)
    weights = copy.deepcopy(model)
    with torch.no_grad():
        weights.backbone.last.residual[1].bias[0] = float("nan")
    assert bad_layer(weights, run) == "the weights of backbone.last.residual.1.bias"

    output = copy.deepcopy(model)
    output.backbone.last.residual[3].register_forward_hook(lambda _module, _inputs, found: found * float("inf"))
    assert bad_layer(output, run) == "the output of backbone.last.residual.3"

    gradient = copy.deepcopy(model)
    gradient.backbone.last.residual[3].register_forward_hook(lambda _module, _inputs, found: Spoilt.apply(found))
    found = bad_layer(gradient, run)
    # what is spoilt leaves the convolution's hook, so its own output is the first whose gradient is
    assert found in ("the gradient at backbone.last.residual.3", "the gradient at backbone.last.residual.2")


def test_a_loss_that_is_bad_by_itself_is_told_apart(model: Segmentor, run: Run) -> None:
    def loss(scores: Any) -> Any:
        mask = torch.zeros(2, 32, 48, dtype=torch.uint8)
        losses = segmentation_loss(scores, mask, run.params.train, align_corners=True)
        return losses._replace(total=losses.total * float("inf"))

    found = first_bad_layer(model, torch.rand(2, 3, 32, 48), loss)
    assert found == "the loss itself, while every layer's output is finite"


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_message_names_iteration_samples_and_layer(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    def spoil(state: loop.State, batch: Any, params: Any, iteration: int, *rest: Any) -> Any:
        if iteration == 4:
            state.model.head.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * float("nan"),))
        ids.append(batch.ids)
        return real(state, batch, params, iteration, *rest)

    ids: list[tuple[str, ...]] = []
    real = loop.train_one_iteration
    monkeypatch.setattr(loop, "train_one_iteration", spoil)
    run = make_run(train={"precision": precision, "micro_batches": 2, "checkpoint_every": 2})
    with pytest.raises(TrainingDiverged) as raised:
        train(run)
    message = str(raised.value)
    assert message.startswith("iteration 5: the loss is nan (main nan, auxiliary ")
    assert f"on samples {', '.join(ids[-1])}; not finite first: the output of head." in message
    assert "Checkpoints from before it stay" in message
    kept = sorted(path.name for path in paths.checkpoint_dir(run.name).glob("*.checkpoint"))
    assert kept == ["000000002.checkpoint", "000000004.checkpoint"]


def measured(model: Segmentor, images: Tensor) -> int:
    """Bytes that a real forward pass saves, the parameters left out."""
    saved: dict[int, Tensor] = {}
    own = {id(value) for value in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            saved[id(tensor)] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images, with_aux=True, full_size=False)
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in saved.values()}.values())


@pytest.mark.parametrize("twice", [False, True], ids=["plain", "recomputed"])
def test_memory_is_estimated_as_measured(make_run: Callable[..., Run], model: Segmentor, run: Run, twice: bool) -> None:
    if twice:
        recompute_blocks(model.backbone)
    steady, activations = memory_needed(model, run.params.train, 4)
    size = sum(value.numel() * 4 for value in model.parameters())
    assert steady == 3 * size
    assert memory_needed(model, make_run(train={"optimiser": "adamw"}).params.train, 4)[0] == 4 * size
    found = measured(model, torch.rand(4, 3, *run.params.train.crop_size))
    assert found == pytest.approx(activations, rel=0.1)
    assert memory_needed(model, run.params.train, 8)[1] == pytest.approx(2 * activations, rel=0.05)
    assert all(value.device.type == "cpu" for value in model.state_dict().values())


def test_computing_blocks_twice_is_estimated_to_take_less(model: Segmentor, run: Run) -> None:
    before = memory_needed(model, run.params.train, 4)[1]
    recompute_blocks(model.backbone)
    assert memory_needed(model, run.params.train, 4)[1] < before


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no more"), RuntimeError("can't allocate memory: x")])
def test_out_of_memory_says_what_to_lower(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(state: loop.State, *rest: Any) -> Any:
        if state.iteration == 2:
            raise error
        return real(state, *rest)

    real = loop.train_one_iteration
    monkeypatch.setattr(loop, "train_one_iteration", fail)
    run = make_run(train={"micro_batches": 2, "activation_checkpointing": True})
    with pytest.raises(
        GaldError,
        match=r"mini/camvid/none-seed0: memory ran out in iteration 3: it needs some 0\.0 GiB for weights, gradients "
        r"and optimiser, and 0\.0 GiB for the features of 2 crops of 32x48 pixels; raise train\.micro_batches "
        r"\(now 2\), use more devices, or lower train\.crop_size or train\.batch_size; with other params .* afresh",
    ):
        train(run)


def test_a_single_value_that_a_norm_of_the_users_own_network_sees_is_said_without_a_traceback(
    make_run: Callable[..., Run],
) -> None:
    """The double graph convolution halves small maps down to one position, which the params do not tell."""
    run = make_run(model={"aggregation": {"name": "dual_gcn"}}, train={"batch_size": 1, "crop_size": [32, 32]})
    with pytest.raises(
        GaldError,
        match=r"none-seed0: batch norm sees a single value a channel, of 1 crops of 32x32 pixels at once: raise "
        r"train\.batch_size, .*'frozen'",
    ):
        train(run)


class OnGpusOnly(nn.BatchNorm2d):
    """Refuses what synchronised norms refuse."""

    def forward(self, feature: Tensor) -> Tensor:
        raise ValueError("SyncBatchNorm expected input tensor to be on GPU")


def test_an_estimate_that_fails_does_not_hide_that_memory_ran_out(model: Segmentor, run: Run) -> None:
    model.backbone.stem[1] = OnGpusOnly(8)
    text = what_to_lower(model, run.params.train, 4)
    assert text.startswith("its features of 4 crops of 32x48 pixels do not fit; raise train.micro_batches (now 1)")
    assert "set train.activation_checkpointing to true" in text


def test_an_estimate_for_which_no_memory_is_left_does_not_hide_it_either(
    model: Segmentor, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(faults, "memory_needed", fail)
    error = told(RuntimeError("can't allocate memory: x"), 7, model, run.params.train, 4)
    assert str(error).startswith("memory ran out in iteration 7: its features of 4 crops of 32x48 pixels do not fit; ")


def test_synchronised_norms_are_estimated_like_others(
    model: Segmentor, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = memory_needed(model, run.params.train, 4)
    synchronised: Segmentor = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert memory_needed(synchronised, run.params.train, 4)[1] == pytest.approx(expected[1], rel=0.05)
    assert isinstance(synchronised.backbone.stem[1], nn.SyncBatchNorm)
    assert synchronised.backbone.stem[1].training


@pytest.mark.slow
def test_what_norms_compute_again_is_not_counted(make_run: Callable[..., Run]) -> None:
    """Against the most memory that a process took for a step of a ResNet-50, in which 40 % are computed again."""
    net = {**NETS["gald_res50"].model.model_dump(mode="json"), "channels": 16, "distribution": {"name": "none"}}
    params = make_run(train={"crop_size": [193, 193]}).params.train
    model = build_segmentor(ModelParams.model_validate(net), 19)
    estimate = memory_needed(model, params, 2)[1]
    peak = peak_bytes(Work("gald.bench.step:training_step", ("ours", 2, 193, net)), threads=1)
    assert estimate < peak < 1.5 * estimate
    kept = memory_needed(model, params.model_copy(update={"compile": True}), 2)[1]
    assert kept > peak  # so that the estimate would be too large if all were counted
    assert _recompute.recomputes(torch.zeros(1 << 19, requires_grad=True))
