"""Which samples batch norm takes its statistics from while a network trains."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gald.errors import GaldError
from gald.models.segmentor import Segmentor
from gald.params import RunParams, TrainParams, one_value_of_a_sample
from gald.train.parallel import World


def refuse_lone_samples(params: RunParams, world: World) -> None:
    """Refuse what the number of processes leaves too few samples for; of one process the params tell already.

    Raises
    ------
    GaldError
        Batch norm would see a single value a channel somewhere.
    """
    train, what = params.train, one_value_of_a_sample(params)
    if what is None or train.batch_norm != "local" or train.batch_size > world.size * train.micro_batches:
        return
    raise GaldError(
        f"train.batch_size {train.batch_size} gives each of {world.size} processes one sample at once, and batch norm "
        f"cannot train on {what}: start fewer processes, lower train.micro_batches (now {train.micro_batches}), or set "
        "train.batch_norm to 'sync', which needs GPUs, or 'frozen'"
    )


def synchronised(model: Segmentor, world: World, params: TrainParams) -> Segmentor:
    """Let batch norm see the samples of all processes, where that is asked for and there are several."""
    if params.batch_norm != "sync" or world.size == 1:
        return model
    synced: Segmentor = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return synced


def training_mode(model: Segmentor, params: TrainParams) -> None:
    """Set a network up to train; frozen norms keep the statistics they were loaded with, their affine part learns."""
    model.train()
    if params.batch_norm == "frozen":
        for part in model.modules():
            if isinstance(part, _BatchNorm):
                part.eval()


def batch_norm_sees(model: Segmentor, params: TrainParams, world: World) -> str:
    """Say what batch norm's statistics are taken from, for example ``4 samples``."""
    if not any(isinstance(part, _BatchNorm) for part in model.modules()):
        return "no batch norm in this network"
    if params.batch_norm == "frozen":
        return "frozen statistics"
    samples = params.batch_size // (world.size * params.micro_batches)
    if params.batch_norm == "sync":
        samples *= world.size
    return f"{samples} samples"
