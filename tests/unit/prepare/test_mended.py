"""A prepared folder that was damaged: the command finds it out by digest, and makes again what is damaged alone."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from gald.files import tree_digest
from gald.prepare.run import prepare

Make = Callable[..., SimpleNamespace]
LayOut = Callable[..., Path]


@pytest.fixture
def folder(lay_out: LayOut, params: Make, converted: list[str]) -> Path:
    """A prepared CamVid."""
    lay_out("camvid")
    made = prepare("mini", "camvid", params()).parent
    converted.clear()
    return made


def spoil(path: Path) -> None:
    """Flip a bit of a file, whose size stays; not through a link to the raw file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_damaged_file_is_found_by_its_digest(
    kind: str, folder: Path, params: Make, converted: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before, path = tree_digest(folder), min((folder / kind / "val").iterdir())
    spoil(path)
    prepare("mini", "camvid", params())
    assert converted == [path.stem]
    assert f"1 damaged or missing files, made again: {kind}/val/{path.name}" in caplog.text
    assert tree_digest(folder) == before  # manifest and records too
    assert [one.name for one in folder.parent.iterdir()] == ["camvid"]


@pytest.mark.parametrize("lost", ["manifest.json", "val.csv"])
def test_a_lost_manifest_costs_no_conversion(lost: str, folder: Path, params: Make, converted: list[str]) -> None:
    """A workflow removes a declared output before the job that is to make it."""
    before = tree_digest(folder)
    (folder / lost).unlink()
    prepare("mini", "camvid", params())
    assert converted == []
    assert tree_digest(folder) == before


def test_without_records_all_is_made_again(folder: Path, params: Make, converted: list[str]) -> None:
    before = tree_digest(folder)
    (folder / "records.jsonl").unlink()
    prepare("mini", "camvid", params())
    assert len(converted) == 15
    assert tree_digest(folder) == before


def test_the_records_name_no_machine(folder: Path, params: Make) -> None:
    head, *lines = (folder / "records.jsonl").read_text().splitlines()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert json.loads(head)["raw_sha256"] == manifest["raw_sha256"]
    records = [json.loads(line) for line in lines]
    assert all(record["raw"] == [] for record in records)
    assert [record["split"] for record in records] == ["train"] * 9 + ["val"] * 3 + ["test"] * 3
    folder.rename("former")
    assert (prepare("mini", "camvid", params()).parent / "records.jsonl").read_text() == "\n".join([head, *lines, ""])


@pytest.mark.parametrize("moment", ["pathlib.Path.replace", "pathlib.Path.rename", "gald.prepare.run.make"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # the child ends without using them
def test_killed_while_it_is_mended(moment: str, folder: Path, params: Make, converted: list[str]) -> None:
    before, path = tree_digest(folder), min((folder / "masks" / "train").iterdir())
    spoil(path)
    process = os.fork()
    if process == 0:
        try:
            with mock.patch(moment, side_effect=lambda *_: os._exit(9)):
                prepare("mini", "camvid", params())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    prepare("mini", "camvid", params())
    assert converted == [path.stem]
    assert tree_digest(folder) == before


def test_a_long_comparison_is_told(
    folder: Path, params: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gald.prepare.journal._TELL_FROM", 20)
    caplog.set_level(logging.INFO)
    prepare("mini", "camvid", params())
    assert "comparing 30 files with their digests" in caplog.text
