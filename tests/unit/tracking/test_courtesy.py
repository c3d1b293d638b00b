"""How the follower stays out of the way."""

import signal
import threading
import time

import pytest

from gald.tracking import _courtesy


def test_a_rest_is_a_hundred_times_what_was_taken_from_others(monkeypatch):
    looks = [
        (1.0, 0.0, 5),
        (1.1, 0.1, 9),  # alone on a core, but for the kernel itself
        (1.2, 9.0, 12),  # waited for an answer
        (1.3, 10.0, 23),
        (9.3, 90.0, 1022),
        (9.3, 91.0, 1022),
    ]
    looks = iter([_courtesy._Look(*look) for look in looks])
    monkeypatch.setattr(_courtesy.Courtesy, "_look", lambda _: next(looks))
    courtesy = _courtesy.Courtesy()
    assert [courtesy.due_s() for _ in range(5)] == [0.0, 0.0, pytest.approx(10.0), 60.0, 0.0]


def test_a_long_call_rests_again_and_again(monkeypatch):
    rests = []
    monkeypatch.setattr(_courtesy.Courtesy, "due_s", lambda _: rests.append(1) or 0.0)
    before = signal.getsignal(signal.SIGPROF)
    with _courtesy.resting():
        while len(rests) < 3:
            assert time.process_time() < 600
    assert signal.getsignal(signal.SIGPROF) is before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    elsewhere = threading.Thread(target=lambda: rests.clear() or _courtesy.resting().__enter__())
    elsewhere.start()
    elsewhere.join()
    assert not rests  # signals are the main thread's
