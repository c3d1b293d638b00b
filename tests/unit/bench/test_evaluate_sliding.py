import numpy as np
import pytest

from gald.bench import _evaluate_sliding
from gald.bench._evaluate_sliding import PROTOCOLS, _Case
from gald.bench._memory import Work, peak_bytes
from gald.inference import peak_bytes as stated_bytes

CASE = _Case(5, (48, 72))


def test_both_works_of_a_whole_image_do_the_same():
    found, expected = _evaluate_sliding.ours(list(CASE), "whole")(), _evaluate_sliding.plain(list(CASE))()
    assert (found == expected).mean() > 0.999  # a tie may fall to another class
    assert len(np.unique(found)) == 5


@pytest.mark.parametrize("size", [(48, 72), (24, 30)])
def test_both_works_of_tiles_do_the_same(monkeypatch, size):
    window = PROTOCOLS["sliding"].model_copy(update={"window": (25, 25)})
    monkeypatch.setitem(PROTOCOLS, "sliding", window)
    found = _evaluate_sliding.ours([5, size], "sliding")()
    expected = _evaluate_sliding.authors([5, size])()
    assert (found == expected).mean() > 0.999


def test_the_report_holds_each_case_to_its_target(monkeypatch):
    monkeypatch.setattr(_evaluate_sliding, "seconds", lambda works, threads, rounds: [(0.001,), (0.004,)])
    monkeypatch.setattr(_evaluate_sliding, "peak_bytes", lambda work, threads: 500_000_000 - 200_000_000 * threads)
    report = _evaluate_sliding.sliding()
    assert report.count("| 1 | 4 | 4.00 times as fast | 5 | NO |") == 2
    assert report.count("| 1 | 4 | 4.00 times as fast | 1 | yes |") == 4
    assert "| whole, 171 classes, 2048x1024 | 300 | " in report
    assert report.count("| 400 | yes |") == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "size", "bound"),
    [
        ("whole", (1024, 2048), 150e6),
        ("sliding", (1024, 2048), 150e6),
        ("multi-scale", (512, 1024), 150e6),
        ("sliding multi-scale", (1024, 2048), 400e6),
    ],
)
def test_a_prediction_takes_what_is_stated_and_little_enough(protocol, size, bound):
    found = peak_bytes(Work("gald.bench._evaluate_sliding:ours", ([171, list(size)], protocol)), threads=1)
    stated = stated_bytes(171, size, size, 8, PROTOCOLS[protocol])
    assert found < stated + 16e6  # what the mathematics library keeps for itself
    assert found > stated / 2
    assert found < bound
    assert found < 4 * 171 * size[0] * size[1] / 2  # half of one image's scores at its size
