import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gald.datasets._spec import RawSample
from gald.files import sha256
from gald.prepare.convert import Record, Task, raw_state
from gald.prepare.journal import Journal, still_true

IDENTITY = {"raw_sha256": "0" * 64, "converter": 2}


@pytest.fixture
def finished(tmp_path: Path) -> Callable[[str], tuple[Task, Record]]:
    """Write the files of one sample; return its task and its record."""

    def finish(name: str) -> tuple[Task, Record]:
        row: dict[str, str | int] = {"id": name, "image": f"{name}.jpg", "mask": f"{name}.png"}
        for suffix in ("jpg", "png"):
            (tmp_path / f"raw-{name}.{suffix}").write_bytes(b"raw")
            os.utime(tmp_path / f"raw-{name}.{suffix}", (1e9, 1e9))  # long ago: clocks of file systems tick slowly
            (tmp_path / f"{name}.{suffix}").write_bytes(f"{name} {suffix}".encode())
        sample = RawSample(name, tmp_path / f"raw-{name}.jpg", tmp_path / f"raw-{name}.png")
        written = [(path.stat().st_size, sha256(path)) for path in (tmp_path / f"{name}.jpg", tmp_path / f"{name}.png")]
        return Task("train", sample), Record("train", row, [1, 2], {"Void": 3}, ["cmyk"], written, raw_state(sample))

    return finish


def test_what_was_noted_is_known_again(tmp_path: Path, finished: Callable[[str], tuple[Task, Record]]) -> None:
    tasks, records = zip(*[finished(name) for name in "abc"], strict=True)
    for record in records:
        with Journal(tmp_path, IDENTITY) as journal:  # stopped after each
            journal.append(record)
    with Journal(tmp_path, IDENTITY) as journal:
        assert journal.known
        kept = still_true(journal.records, tasks, tmp_path, 2)
        assert [(one.row, one.counts, one.ignored, one.kinds) for one in kept] == [
            (one.row, one.counts, one.ignored, one.kinds) for one in records
        ]
        assert [one.row["id"] for one in still_true(journal.records, tasks[1:], tmp_path, 1)] == ["b", "c"]
        journal.remove()
    assert not Journal.present(tmp_path)


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_torn_line_is_passed_over(cut: int, tmp_path: Path, finished: Callable[[str], tuple[Task, Record]]) -> None:
    (_, record), (_, other), (_, third) = (finished(name) for name in "abc")
    with Journal(tmp_path, IDENTITY) as journal:
        journal.append(record)
        journal.append(other)
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    with Journal(tmp_path, IDENTITY) as journal:
        assert [one.row["id"] for one in journal.records] == ["a"]
        journal.append(third)
    with Journal(tmp_path, IDENTITY) as journal:
        assert [one.row["id"] for one in journal.records] == ["a", "c"]


def test_damaged_lines_are_no_records(tmp_path: Path, finished: Callable[[str], tuple[Task, Record]]) -> None:
    _, record = finished("a")
    with Journal(tmp_path, IDENTITY) as journal:
        journal.append(record)
    line = journal.path.read_text().splitlines()[1]
    without = {key: value for key, value in json.loads(line).items() if key != "raw"}
    damaged = (
        "\0\0\0",
        "[]",
        "{}",
        '{"split": 1}',
        json.dumps(without),
        line.replace('"image"', '"picture"'),
        "\udcff",
    )
    with journal.path.open("a", errors="surrogateescape") as file:
        file.writelines(f"{one}\n" for one in damaged)
    with Journal(tmp_path, IDENTITY) as journal:
        assert len(journal.records) == 1


@pytest.mark.parametrize("change", ["raw_sha256", "converter"])
def test_another_identity_is_not_believed(
    change: str, tmp_path: Path, finished: Callable[[str], tuple[Task, Record]]
) -> None:
    with Journal(tmp_path, IDENTITY) as journal:
        journal.append(finished("a")[1])
    for _ in range(2):
        with Journal(tmp_path, IDENTITY | {change: 7}) as journal:
            assert journal.records == []
    assert journal.known  # the second time, but as one of its own, and empty


def change_content(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a.jpg", Path.unlink),
        ("a.png", Path.unlink),
        ("a.jpg", change_content),
        ("a.png", change_content),
        ("a.png", lambda path: path.write_bytes(b"")),
        ("raw-a.jpg", change_content),
        ("raw-a.png", lambda path: path.touch()),
        ("raw-a.png", Path.unlink),
    ],
)
def test_changed_files_are_made_again(
    name: str,
    change: Callable[[Path], None],
    tmp_path: Path,
    finished: Callable[[str], tuple[Task, Record]],
) -> None:
    (task, record), (other_task, other) = finished("a"), finished("b")
    change(tmp_path / name)
    kept = still_true([record, other], [task, other_task], tmp_path, 1)
    assert [one.row["id"] for one in kept] == ["b"]
