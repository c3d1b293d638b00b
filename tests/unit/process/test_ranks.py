"""What torchrun says of processes, and what it cannot have said."""

from collections.abc import Callable

import pytest

from gald.errors import ParamsError
from gald.params import Run
from gald.process.ranks import Ranks, ranks
from gald.train.run import train
from gald.train.trial import limited


def test_alone_and_as_one_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks() == Ranks(rank=0, size=1, local=0)
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert ranks() == Ranks(rank=5, size=8, local=1)


@pytest.mark.parametrize(
    ("rank", "size", "said"),
    [
        ("first", "2", "RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers .*'first'.*; unset them"),
        ("0", "", "must be whole numbers"),
        ("0", "0", "RANK is 0, WORLD_SIZE 0 and LOCAL_RANK 0; start with torchrun, or unset all of them"),
        ("0", "-1", "WORLD_SIZE -1"),
        ("2", "2", "RANK is 2, WORLD_SIZE 2"),
    ],
)
def test_a_training_refuses_what_torchrun_cannot_have_said(
    rank: str, size: str, said: str, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ParamsError, match=said):
        train(make_run())
    with pytest.raises(ParamsError, match=said):
        limited(make_run(), 2)
