"""What holds for every test."""

import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def _signals_as_at_a_terminal() -> None:
    """A suite that was started in the background ignores interrupts and hang-ups, and so would all that it starts."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
