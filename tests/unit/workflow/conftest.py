"""Places to plan a build from."""

import shutil

import pytest

from gald.workflow import graph
from tests.unit.workflow.plans import ROOT


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    graph.suite.cache_clear()
    graph._runs.cache_clear()


@pytest.fixture
def plan_folder(tmp_path, monkeypatch):
    """A copy of what a plan needs, so that a plan reads no results and leaves none."""
    for name in ("params", "workflow", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
