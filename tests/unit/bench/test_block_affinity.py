"""The benchmark of the affinity: what it compares computes the same, and its report has every row and verdict."""

import torch

from gald.bench import _block_affinity
from gald.bench._block_affinity import Size, Textbook, affinity, ready
from gald.models.distribution import affinity as distribution


def test_the_textbook_computes_what_ours_does() -> None:
    ours, textbook = distribution.build(8, window=5), Textbook(8, 5)
    for name in ("query", "key"):
        getattr(textbook, name).load_state_dict(getattr(ours.affinity, name).state_dict())
    textbook.value.load_state_dict(ours.value.state_dict())
    x, g = torch.randn(2, 2, 8, 6, 7).unbind()
    torch.testing.assert_close(textbook(x, g), ours(x, g))


def test_every_formulation_runs_and_leaves_no_gradients() -> None:
    for what in ("ours", "unfold", "convolution"):
        ready(what, 3, (1, 8, 5, 6))()


def test_report_has_every_formulation_and_judges_by_the_ratios(monkeypatch) -> None:
    took = {"convolution": 1.0, "unfold": 4.0, "ours": 1.5}
    held = {"convolution": 200, "unfold": 1000, "ours": 150}
    monkeypatch.setattr(
        _block_affinity, "seconds", lambda works, threads, rounds: [(took[w.arguments[0]],) * rounds for w in works]
    )
    monkeypatch.setattr(_block_affinity, "peak_bytes", lambda work, threads: held[work.arguments[0]] << 20)
    report = affinity(Size(1, 8, 5, 6), threads=(1,), rounds=2)
    assert "forward and backward at (1, 8, 5, 6), queries and keys of 2 channels" in report
    assert "| 1 | unfold, textbook, 5x5 | 4.00 s | 1000 MiB |" in report
    assert "| 1 | time, 3x3, of the convolution's | 1.50 | 1 | NO |" in report
    assert "| 1 | time, 5x5, of the unfold's | 0.38 | 0.5 | yes |" in report
    assert report.count("of the unfold's | 0.15 | 0.15 | yes |") == 2
