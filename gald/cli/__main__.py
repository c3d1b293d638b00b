"""`python -m gald.cli`, for where no script is installed, and what torchrun starts."""

import os
import sys
import traceback

from gald.cli import main


def run() -> int:
    """Run one verb; one of several processes that failed ends here and now, its message said.

    On its way out of Python it would wait in NCCL for the others, which wait for it, and torchrun would never know.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return main()
    try:
        status = main()
    except Exception:
        traceback.print_exc()
        status = 1
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(run())
