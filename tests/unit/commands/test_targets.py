"""Results that cannot be written are refused before any work."""

import os
from pathlib import Path

import pytest

from gald import cli, paths
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
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(ParamsError, match="-o folder is a folder; name a file"):
        check_file("-o", Path("folder"))
    with pytest.raises(ParamsError, match="--out file: file is a file; name a folder for the results"):
        check_folder("--out", Path("file"))
    for check in (check_file, check_folder):
        with pytest.raises(ParamsError, match="-o file/a/b: file is a file; name a f"):
            check("-o", Path("file/a/b"))
        with pytest.raises(ParamsError, match="-o gone/a: gone is a link that leads nowhere; name a f"):
            check("-o", Path("gone/a"))
        with monkeypatch.context() as patched:
            patched.setattr("os.access", lambda *_: False)
            with pytest.raises(ParamsError, match="cannot be written; name another place"):
                check("-o", Path("folder/x"))


def test_neither_a_device_nor_what_is_read_is_written_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), Path("/dev/new"), tmp_path / "pipe"):
        with pytest.raises(ParamsError, match=f"--csv {path} is a device or a pipe; name a file"):
            check_file("--csv", path)
    source = tmp_path / "in.pth"
    source.write_bytes(b"")
    (tmp_path / "link").symlink_to(source)
    for path in (source, tmp_path / "sub/../in.pth", tmp_path / "link"):
        with pytest.raises(ParamsError, match="is what is read here; name another file"):
            check_file("-o", path, read=[tmp_path / "x", source])
    check_file("-o", tmp_path / "out.pth", read=[tmp_path / "x", source])


def test_files_of_trainings_are_refused_by_whatever_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = paths.weights("mini/camvid/psp-seed3")
    kept = paths.checkpoint_dir("mini/camvid/psp-seed3") / "best-000000010.safetensors"
    for file in (weights, kept):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"of a training")
    Path("link").symlink_to(weights.parent.absolute())
    Path("named").symlink_to(weights)
    Path("loop").symlink_to("loop")
    (weights.parent / "out").symlink_to(tmp_path)
    Path("beside").mkdir()
    below = [weights, kept, weights.absolute(), Path("beside/..") / weights, Path("link/new"), weights.parent / "out"]
    for path in [*below, Path("named"), Path("link"), paths.RUNS, paths.STATE / "new/folder"]:
        for check in (check_file, check_folder):
            with pytest.raises(ParamsError, match=r"-o \S+ lies in runs/ or \.gald/|-o \S+ is a folder"):
                check("-o", path)
    for path in (Path("runs.json"), Path("beside/runs/x"), Path("loop")):
        check_file("-o", path)


@pytest.mark.parametrize(
    "command",
    [
        "export in.onnx -o ./in.onnx",
        "import-weights in.pth --net gald_res50 -o ./in.pth",
        "cost tiny.safetensors in.safetensors --csv ./in.safetensors",
    ],
)
def test_no_command_writes_over_what_it_reads(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in command.split():
        Path(word).touch()
    assert cli.main(command.split()) == 2
    assert "is what is read here; name another file for the result" in caplog.text


@pytest.mark.parametrize(
    "command",
    [
        "export in.safetensors -o {}.onnx",
        "export in.safetensors -o {}.pt2",
        "import-weights in.pth --net gald_res50 -o {}",
        "cost --csv {}",
        "predict picture.png --weights in.safetensors -o {}",
        "explain picture.png --weights in.safetensors -o {}",
        "evaluate mini/camvid --predictions masks -o {}",
        "compare mini/cityscapes/psp-seed0 mini/cityscapes/psp-seed1 -o {}",
        "params mini --log {}",
    ],
)
@pytest.mark.parametrize("folder", ["runs", ".gald"])
def test_no_command_writes_among_them(
    command: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").symlink_to(REPOSITORY / "params")
    assert cli.main(command.format(f"{folder}/mini/camvid/psp-seed0/x").split()) == 2
    assert f"{folder}/mini/camvid/psp-seed0/x" in caplog.text
    assert "lies in runs/ or .gald/, whose files are trainings'; name another place" in caplog.text
    assert not (tmp_path / folder).exists()


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
