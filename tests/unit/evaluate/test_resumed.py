"""An evaluation that is killed, or shared by several processes, ends with the bytes of an unbroken one."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gald import files, paths
from gald.datasets._reader import PreparedSplit
from gald.errors import ParamsError, RunBusy
from gald.evaluate import counting
from gald.evaluate import journal as journals
from gald.evaluate import run as stage
from gald.evaluate.counting import counted
from gald.evaluate.journal import Journal
from gald.evaluate.run import evaluate
from gald.metrics.counts import Layout, count_image
from gald.params import Run
from gald.train.run import train

LAYOUT = Layout(3, (4, 9, 16))


@pytest.fixture
def trained(make_run: Callable[..., Run]) -> Run:
    run = make_run(train={"max_iters": 6, "warmup_iters": 0}, model={"distribution": {"name": "affinity"}})
    train(run)
    return run


def written(run: Run) -> dict[str, str]:
    found = [paths.metrics(run.name), *paths.predictions(run.name).iterdir()]
    return {path.name: files.sha256(path) for path in found}


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.repeat(rng.integers(0, 3, (4, 5)), 6, 0), 7, 1).astype(np.uint8)
    return truth, np.roll(truth, 2, axis=1)


def counts(seed: int) -> dict[str, np.ndarray]:
    return count_image(*drawn(seed), LAYOUT)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_stopped_evaluation_goes_on_where_it_was(trained: Run, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    evaluate(trained)
    expected = written(trained)
    paths.metrics(trained.name).unlink()
    real, asked = counting.count_image, []

    def failing(*arguments: object) -> dict[str, np.ndarray]:
        if len(asked) == after:
            raise KeyboardInterrupt
        asked.append(1)
        return real(*arguments)

    monkeypatch.setattr(counting, "count_image", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate(trained)
    assert not paths.metrics(trained.name).exists()
    monkeypatch.setattr(counting, "count_image", lambda *arguments: asked.append(2) or real(*arguments))
    evaluate(trained)
    assert asked.count(2) == 5 - after
    assert written(trained) == expected
    assert not paths.evaluation_dir(trained.name).exists()


@pytest.mark.parametrize("pattern", ["*.npz", "*.png", "*.group"])
def test_a_kill_while_the_counts_are_removed_loses_no_picture(
    trained: Run, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    evaluate(trained)
    expected = written(trained)

    place = paths.evaluation_dir(trained.name).parent

    def killed(folder: Path, **options: bool) -> None:
        if folder.parent != place or not folder.exists():
            return shutil.rmtree(folder, **options)
        for path in folder.rglob(pattern):  # in whatever order the file system lists them
            path.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(files, "shutil", SimpleNamespace(rmtree=killed))
        with pytest.raises(KeyboardInterrupt):
            evaluate(trained)
    assert any(place.rglob("*.counts"))
    assert written(trained) == expected
    evaluate(trained)
    assert written(trained) == expected


def test_what_other_weights_counted_is_not_believed(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(stage, "_publish", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            evaluate(trained)
    record = paths.run_json(trained.name)
    record.write_text(record.read_text() + "\n")  # another training's
    asked: list[int] = []
    real = counting.count_image
    monkeypatch.setattr(counting, "count_image", lambda *arguments: asked.append(1) or real(*arguments))
    evaluate(trained)
    assert len(asked) == 5


@pytest.mark.parametrize("size", [2, 3, 7])
def test_processes_share_the_images_and_count_each_once(
    trained: Run, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    evaluate(trained)
    expected = written(trained)
    monkeypatch.setenv("WORLD_SIZE", str(size))
    asked: list[int] = []
    real = counting.count_image
    monkeypatch.setattr(counting, "count_image", lambda *arguments: asked.append(1) or real(*arguments))
    for rank in (*range(1, size), 0):  # the first process waits for the others
        monkeypatch.setenv("RANK", str(rank))
        evaluate(trained)
    assert len(asked) == 5
    assert written(trained) == expected


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("first", "2")])
def test_an_environment_that_cannot_be_is_refused(
    trained: Run, monkeypatch: pytest.MonkeyPatch, rank: str, size: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(ParamsError, match="RANK"):
        evaluate(trained)


def test_an_entry_cut_short_or_altered_is_counted_again(tmp_path: Path) -> None:
    with Journal(tmp_path, "a" * 64, LAYOUT) as journal:
        for index in range(3):
            journal.append(index, counts(index))
        path = journal.folder / "0.counts"
    whole = path.read_bytes()
    for content, known in ((whole[:-1], {0, 1}), (whole + b"gald\1\0\0\0", {0, 1, 2}), (b"", set())):
        path.write_bytes(content)
        with Journal(tmp_path, "a" * 64, LAYOUT) as journal:
            assert journal.indices() == known
            journal.append(7, counts(7))
            assert journal.indices() == known | {7}
            for index, found in zip(sorted({*known, 7}), journal.counts({*known, 7}), strict=True):
                expected = counts(index)
                assert found.keys() == expected.keys()
                assert all((found[name] == expected[name]).all() for name in expected)
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 1
    path.write_bytes(broken)
    with Journal(tmp_path, "a" * 64, LAYOUT) as journal:
        assert journal.indices() < {0, 1, 2}
    with Journal(tmp_path, "b" * 64, LAYOUT) as journal:
        assert journal.indices() == set()
    assert [folder.name for folder in tmp_path.iterdir()] == ["b" * 16]


def test_a_process_writes_nothing_before_the_first_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_PATIENCE_S", -1.0)
    with Journal(tmp_path, "a" * 64, LAYOUT, 0, 2, "one start") as first:
        first.append(0, counts(0))
        with pytest.raises(RunBusy, match="process 0 did not begin"):
            Journal(tmp_path, "a" * 64, LAYOUT, 1, 2, "another start")
        assert not (first.folder / "1.counts").exists()
        with Journal(tmp_path, "a" * 64, LAYOUT, 1, 2, "one start") as second:
            assert second.indices() == {0}
    with Journal(tmp_path, "a" * 64, LAYOUT) as first, pytest.raises(RunBusy):  # one process alone, after a kill
        Journal(tmp_path, "a" * 64, LAYOUT, 1, 2, "one start")


def test_the_first_process_ends_when_the_others_have_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path, "a" * 64, LAYOUT, 0, 2, "one start") as first:
        other = Journal(tmp_path, "a" * 64, LAYOUT, 1, 2, "one start")
        for index, journal in enumerate((first, other)):
            journal.append(index, counts(index))
        steps = iter([lambda: None, lambda: other.__exit__(None, None, None)])
        monkeypatch.setattr(journals.time, "sleep", lambda _: next(steps)())
        first.wait_for(range(2))  # nothing is left to count, but the other may still look at the folder
        assert next(steps, None) is None


def test_a_process_that_left_unseen_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_TELL_EVERY_S", -1.0)
    with Journal(tmp_path, "a" * 64, LAYOUT, 0, 2, "one name") as killed:
        for index in range(2):
            killed.append(index, counts(index))
    with Journal(tmp_path, "a" * 64, LAYOUT, 1, 2, "one name") as early:  # believes what the killed start has signed
        assert early.indices() == {0, 1}
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert len(slept) < 10

    monkeypatch.setattr(journals.time, "sleep", sleep)
    with Journal(tmp_path, "a" * 64, LAYOUT, 0, 2, "one name") as first:
        first.wait_for(range(2))
        assert len(slept) == 3
        with pytest.raises(AssertionError):
            first.wait_for(range(3))  # an image that nobody has counted is waited for as long as it takes


def test_counts_of_another_torch_are_not_believed(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    split = PreparedSplit(paths.prepared("mini", "camvid"), ["test"])
    before = counting.identity(trained, trained.params.evaluate, split.manifest_sha256, LAYOUT)
    assert counting.identity(trained, trained.params.evaluate, split.manifest_sha256, LAYOUT) == before
    monkeypatch.setattr(counting.torch, "__version__", "0.0")
    assert counting.identity(trained, trained.params.evaluate, split.manifest_sha256, LAYOUT) != before


@pytest.mark.parametrize("counters", [0, 1, 3])
def test_counting_beside_keeps_the_order(counters: int) -> None:
    found = list(counted(((index, *drawn(index)) for index in range(9)), LAYOUT, counters))
    assert [index for index, _ in found] == list(range(9))
    for index, one in found:
        assert all((one[name] == values).all() for name, values in counts(index).items())


CHILD = """
import os, pickle, random, signal, sys, threading, time
from gald.evaluate.run import evaluate
run = pickle.load(open(sys.argv[1], "rb"))
wait = float(sys.argv[2])
threading.Thread(target=lambda: (time.sleep(wait), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()
evaluate(run)
"""


@pytest.mark.slow
def test_kills_at_any_moment_leave_nothing_wrong(trained: Run, tmp_path: Path) -> None:
    import pickle

    evaluate(trained)
    expected = written(trained)
    (tmp_path / "run.pickle").write_bytes(pickle.dumps(trained))
    killed = 0
    for wait in np.linspace(0, 0.3, 5):
        command = [sys.executable, "-c", CHILD, str(tmp_path / "run.pickle"), str(wait)]
        done = subprocess.run(command, capture_output=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
        killed += done.returncode == -signal.SIGKILL
        if not paths.metrics(trained.name).exists():
            continue
        assert written(trained) == expected
    assert killed
    evaluate(trained)
    assert written(trained) == expected


@pytest.mark.slow
def test_torchrun_shares_an_evaluation(trained: Run, tmp_path: Path) -> None:
    import pickle

    evaluate(trained)
    expected = written(trained)
    (tmp_path / "run.pickle").write_bytes(pickle.dumps(trained))
    script = tmp_path / "share.py"
    script.write_text("import pickle, sys\nfrom gald.evaluate.run import evaluate\n"
                      "evaluate(pickle.load(open(sys.argv[1], 'rb')))\n")  # fmt: skip
    options = ["--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(script)]
    done = subprocess.run([*command, str(tmp_path / "run.pickle")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert written(trained) == expected
