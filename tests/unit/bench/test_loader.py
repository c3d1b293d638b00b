import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from gald import paths
from gald.bench import _scenes, loader
from gald.bench._scenes import CITYSCAPES, Scenes, data_in
from gald.datasets._reader import PreparedSplit
from gald.process.threads import torch_threads

PARAMS = Path(__file__).parents[3] / "params"


TITLES = [f"ours, {store} {kind}" for store in ("files", "packed") for kind in ("uint8", "float")]


def times_torchvision(report: str) -> dict[str, float]:
    """Ratios of the table, by what they are of."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in report.splitlines() if "| ours, " in line
    ]
    return {row[0]: float(row[3]) for row in rows}


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


def test_every_way_makes_batches_and_none_touches_the_users_data(
    small: Scenes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gald")
    before = paths.DATA_ROOT
    with data_in(paths.STATE / "bench"):
        compared, workers = loader._compared(small), loader._workers(small)
    assert paths.DATA_ROOT == before
    assert not Path("data").exists()
    lines = [line for line in compared.splitlines() if line.startswith("| ours, ")]
    assert list(times_torchvision(compared)) == TITLES
    assert all(line.endswith(("yes |", "NO |")) for line in lines)
    told = [message for message in caplog.messages if message.startswith("bench loader: ")]
    assert "bench loader: cityscapes, 6 ways in turn, 1 rounds" in told
    assert told[-2:] == [
        f"bench loader: cityscapes, one loader thread and two, {store}" for store in ("files", "packed")
    ]
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


def test_scenes_of_an_earlier_version_are_drawn_again(small: Scenes) -> None:
    with data_in(paths.STATE / "bench"):
        manifest = small.write() / "manifest.json"
        whole = manifest.read_text()
        for damaged in (whole.replace('"classes"', '"names"'), whole.replace('"train.csv"', '"former.csv"'), "{"):
            manifest.write_text(damaged)
            small.write()
            assert manifest.read_text() == whole


@pytest.mark.slow
def test_reading_has_not_collapsed(small: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fraction of what is measured on a quiet machine, 41 and 1.7 times: all ways of a round are timed in turn."""
    monkeypatch.setattr(loader, "_ROUNDS", 5)
    monkeypatch.setattr(loader, "_CROPS", {"cityscapes": (769, 769)})
    with torch_threads(1), data_in(paths.STATE / "bench"):
        ratios = times_torchvision(loader._compared(dataclasses.replace(CITYSCAPES, count=4)))
    assert ratios["ours, packed uint8"] > 8
    assert ratios["ours, files uint8"] > 1.2


@pytest.mark.slow
def test_a_scene_of_cityscapes_takes_as_many_bytes_as_the_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = Scenes(CITYSCAPES.name, CITYSCAPES.size, CITYSCAPES.classes, ".png", CITYSCAPES.noise, 2)
    with data_in(tmp_path):
        assert 2.4 < scenes.megabytes(scenes.write()) < 2.6
