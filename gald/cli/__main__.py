"""`python -m gald.cli`, for where no script is installed."""

import sys

from gald.cli import main

if __name__ == "__main__":
    sys.exit(main())
