"""A prepared benchmark for trainings on a GPU."""

import os

from tests.unit.conftest import make_run, prepared

__all__ = ["make_run", "prepared"]

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first matrix product runs
