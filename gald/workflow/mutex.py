"""One build at a time in one folder, and no lock that outlives the process which took it.

Snakemake's own lock is a file that stays behind when Snakemake is killed, and from then on every call asks for
``--unlock``. The kernel drops our lock with its holder: whoever finds it free knows that no build is alive, and may
remove what a dead one left behind.
"""

from __future__ import annotations

import fcntl
import shutil
from contextlib import ExitStack
from pathlib import Path

from gald import paths
from gald.process import locking

_NAME = "snakemake"
_LEFTOVERS = Path(".snakemake/locks")
_LOOK_S = 2.0  # other calls hold the lock for a moment, while they look
_held = ExitStack()  # closed by the end of the process, in whatever way it ends


def clear_leftovers() -> str | None:
    """Remove the locks of a dead Snakemake in this folder, unless a build is alive.

    Returns
    -------
    str or None
        Who is building, and what to do about it; None when nobody is.
    """
    path = paths.lock(_NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            # Shared, so that two calls that only look never take each other for a build.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            return (
                f"another Snakemake ({file.read().strip()}) is building in this folder: wait for it to end or stop it, "
                "then repeat the command. Looking is fine meanwhile: snakemake -n, gald status."
            )
        shutil.rmtree(_LEFTOVERS, ignore_errors=True)
    return None


def claim_build() -> None:
    """Become the one build of this folder until the process ends.

    Raises
    ------
    RunBusy
        Another build is alive; the message names its process.
    """
    _held.enter_context(locking.held(_NAME, wait_s=_LOOK_S))
