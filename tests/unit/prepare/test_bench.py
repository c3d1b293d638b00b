import pytest

from gald.bench import prepare
from gald.datasets import names
from gald.datasets._native import MINIATURES


@pytest.mark.slow
def test_every_format_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, miniature in list(MINIATURES.items()):
        monkeypatch.setitem(MINIATURES, name, miniature._replace(splits=dict.fromkeys(miniature.splits, 2)))
    monkeypatch.setattr(prepare, "_SAMPLES", 10)
    monkeypatch.setattr(prepare, "_RUNS", 1)
    first, empty, _, _, *rows = prepare.bench().splitlines()
    assert "10 samples" in first
    assert empty == ""
    assert [row.split()[1] for row in rows] == list(names())
    for row in rows:
        one, two, ratio = (float(cell) for cell in row.split("|")[3:6])
        assert (two - 0.5) / (one + 0.5) - 0.005 <= ratio <= (two + 0.5) / max(one - 0.5, 1e-9) + 0.005  # as rounded
