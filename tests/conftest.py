"""What holds for every test."""

import os
import signal

import pytest

from gald import follow

os.environ[follow.SWITCH] = "0"  # also for what tests start: no training of a test is followed unless the test asks


@pytest.fixture(autouse=True, scope="session")
def _signals_as_at_a_terminal() -> None:
    """A suite that was started in the background ignores interrupts and hang-ups, and so would all that it starts."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
