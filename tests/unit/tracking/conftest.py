"""A suite whose trainings may be shown."""

import pytest

from gald.tracking import announced
from tests.unit.tables.conftest import TABLE, write_params


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """Two runs without results, in an empty repository root; no training of theirs starts a follower by itself."""
    monkeypatch.chdir(tmp_path)
    # Absolute, since MLflow keeps one connection for each address and tests share the process.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv(announced.SWITCH, "1")
    monkeypatch.setattr(announced, "_start_follower", lambda: None)
    loaded = write_params(tmp_path, {"components": TABLE}, {"components": {"datasets": ["camvid"], "seeds": [0]}})
    return loaded


@pytest.fixture
def run(suite):
    return suite.runs[0]
