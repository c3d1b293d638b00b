"""A prepare that was stopped: what was done is not done again, and what comes out is the same."""

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from unittest import mock

import pytest

from gald import paths
from gald.datasets import load_spec
from gald.datasets._spec import RawSample
from gald.errors import DatasetError
from gald.prepare.convert import Record
from gald.prepare.journal import Journal
from gald.prepare.run import prepare
from tests.processes import alive, children, wait_until
from tests.unit.prepare.conftest import relist

Make = Callable[..., SimpleNamespace]
LayOut = Callable[..., Path]

PART = Path("data/prepared/mini/.camvid.part")
STAGES = """
    import logging, sys
    from types import SimpleNamespace
    from gald.datasets import load_spec
    from gald.datasets._native import MINIATURES
    from gald.download.run import download
    from gald.prepare import pool
    from gald.prepare.run import prepare
    if __name__ == "__main__":
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        MINIATURES["camvid"] = MINIATURES["camvid"]._replace(splits={"train": 100, "val": 20, "test": 30})
        params = SimpleNamespace(
            seed=3, source=lambda name: load_spec(name).source, processes=int(sys.argv[1]), on_error="stop"
        )
        print("up", flush=True)
        download("mini", "camvid", params)
        print("downloaded", flush=True)
        prepare("mini", "camvid", params)
"""


@pytest.fixture
def stopped(lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Raw files of CamVid, whose prepare was stopped after six of its fifteen samples."""
    root = lay_out("camvid")
    noted: list[Record] = []
    append = Journal.append

    def stop(journal: Journal, record: Record) -> None:
        if len(noted) == 6:
            raise KeyboardInterrupt
        noted.append(record)
        append(journal, record)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare("mini", "camvid", params())
    assert not paths.prepared("mini", "camvid").exists()
    return root


def whole(params: Make) -> bytes:
    """The manifest as made without any stop, from the same raw data."""
    here = paths.prepared("mini", "camvid")
    if here.exists():
        here.rename("kept")
    return prepare("mini", "camvid", params()).read_bytes()


def test_what_was_done_is_not_done_again(
    stopped: Path, params: Make, converted: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = prepare("mini", "camvid", params()).read_bytes()
    assert len(converted) == len(set(converted)) == 9
    assert "mini/camvid: going on: 6 of 15 samples were done" in caplog.text
    assert not PART.exists()
    assert whole(params) == made


@pytest.mark.parametrize("spoil", ["mask", "image", "raw"])
def test_what_was_spoilt_meanwhile_is_made_again(spoil: str, stopped: Path, params: Make, converted: list[str]) -> None:
    mask = min((PART / "masks" / "train").iterdir())
    if spoil == "mask":
        mask.write_bytes(mask.read_bytes()[::-1])
    elif spoil == "image":
        (PART / "images" / "train" / mask.name).unlink()
    else:
        raw = stopped / "CamVid" / "train" / mask.name
        content = raw.read_bytes()
        raw.unlink()  # rather than to write through the link
        raw.write_bytes(content)  # the same, but of another time
    made = prepare("mini", "camvid", params()).read_bytes()
    assert len(converted) == 10
    assert mask.stem in converted
    assert whole(params) == made


def test_other_raw_data_starts_anew(stopped: Path, params: Make, converted: list[str]) -> None:
    (PART / "rest").mkdir()
    (PART / "rest.csv").write_text("")
    (stopped / "more.txt").write_text("of another version")
    relist("camvid")
    folder = prepare("mini", "camvid", params()).parent
    assert len(converted) == 15
    assert not (folder / "rest").exists()
    assert not (folder / "rest.csv").exists()


def test_a_file_put_right_is_all_that_is_done(lay_out: LayOut, params: Make, converted: list[str]) -> None:
    image = min((lay_out("camvid") / "CamVid" / "train").iterdir())
    content = image.read_bytes()
    image.write_bytes(content[:99])
    with pytest.raises(DatasetError, match="1 problem with"):
        prepare("mini", "camvid", params())
    assert len(converted) == 15
    image.write_bytes(content)
    made = prepare("mini", "camvid", params()).read_bytes()
    assert converted[15:] == [image.stem]
    assert whole(params) == made


def test_rests_of_samples_no_longer_listed_are_removed(
    stopped: Path, params: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, spec = min((PART / "masks" / "train").iterdir()).name, load_spec("camvid")

    def fewer(raw: Path) -> dict[str, list[RawSample]]:
        found = spec.index(raw)
        return found | {"train": [sample for sample in found["train"] if sample.image.name != name]}

    monkeypatch.setattr("gald.datasets.camvid.SPEC", replace(spec, index=fewer))
    folder = prepare("mini", "camvid", params()).parent
    assert not (folder / "images" / "train" / name).exists()
    assert not (folder / "masks" / "train" / name).exists()
    assert len(list((folder / "masks" / "train").iterdir())) == 8


@pytest.mark.parametrize(
    ("moment", "after", "left"),
    [
        ("gald.prepare.convert.encode_mask", 7, 8),
        ("gald.prepare.journal.Journal.append", 7, 8),
        ("gald.prepare.run._sweep", 0, 0),
        ("gald.prepare.run.keep", 0, 0),
        ("gald.prepare.manifest.write_text", 1, 0),
        ("gald.prepare.manifest.write_json", 0, 0),
        ("gald.prepare.journal.Journal.remove", 0, 0),
        ("gald.prepare.run.take_place", 0, 0),
        ("pathlib.Path.rename", 0, 0),
        ("pathlib.Path.rename", 1, 0),  # an older folder has stepped aside, and nothing bears the name
    ],
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # the child ends without using them
def test_killed_at_a_bad_moment(
    moment: str, after: int, left: int, lay_out: LayOut, params: Make, converted: list[str]
) -> None:
    """Die as by kill -9 at the call of a function, after so many calls of it; then run again."""
    lay_out("camvid")
    made, folder = paths.manifest("mini", "camvid"), paths.prepared("mini", "camvid")
    reference = prepare("mini", "camvid", params()).read_bytes()
    if (moment, after) == ("pathlib.Path.rename", 1):
        made.write_text("{}")  # the older folder is not whole
    else:
        folder.rename("reference")
    process = os.fork()
    if process == 0:
        die_at(moment, after, params())
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    assert not made.exists()
    converted.clear()
    assert prepare("mini", "camvid", params()).read_bytes() == reference
    assert len(converted) == left
    assert [path.name for path in folder.parent.iterdir()] == ["camvid"]


def die_at(moment: str, after: int, section: SimpleNamespace) -> None:
    """Prepare in a forked process, and end it without a word."""
    real = resolve_name(moment)
    calls: list[None] = []

    def dying(*arguments: object) -> object:
        if len(calls) == after:
            os._exit(9)
        calls.append(None)
        return real(*arguments)

    try:
        with mock.patch(moment, dying):
            prepare("mini", "camvid", section)
    finally:
        os._exit(1)


@pytest.fixture
def start(repository: Path) -> Iterator[Callable[[Path, int], subprocess.Popen[str]]]:
    """Start download and prepare as a process of its own, in a given folder."""
    script = repository / "stages.py"
    script.write_text(textwrap.dedent(STAGES))
    begun: list[subprocess.Popen[str]] = []

    def begin(folder: Path, processes: int) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, str(script), str(processes)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def journaled(folder: Path) -> int:
    try:
        return (folder / PART / "journal.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


def end(process: subprocess.Popen[str], victim: int) -> bool:
    """Kill a process or one of its workers, so that all of them are gone soon; whether that stopped it."""
    family = [process.pid, *children(process.pid)]
    with contextlib.suppress(ProcessLookupError):  # it was faster
        os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=120)
    wait_until(lambda: not any(map(alive, family)))
    return process.returncode != 0


@pytest.mark.slow
def test_killed_with_its_workers(tmp_path: Path, start: Callable[[Path, int], subprocess.Popen[str]]) -> None:
    reference, folder = tmp_path / "reference", tmp_path / "killed"
    assert start(reference, 1).wait(120) == 0
    for lines, choose in ((20, lambda parent: parent), (70, lambda parent: children(parent)[-1])):
        process = start(folder, 2)
        wait_until(lambda lines=lines: journaled(folder) > lines)  # type: ignore[misc]
        assert end(process, choose(process.pid))
        assert journaled(folder) > lines
        assert not (folder / paths.prepared("mini", "camvid")).exists()
    assert start(folder, 2).wait(120) == 0
    manifest = paths.manifest("mini", "camvid")
    assert (folder / manifest).read_bytes() == (reference / manifest).read_bytes()


@pytest.mark.slow
def test_killed_at_random(tmp_path: Path, start: Callable[[Path, int], subprocess.Popen[str]]) -> None:
    """Kills over download, unpacking and prepare; whenever it comes to an end, the manifest is the same."""
    manifest, generator = paths.manifest("mini", "camvid"), random.Random(0)
    process, moments = start(tmp_path / "reference", 2), []
    while process.stdout is not None and (process.stdout.readline() or len(moments) < 3):
        moments.append(time.monotonic())  # it is up; it has downloaded; it is done
    lengths = {"download": moments[1] - moments[0], "prepare": moments[2] - moments[1]}
    assert process.wait(120) == 0
    reference = (tmp_path / "reference" / manifest).read_bytes()
    kills = {"download": 0, "prepare": 0, "worker": 0}
    ends = 0
    while min(kills.values()) < 7:
        folder, stage = tmp_path / f"attempt{ends}", generator.choice(list(lengths))
        process = start(folder, 2)
        assert process.stdout is not None
        process.stdout.readline()
        if stage == "prepare":
            process.stdout.readline()
        time.sleep(generator.uniform(0, lengths[stage]))
        workers = children(process.pid)
        victim = generator.choice([process.pid, *workers, *workers])
        if end(process, victim):
            kills["worker" if victim != process.pid else stage] += 1
        if (folder / manifest).exists():
            assert (folder / manifest).read_bytes() == reference
            ends += 1  # and the next begins with an empty folder
    assert start(folder, 2).wait(120) == 0
    assert (folder / manifest).read_bytes() == reference
