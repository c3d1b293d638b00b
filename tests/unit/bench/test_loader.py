from pathlib import Path

import numpy as np
import pytest

from gald import paths
from gald.bench import _scenes, loader
from gald.bench._scenes import CITYSCAPES, Scenes, data_in
from gald.datasets._reader import PreparedSplit

PARAMS = Path(__file__).parents[3] / "params"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenes:
    """Scenes that take a moment, in a repository of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "PARAMS", PARAMS)
    monkeypatch.setattr(loader, "_ROUNDS", 1)
    monkeypatch.setattr(loader, "_CROPS", {"cityscapes": (64, 64)})
    monkeypatch.setattr(loader, "_BATCHES_OF_WORKERS", {"files": 1, "packed": 1})
    scenes = Scenes("cityscapes", (128, 192), 19, ".png", 1.0, 8)
    monkeypatch.setattr(loader, "CITYSCAPES", scenes)
    return scenes


def test_every_way_makes_batches_and_none_touches_the_users_data(small: Scenes) -> None:
    before = paths.DATA_ROOT
    with data_in(paths.STATE / "bench"):
        compared, workers = loader._compared(small), loader._workers(small)
    assert paths.DATA_ROOT == before
    assert not Path("data").exists()
    lines = [line for line in compared.splitlines() if line.startswith("| ours, ")]
    assert [line.split(" | ")[0] for line in lines] == [
        f"| ours, {store} {kind}" for store in ("files", "packed") for kind in ("uint8", "float")
    ]
    assert all(line.endswith(("yes |", "NO |")) for line in lines)
    assert workers.count("| packed, ") == workers.count("| files, ") == 2


def test_scenes_are_drawn_once_and_read_from_both_stores(small: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    with data_in(paths.STATE / "bench"):
        folder = small.write()
        monkeypatch.setattr(_scenes.Scenes, "draw", None)  # what is there is not drawn again
        assert small.write() == folder
        files, packed = (PreparedSplit(folder, ["train"], store=store) for store in ("files", "packed"))
        assert packed.packed
        for index in range(len(files)):
            np.testing.assert_array_equal(files.verified(index).image, packed.verified(index).image)
    monkeypatch.undo()


@pytest.mark.slow
def test_a_scene_of_cityscapes_takes_as_many_bytes_as_the_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = Scenes(CITYSCAPES.name, CITYSCAPES.size, CITYSCAPES.classes, ".png", CITYSCAPES.noise, 2)
    with data_in(tmp_path):
        assert 2.4 < scenes.megabytes(scenes.write()) < 2.6
