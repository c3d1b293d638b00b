"""Packages that tests compare with: where one is missing a test is skipped, but not where all of them must be."""

import os
from importlib.util import find_spec

import pytest


def need(name: str) -> None:
    """Skip the test where the package is not installed, or fail it where `GALD_CI` is 1."""
    if find_spec(name) is not None:
        return
    if os.environ.get("GALD_CI") == "1":
        pytest.fail(f"{name} is not installed, and the long tests compare with it")
    pytest.skip(f"{name} is not installed")
