"""The benchmark of evaluation: all expressions count the same, and the report holds each to its target."""

import sys
from pathlib import Path

import numpy as np
import pytest

from gald.bench import _evaluate_counting, evaluate
from gald.bench._evaluate_counting import (
    details,
    numpy_masked,
    numpy_whole,
    official_reading,
    our_evaluation,
    ours,
    torch_bincount,
    torchvision,
)
from gald.bench._evaluate_pairs import drawn_pair, write_pairs
from gald.errors import GaldError
from gald.metrics import confusion_matrix, scores
from tests.optional import need

SIZE = (60, 90)


def test_pairs_are_maps_of_regions_with_mistakes_at_boundaries() -> None:
    truth, prediction = drawn_pair(19, 0)
    known = truth != 255
    assert known.mean() == pytest.approx(0.95, abs=0.01)
    assert truth[known].max() < 19
    assert prediction.max() < 19
    assert 0.6 < (truth == prediction)[known].mean() < 0.95
    assert (truth[:, 1:] != truth[:, :-1]).mean() < 0.1
    np.testing.assert_array_equal(drawn_pair(19, 0)[0], truth)


@pytest.mark.parametrize("num_classes", [19, 171])
def test_all_expressions_count_the_same(num_classes: int) -> None:
    expected = ours(num_classes, list(SIZE))()
    for maker in (torchvision, numpy_masked, numpy_whole, torch_bincount):
        np.testing.assert_array_equal(maker(num_classes, list(SIZE))(), expected)
    np.testing.assert_array_equal(details(num_classes, list(SIZE))()["rings"].sum(axis=0), expected)


def test_written_pairs_are_read_counted_and_scored(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2, SIZE)
    expected = scores(confusion_matrix(*drawn_pair(19, 0, SIZE), 19) + confusion_matrix(*drawn_pair(19, 1, SIZE), 19))
    for prepared in (False, True):
        found = our_evaluation(str(tmp_path), 2, prepared)()
        np.testing.assert_array_equal(found.iou, expected.iou)
    assert official_reading(str(tmp_path), 2)() == 4 * SIZE[0] * SIZE[1]


def test_the_report_holds_each_case_to_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_evaluate_counting, "SIZE", SIZE)
    monkeypatch.setattr(_evaluate_counting, "_PAIRS", 1)
    monkeypatch.setattr(_evaluate_counting, "find_spec", lambda name: None)
    times = (0.002, 0.008, 0.0029, 0.0027, 0.001)
    monkeypatch.setattr(
        _evaluate_counting,
        "seconds",
        lambda works, threads, rounds: [(one,) for one in (times if len(works) > 1 else (0.251,))],
    )
    report = _evaluate_counting.counting()
    assert report.count("| 2.00 | 8.00 | 4.00 times as fast | 4 | yes |") == 6
    assert report.count("| 2.00 | 2.90 | 1.45 times as fast | 1.4 | yes |") == 6
    assert report.count("| 2.00 | 2.70 | 1.35 times as fast | 1.4 | NO |") == 6
    assert report.count("| 2.00 | 1.00 | 0.50 times as fast | 1 | NO |") == 6
    assert report.count("| 251 | 250 | NO |") == 6
    assert "not measured: cityscapesscripts is not installed" in report


def test_other_counts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_evaluate_counting, "SIZE", SIZE)
    monkeypatch.setattr(_evaluate_counting, "confusion_matrix", lambda *pair: confusion_matrix(*pair) + 1)
    with pytest.raises(GaldError, match="count a pair of 19 classes differently"):
        _evaluate_counting.counting()


@pytest.mark.slow
def test_processes_of_their_own_find_the_works(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SIZE", SIZE), ("_PAIRS", 2), ("_ROUNDS", 1), ("_PAIR_ROUNDS", 1), ("_CLASSES", (19,))):
        monkeypatch.setattr(_evaluate_counting, name, value)
    monkeypatch.setattr(evaluate, "sliding", lambda: "sliding\n")
    monkeypatch.setattr(evaluate, "bootstrap", lambda: "bootstrap\n")
    report = evaluate.bench()
    assert report.endswith("\n\nsliding\n\nbootstrap\n")
    need("cityscapesscripts")
    assert sum(report.count(f"{met} |") for met in ("yes", "NO", "not measured")) == 2 * (4 + 1 + 4)
    assert "pyquaternion" not in sys.modules
