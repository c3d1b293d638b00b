import logging
from pathlib import Path

import pytest
import torch

from gald.errors import GaldError
from gald.train import aside, checkpoint
from gald.train.checkpoint import Checkpoint

IDENTITY = {"params": "p", "data": "d"}


def state(iteration: int, **identity: str) -> Checkpoint:
    return Checkpoint(
        iteration=iteration,
        identity=IDENTITY | identity,
        origins=[{"code": "c"}],
        progress={"interval": [2, 0.1 + 0.2, 1 / 3, 0.0], "scale": {}, "best": {"iteration": iteration}},
        tensors={
            "model": {"weight": torch.arange(6.0).view(2, 3) + iteration, "counter": torch.tensor(iteration)},
            "optimiser": {"momentum/weight": torch.full((2, 3), 0.1)},
        },
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(3))
    found = checkpoint.load(tmp_path, IDENTITY)
    assert found is not None
    assert (found.iteration, found.progress, found.origins) == (3, state(3).progress, [{"code": "c"}])
    assert found.progress["interval"] == [2, 0.1 + 0.2, 1 / 3, 0.0]
    assert {kind: sorted(named) for kind, named in found.tensors.items()} == {
        "model": ["counter", "weight"],
        "optimiser": ["momentum/weight"],
    }
    assert torch.equal(found.tensors["model"]["weight"], torch.arange(6.0).view(2, 3) + 3)
    assert found.tensors["model"]["counter"].item() == 3
    assert torch.equal(found.tensors["optimiser"]["momentum/weight"], torch.full((2, 3), 0.1))


def test_the_best_iterations_are_those_of_the_checkpoints_that_are_there(tmp_path: Path) -> None:
    for iteration in (10, 20, 30):
        checkpoint.save(tmp_path, state(iteration))
    assert checkpoint.bests(tmp_path) == {20, 30}


def test_the_two_newest_stay(tmp_path: Path) -> None:
    for iteration in (10, 20, 30):
        checkpoint.save(tmp_path, state(iteration))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000020.checkpoint", "000000030.checkpoint"]


@pytest.mark.parametrize("damage", ["cut", "bit", "header", "empty"])
def test_a_damaged_one_is_named_and_the_one_before_taken(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint.save(tmp_path, state(10))
    checkpoint.save(tmp_path, state(20))
    newest = tmp_path / "000000020.checkpoint"
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        content = content[:-7]
    elif damage == "bit":
        content[-1] ^= 1
    elif damage == "header":
        content = content.replace(b'"iteration": 20', b'"iteration": 21')
    else:
        content = bytearray()
    newest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = checkpoint.load(tmp_path, IDENTITY)
    assert found is not None
    assert found.iteration == 10
    assert "000000020.checkpoint is damaged" in caplog.text


def cannot_be_read(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name in names:
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)


def test_one_that_a_disk_does_not_give_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for iteration in (10, 20):
        checkpoint.save(tmp_path, state(iteration))
    cannot_be_read(monkeypatch, "000000020.checkpoint")
    found = checkpoint.load(tmp_path, IDENTITY)
    assert found is not None
    assert found.iteration == 10
    assert "000000020.checkpoint cannot be read ([Errno 5]" in caplog.text


def test_where_none_can_be_read_nothing_starts_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts afresh removes all checkpoints, and these may be whole."""
    for iteration in (10, 20):
        checkpoint.save(tmp_path, state(iteration))
    cannot_be_read(monkeypatch, "000000010.checkpoint", "000000020.checkpoint")
    with pytest.raises(GaldError, match=r"no checkpoint can be read .*000000020\.checkpoint.* remove the folder"):
        checkpoint.load(tmp_path, IDENTITY)
    monkeypatch.undo()
    found = checkpoint.load(tmp_path, IDENTITY)
    assert found is not None
    assert found.iteration == 20


def test_nothing_is_left_of_a_training_whose_folder_is_a_link(tmp_path: Path) -> None:
    """Another disk may have more room; what is left would be taken for the next training's."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    checkpoint.save(folder, state(10))
    for name in ("history.jsonl", "best-000000010.safetensors", ".history.jsonl.x.part"):
        (folder / name).write_text("{}")
    checkpoint.clear(folder)
    assert list(elsewhere.iterdir()) == []
    checkpoint.save(folder, state(10))
    assert checkpoint.load(folder, IDENTITY) is not None


def test_nothing_is_left_of_a_training_not_even_its_folder(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "run", state(10))
    (tmp_path / "run/history.jsonl").write_text("{}")
    checkpoint.clear(tmp_path / "run")
    checkpoint.clear(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_params_are_never_resumed_and_never_silently(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint.save(tmp_path, state(10, params="other"))
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load(tmp_path, IDENTITY) is None
    assert "made with other params; starting afresh" in caplog.text


def places(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def iterations(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.checkpoint"))


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Checkpoint folder of a run, or a link to one on another disk."""
    if request.param == "link":
        (tmp_path / "disk").mkdir()
        (tmp_path / "disk/run").mkdir()
        (tmp_path / "run").symlink_to(tmp_path / "disk/run")
    return tmp_path / "run"


@pytest.mark.parametrize("folder", ["folder", "link"], indirect=True)
def test_what_was_put_aside_comes_back(folder: Path) -> None:
    other = IDENTITY | {"params": "other"}
    checkpoint.save(folder, state(10, params="other"))
    (folder / "history.jsonl").write_text("{}")
    aside.settle(folder, IDENTITY)
    assert iterations(folder) == []
    checkpoint.save(folder, state(20))
    beside = folder.resolve().parent
    assert len(places(beside)) == 2
    aside.settle(folder, IDENTITY)
    assert iterations(folder) == ["000000020"]
    aside.settle(folder, other)
    assert places(folder) == ["000000010.checkpoint", "history.jsonl"]
    assert len(places(beside)) == 2
    aside.settle(folder, IDENTITY)
    assert iterations(folder) == ["000000020"]
    aside.end(folder, other)
    assert iterations(folder) == ["000000020"], "of another training"
    assert len(places(beside)) == 2
    aside.end(folder, IDENTITY)
    assert places(beside) == ([] if folder.parent == beside else ["run"])
    assert not folder.is_dir() or places(folder) == []


def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path) -> None:
    """The former state has stepped aside, and what was aside is not back yet."""
    folder, other = tmp_path / "run", IDENTITY | {"data": "other"}
    checkpoint.save(folder, state(10, data="other"))
    aside.settle(folder, IDENTITY)
    checkpoint.save(folder, state(20))
    aside.settle(folder, other)
    folder.rename(aside._place(folder, other))
    (folder).mkdir()
    (folder / "history.jsonl").write_text("of a training that had no checkpoint yet")
    aside.settle(folder, IDENTITY)
    assert places(folder) == ["000000020.checkpoint"]


def test_of_several_that_were_put_aside_the_last_one_stays(tmp_path: Path) -> None:
    for index, params in enumerate(["first", "second", "third"]):
        aside.settle(tmp_path / "run", IDENTITY | {"params": params})
        checkpoint.save(tmp_path / "run", state(index, params=params))
    aside.settle(tmp_path / "run", IDENTITY | {"params": "third"})
    assert len(places(tmp_path)) == 2
    aside.settle(tmp_path / "run", IDENTITY | {"params": "first"})
    assert checkpoint.load(tmp_path / "run", IDENTITY | {"params": "first"}) is None
    aside.settle(tmp_path / "run", IDENTITY | {"params": "third"})
    assert iterations(tmp_path / "run") == ["000000002"]


@pytest.mark.parametrize("left", ["000000001.checkpoint", "history.jsonl"])
def test_a_kill_while_an_older_one_is_removed_does_not_make_it_the_last(tmp_path: Path, left: str) -> None:
    folder = tmp_path / "run"
    named = {params: IDENTITY | {"params": params} for params in ("first", "second", "third")}
    for index, identity in enumerate((named["first"], named["second"])):
        checkpoint.save(folder, state(index, **identity))
        checkpoint.save(folder, state(index + 1, **identity))
        (folder / "history.jsonl").write_text("{}")
        folder.rename(aside._place(folder, identity))
    older = aside._place(folder, named["first"])
    for path in list(older.iterdir()):  # which changes the time of the folder
        if path.name != left:
            path.unlink()
    aside.settle(folder, named["third"])
    assert not older.exists()
    aside.settle(folder, named["second"])
    assert iterations(folder) == ["000000001", "000000002"]


@pytest.mark.parametrize("ends", [False, True])
def test_a_kill_while_what_is_aside_is_removed_leaves_it_whole_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    folder = tmp_path / "run"
    named = {params: IDENTITY | {"params": params} for params in ("first", "second", "third")}
    for index, params in enumerate(("first", "second")):
        aside.settle(folder, named[params])
        checkpoint.save(folder, state(index, params=params))
        (folder / "history.jsonl").write_text(params)

    def killed(removed: Path, **_: object) -> None:
        for path in removed.glob("*.jsonl"):  # in whatever order the file system lists them
            path.unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(aside.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            aside.end(folder, named["second"]) if ends else aside.settle(folder, named["third"])
    aside.settle(folder, named["first"])
    assert not folder.exists()
    aside.settle(folder, named["second"])
    assert places(folder) == ["000000001.checkpoint", "history.jsonl"]
    aside.end(folder, named["second"])
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_header_does_not_put_a_trainings_own_state_aside(tmp_path: Path) -> None:
    for iteration in (10, 20):
        checkpoint.save(tmp_path / "run", state(iteration))
    newest = tmp_path / "run/000000020.checkpoint"
    newest.write_bytes(newest.read_bytes().replace(b'"params": "p"', b'"params": "q"'))
    aside.settle(tmp_path / "run", IDENTITY)
    found = checkpoint.load(tmp_path / "run", IDENTITY)
    assert found is not None
    assert found.iteration == 10


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "scale").write_text("notes")
    for folder in (tmp_path / "scale", tmp_path / "scale/run"):
        with pytest.raises(GaldError, match=r"scale is a file, where .* move it away"):
            aside.settle(folder, IDENTITY)
    checkpoint.save(tmp_path / "run", state(10))
    (tmp_path / "run/notes").mkdir()
    with pytest.raises(GaldError, match=r"run/notes is a folder that no training made; move it out of \S+run, "):
        checkpoint.clear(tmp_path / "run")
    assert checkpoint.load(tmp_path / "run", IDENTITY) is None


def test_rests_of_a_kill_while_writing_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".000000020.checkpoint.xyz.part").write_bytes(b"half")
    assert checkpoint.load(tmp_path, IDENTITY) is None
    assert list(tmp_path.iterdir()) == []
    assert checkpoint.load(tmp_path / "none", IDENTITY) is None
