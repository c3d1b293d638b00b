import logging

import pytest

from gald.prepare import progress


def test_it_tells_every_few_seconds(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    caplog.set_level(logging.INFO)
    told = progress.Progress("camvid", {"train": 50, "test": 10}, {"train": 20})
    for _ in range(30):  # two a second
        clock[0] += 0.5
        told.count("train")
    assert caplog.messages == [
        "camvid train: 30 of 50, 2.0 images/s, 10 s left",
        "camvid train: 40 of 50, 2.0 images/s, 5 s left",
        "camvid train: 50 of 50, 2.0 images/s, 0 s left",
    ]
    caplog.clear()
    for _ in range(2):
        clock[0] += 4.0
        told.count("test")
    assert caplog.messages == ["camvid test: 2 of 10, 1.4 images/s, 6 s left"]
