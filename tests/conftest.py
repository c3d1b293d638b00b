"""What holds for every test."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# What a user or a cluster has set for work of its own is none of the tests' business; read when `gald` is imported.
for _name in ("GALD_DATA", "GALD_OFFLINE", "GALD_PARENT", "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
    os.environ.pop(_name, None)

from gald.tracking import announced  # noqa: E402 - see above

os.environ[announced.SWITCH] = "0"  # also for what tests start: no training of a test is followed unless the test asks
for _name in ("NO_PROXY", "no_proxy"):  # servers of tests are on this machine, wherever others are reached through
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "127.0.0.1,localhost")))


def _takes_files(folder: str) -> bool:
    try:
        path = Path(folder).expanduser()
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a name has no home
        return False
    return os.access(path, os.W_OK)


_scratch = Path(tempfile.mkdtemp(prefix="gald-tests-"))
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_scratch / "inductor")  # what lies elsewhere may be of another processor
# A container may run under a number without name or home, where neither Snakemake nor MLflow starts.
os.environ.setdefault("USER", "tests")
if not _takes_files("~/.cache"):
    os.environ["HOME"] = str(_scratch)


def pytest_unconfigure() -> None:
    shutil.rmtree(_scratch, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _signals_as_at_a_terminal() -> None:
    """A suite that was started in the background ignores interrupts and hang-ups, and so would all that it starts."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
