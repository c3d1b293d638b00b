"""Torch's own draws as a function of seed and iteration, so that no random state is ever saved."""

from __future__ import annotations

import numpy as np
import torch

_DROPOUT_STREAM = 2


def seed_dropout(seed: int, iteration: int, part: int = 0) -> None:
    """Seed what torch draws in the forward pass of one part of an iteration's batch.

    Parameters
    ----------
    seed, iteration : int
        Seed of the run, and iteration from 0.
    part : int
        Which of the parts that processes and micro-batches cut the batch into; each draws for itself.
    """
    words = np.random.SeedSequence((seed, _DROPOUT_STREAM, iteration, part)).generate_state(2)
    torch.default_generator.manual_seed(int(words[0]) << 31 ^ int(words[1]))
    if torch.cuda.is_available():
        torch.cuda.manual_seed(int(words[0]))
