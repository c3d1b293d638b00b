import pytest
import results


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty repository root."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def suite(workplace):
    """Two rows on one benchmark, three seeds; GA at 60, 62, 67 and GA then LD at 62, 65, 71 percent."""
    uses = {"components": {"datasets": ["camvid"], "seeds": [0, 1, 2]}}
    loaded = results.write_params(workplace, {"components": results.TABLE}, uses)
    scores = {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)}
    for run in loaded.runs:
        results.write_run(run, scores[run.row][run.seed])
    return loaded
