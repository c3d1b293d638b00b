import pytest
import torch

from gald.bench import loss
from gald.bench.loss import _Case

CASE = _Case("small", 1, 3, (4, 5), (16, 20))


@pytest.mark.parametrize("hard", [None, [0.7, 50]])
def test_both_works_do_the_same(hard):
    found, expected = (make(list(CASE), hard)()[0] for make in (loss.ours, loss.torchs))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_both_selections_do_the_same():
    for kept in (1, 700, 1000):
        assert torch.equal(loss.selection(1000, kept)(), loss.full_sort(1000, kept)())


def test_the_report_holds_each_case_to_its_target(monkeypatch):
    monkeypatch.setattr(loss, "_CASES", (CASE, CASE))
    monkeypatch.setattr(loss, "_SELECTIONS", ((1000, 10),))
    monkeypatch.setattr(loss, "seconds", lambda works, threads, rounds: [(0.001,), (0.002,)])
    peaks = iter([1 << 20, 8 << 20, 4 << 20, 8 << 20])
    monkeypatch.setattr(loss, "peak_bytes", lambda work, threads: next(peaks))
    report = loss.bench()
    assert report.count("| 1.00 | 2.00 | 2.00 times as fast | 1 | yes |") == 2 * (2 + 1 + 1)
    assert "| 1.0 | 8.0 | 0.125 | 0.25 | yes |" in report
    assert "| 4.0 | 8.0 | 0.500 | 0.25 | NO |" in report
    assert "3 classes, 1 images, 5x4 to 20x16" in report


@pytest.mark.slow
def test_processes_of_their_own_find_the_works(monkeypatch):
    monkeypatch.setattr(loss, "_CASES", (CASE, CASE))
    monkeypatch.setattr(loss, "_SELECTIONS", ((1000, 10),))
    monkeypatch.setattr(loss, "_ROUNDS", 1)
    report = loss.bench()
    assert report.count("yes |") + report.count("NO |") == 10
