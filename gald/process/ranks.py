"""Which of several processes this is, as torchrun says it in the environment; alone without it."""

from __future__ import annotations

import os
from typing import NamedTuple

from gald.errors import ParamsError

_NAMES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


class Ranks(NamedTuple):
    """Which process this is, from 0; how many there are; and which of its machine's it is."""

    rank: int
    size: int
    local: int


def ranks() -> Ranks:
    """Read them.

    Raises
    ------
    ParamsError
        What torchrun sets is there, but is not what torchrun sets.
    """
    try:
        rank, size, local = (int(os.environ.get(name, default)) for name, default in _NAMES)
    except ValueError as error:
        raise ParamsError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers ({error}); unset them") from None
    if not 0 <= rank < size or local < 0:
        raise ParamsError(
            f"RANK is {rank}, WORLD_SIZE {size} and LOCAL_RANK {local}; start with torchrun, or unset all of them"
        )
    return Ranks(rank, size, local)
