"""What went wrong in an iteration: where a value first was not finite, or what memory it would have taken."""

from __future__ import annotations

import copy
import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from gald.errors import GaldError
from gald.losses import Losses
from gald.models import _recompute
from gald.models.segmentor import Segmentor, SegmentorOutput
from gald.params import TrainParams
from gald.process.memory import give_back, is_out_of_memory
from gald.train.aside import AFRESH
from gald.train.planned import size

_COMPILERS = ("torch._dynamo", "torch._inductor")  # where errors of `torch.compile` are from
_LONE_VALUE = "Expected more than 1 value per channel"  # as torch says it
Loss = Callable[[SegmentorOutput], Losses]
NOWHERE = "nothing the second time, so that the fault is not in the values but in how they are computed"


def first_bad_layer(
    model: Segmentor, images: Tensor, loss: Loss, anywhere: Callable[[bool], bool] = bool
) -> str | None:
    """Compute an iteration once more and name the first layer with a value that is not finite.

    Parameters
    ----------
    model : Segmentor
        Network as it was before the update; its statistics change, so it must not be kept afterwards.
    images : Tensor
        float32 (N, 3, H, W).
    loss : callable
        Logits to losses, of which the total is differentiated.
    anywhere : callable
        Whether a condition holds in any of the processes that look together. Either all go backwards or none, since
        synchronised norms wait for each other on that way too.

    Returns
    -------
    str or None
        What is not finite first: a parameter, the output of a layer, the loss, or a layer's gradient. None: nothing.
    """
    for name, parameter in model.named_parameters():  # the same in every process
        if not parameter.isfinite().all():
            return f"the weights of {name}"
    found: list[str] = []
    with _watched_outputs(model, found):
        total = loss(model(images, with_aux=model.aux_head is not None, full_size=False)).total
        of_loss = [] if math.isfinite(total.item()) else ["the loss itself, while every layer's output is finite"]
        forwards = [*(f"the output of {name}" for name in found), *of_loss]
        if anywhere(bool(forwards)):
            return next(iter(forwards), None)
        for parameter in model.parameters():
            parameter.grad = None
        torch.autograd.backward(total)
    return f"the gradient at {found[0]}" if found else _bad_gradient(model)


def _bad_gradient(model: nn.Module) -> str | None:
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of {name}"
    return None


@contextmanager
def _watched_outputs(model: nn.Module, found: list[str]) -> Iterator[None]:
    """Note, in the order they are computed, the layers whose output or output's gradient is not finite."""

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            if not output.isfinite().all():
                found.append(name)
            if output.requires_grad:
                output.register_hook(lambda grad: None if grad.isfinite().all() else found.append(name))  # type: ignore[no-untyped-call]

        return look

    leaves = [(name, part) for name, part in model.named_modules() if not any(part.children())]
    handles = [part.register_forward_hook(watch(name)) for name, part in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def memory_needed(model: Segmentor, params: TrainParams, samples: int) -> tuple[int, int]:
    """Estimate what an iteration takes, without taking it.

    Shapes are followed through a copy of the network that holds no numbers, and what its layers keep for the backward
    pass is added up, in float32. The loss, gradients of features and a convolution's workspace come on top: the
    measured peak of a ResNet-50's steps on a CPU was 1.3 to 1.4 times the sum.

    Parameters
    ----------
    model : Segmentor
        Network to train.
    params : TrainParams
        `crop_size` and the optimiser are used.
    samples : int
        Samples that go through the network at once.

    Returns
    -------
    tuple of int
        Bytes of weights, gradients and what the optimiser remembers; bytes of what the backward pass needs.
    """
    weights = sum(parameter.nbytes for parameter in model.parameters())
    steady = weights * (3 if params.optimiser == "sgd" else 4)
    empty = _without_numbers(model).train()
    for part in empty.modules():
        if isinstance(part, nn.SyncBatchNorm):
            part.eval()  # it keeps as much, and asks for GPUs only where it takes statistics
    kept: dict[int, tuple[Tensor, int]] = {}  # the tensors themselves, so that no two share an address in turn
    own = {id(parameter) for parameter in empty.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            kept[id(tensor)] = (tensor, tensor.nbytes)
        return tensor

    images = torch.empty(samples, 3, *params.crop_size, device="meta")
    with saved_tensors_hooks(keep, lambda tensor: tensor), _recomputed_while_counting(keep, params):
        empty(images, with_aux=empty.aux_head is not None, full_size=False)
    return steady, sum(size for _, size in kept.values())


@contextmanager
def _recomputed_while_counting(keep: Callable[[Tensor], Tensor], params: TrainParams) -> Iterator[None]:
    """Let norms compute features again as they do in a training, although these hold no numbers and are counted.

    What is inside of a block that is computed twice, or compiled, has its own say in what is kept.
    """

    def recomputes(feature: Tensor) -> bool:
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        large = feature.numel() >= _recompute.LEAST_ELEMENTS
        return large and not params.compile and hooks is not None and hooks[0] is keep

    real = _recompute.recomputes
    _recompute.recomputes = recomputes
    try:
        yield
    finally:
        _recompute.recomputes = real


def _without_numbers(model: Segmentor) -> Segmentor:
    """Copy a network without its numbers, for which there may be no memory."""
    memo: dict[int, Any] = {id(value): value.to("meta") for value in model.buffers()}
    for value in model.parameters():
        memo[id(value)] = nn.Parameter(value.detach().to("meta"), value.requires_grad)
    return copy.deepcopy(model, memo)


def told(error: Exception, iteration: int, model: Segmentor, params: TrainParams, samples: int) -> GaldError | None:
    """Tell what can be done about an error of an iteration.

    Parameters
    ----------
    error : Exception
        What ended it.
    iteration : int
        Which one, from 1.
    model, params, samples
        As `memory_needed` has them.

    Returns
    -------
    GaldError or None
        None where its traceback alone helps.
    """
    if is_out_of_memory(error):
        traceback.clear_frames(
            error.__traceback__
        )  # which hold the step's tensors, in whose place the estimate is made
        give_back()
        lower = what_to_lower(model, params, samples)
        return GaldError(f"memory ran out in iteration {iteration}: {lower}; {AFRESH}")
    if isinstance(error, ValueError) and _LONE_VALUE in str(error):
        return GaldError(
            f"batch norm sees a single value a channel, of {samples} crops of {size(params.crop_size)} pixels at once: "
            "raise train.batch_size, lower train.micro_batches, enlarge train.crop_size, or set train.batch_norm to "
            "'frozen' or, on several GPUs, 'sync'"
        )
    if params.compile and type(error).__module__.startswith(_COMPILERS):
        first = str(error).strip().partition("\n")[0]
        return GaldError(
            f"torch.compile failed ({first}); set train.compile to false, or give the compiler what it needs; {AFRESH}"
        )
    return None


def what_to_lower(model: Segmentor, params: TrainParams, samples: int) -> str:
    """Say what an iteration needs and what would make it need less."""
    try:
        steady, activations = memory_needed(model, params, samples)
        need = (
            f"it needs some {_gib(steady)} for weights, gradients and optimiser, and {_gib(activations)} for the "
            f"features of {samples} crops of {size(params.crop_size)} pixels"
        )
    except Exception:  # a module that cannot be followed without numbers, or no memory even for that: it was no advice
        need = f"its features of {samples} crops of {size(params.crop_size)} pixels do not fit"
    ways = [f"raise train.micro_batches (now {params.micro_batches})", "use more devices"]
    if params.precision == "float32" and params.device == "cuda":
        ways.append("set train.precision to bf16")
    if not params.activation_checkpointing:
        ways.append("set train.activation_checkpointing to true")
    return f"{need}; {', '.join(ways)}, or lower train.crop_size or train.batch_size"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
