import numpy as np
import pytest

from gald.bench import _evaluate_bootstrap as measured
from gald.metrics import scores


def test_both_works_resample_the_same_images():
    matrices = measured._confusions(30, 5, seed=1)
    counts = measured._counts(matrices)
    assert np.array_equal(counts[..., 1], measured._counts(measured._confusions(30, 5, seed=2))[..., 1])
    right, truth, predicted = counts.sum(axis=0).T
    assert np.array_equal(right / (truth + predicted - right), scores(matrices.sum(axis=0, dtype=np.int64)).iou)
    assert len(measured.loop(30, 5)()) == measured._LOOPED
    assert measured.ours(30, 5)().images == 30


@pytest.mark.parametrize(("taken", "met"), [(2.0, "yes"), (11.0, "NO")])
def test_the_report_says_what_was_extrapolated_and_what_was_reached(monkeypatch, taken, met):
    monkeypatch.setattr(measured, "seconds", lambda works, threads, rounds: [(taken,) * rounds, (0.9,) * rounds])
    monkeypatch.setattr(measured, "peak_bytes", lambda work, threads: 44 << 20)
    report = measured.bootstrap()
    assert report.count(f"| 10000 resamples by products of multiplicities | 1 | {taken:.2f} | 10 | {met} |") == 1
    assert report.count("extrapolated from 3") == 2
    assert "| 2 | 3000 | | |" in report  # 0.9 s for three
    assert "beyond the counts: 44 MiB" in report
