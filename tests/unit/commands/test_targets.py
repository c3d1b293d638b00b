"""Results that cannot be written are refused before any work."""

from pathlib import Path

import pytest

from gald import cli
from gald.commands._targets import check_file, check_folder
from gald.errors import ParamsError
from tests.unit.conftest import REPOSITORY


def test_what_can_be_written_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").write_text("{}")
    for path in (None, Path("new.json"), Path("old.json"), Path("a/b/new.json"), tmp_path / "c" / "new.json"):
        check_file("-o", path)
    for path in (None, Path(), Path("new"), Path("a/b/new")):
        check_folder("-o", path)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "old.json"]


def test_what_cannot_is_named_with_its_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ParamsError, match="-o folder is a folder; name a file"):
        check_file("-o", Path("folder"))
    with pytest.raises(ParamsError, match="--out file: file is a file; name a folder for the results"):
        check_folder("--out", Path("file"))
    for check in (check_file, check_folder):
        with pytest.raises(ParamsError, match="-o file/a/b: file is a file; name a f"):
            check("-o", Path("file/a/b"))
        with monkeypatch.context() as patched:
            patched.setattr("os.access", lambda *_: False)
            with pytest.raises(ParamsError, match="cannot be written; name another place"):
                check("-o", Path("folder/x"))


def test_commands_refuse_them_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").symlink_to(REPOSITORY / "params")
    (tmp_path / "file").write_text("")
    runs = ["mini/cityscapes/psp-seed0", "mini/cityscapes/psp-seed1"]
    assert cli.main(["compare", *runs, "-o", "file"]) == 2
    assert "gald compare: -o file: file is a file; name a folder for the results" in capsys.readouterr().err
    assert cli.main(["evaluate", "mini/camvid", "--predictions", "folder", "-o", "file/scores.json"]) == 2
    assert "-o file/scores.json: file is a file; name a file in a folder" in capsys.readouterr().err
    assert cli.main(["evaluate", "mini/camvid", "--predictions", "folder", "-o", "."]) == 2
    assert "-o . is a folder; name a file" in capsys.readouterr().err
