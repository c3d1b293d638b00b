"""The command line's own part: what it offers, and how it ends."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald import bench, cli, paths
from gald.cli import measuring, networks
from gald.errors import GaldError
from gald.files import write_text
from gald.models.released import NETS


def test_offered_names_are_those_that_exist() -> None:
    assert sorted(NETS) == list(networks.RELEASED)
    files = {path.stem for path in Path(bench.__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    assert files == set(measuring.BENCHMARKS)


def test_help_is_quick_because_it_imports_little() -> None:
    code = "import sys; from gald.cli import parser; parser(); print({'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_cannot_be_predicted_ends_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("a.png")
    assert cli.main(["predict", "a.png", "--weights", "nowhere.safetensors"]) == 1
    assert "no weights at nowhere.safetensors" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["predict", "a.png"])  # of which network?


def test_impossible_sizes_are_refused_as_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["cost", "--size", "0", "5"]) == 2


@pytest.mark.parametrize("processes", ["0", "-3", "two", "1.5"])
def test_impossible_numbers_of_processes_are_refused_before_any_work(
    processes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["prepare", "mini/camvid", f"--processes={processes}"])
    assert ended.value.code == 2
    assert re.search(rf"argument --processes: .*{processes}", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statsu"], r"no verb is called 'statsu'; did you mean 'status'\?"),
        (["--version-of", "evalute", "RUN"], r"did you mean 'evaluate'\?"),
        ([], "exit status: 0 done, 1 failed"),
    ],
)
def test_a_mistyped_verb_is_answered_with_the_nearest_and_none_with_the_help(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert re.search(said, capsys.readouterr().err)


def test_a_misspelt_run_is_answered_with_the_nearest_that_has_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = paths.weights("mini/camvid/psp-seed0")
    weights.parent.mkdir(parents=True)
    weights.touch()
    for verb in (["predict", "a.png", "--run"], ["explain", "a.png", "--run"], ["export", "-o", "a.onnx"]):
        assert cli.main([*verb, "mini/camvid/psp-sed0"]) == 2
        assert "did you mean 'mini/camvid/psp-seed0'?" in capsys.readouterr().err


def test_only_warnings_of_the_package_are_spelt_without_their_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(args: object) -> None:
        for file in (Path(cli.__file__), tmp_path / "theirs.py"):
            sys.stderr.write(warnings.formatwarning("hardly local", UserWarning, str(file), 7))

    monkeypatch.setattr(cli.measuring, "_bench", warn)
    before = warnings.formatwarning
    assert cli.main(["bench", "loss"]) == 0
    own, foreign = capsys.readouterr().err.splitlines()
    assert own == "warning: hardly local"
    assert foreign.endswith("theirs.py:7: UserWarning: hardly local")
    assert warnings.formatwarning is before


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_ends_quietly(unbuffered: str) -> None:
    code = "import sys; from gald.cli import main; sys.exit(main(['datasets']))"
    reading, writing = os.pipe()
    os.close(reading)
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, env=env)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def breaks(args: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(cli.measuring, "_bench", breaks)
    assert cli.main(["bench", "loss"]) == 1
    assert "gald bench: [Errno 32] Broken pipe" in capsys.readouterr().err


def test_an_attempt_keeps_the_log_of_the_one_before_and_a_finished_run_begins_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(args: object) -> None:
        raise GaldError("the loss is inf")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.runs, "_train", fail)
    command = ["train", "mini/camvid/psp-seed0", "--log", "logs/train.log"]
    for attempts in (1, 2):
        assert cli.main(command) == 1
        assert Path("logs/train.log").read_text().count("the loss is inf") == attempts
    write_text(paths.run_json("mini/camvid/psp-seed0"), "{}")
    assert cli.main(command) == 1
    assert Path("logs/train.log").read_text().count("the loss is inf") == 1
    monkeypatch.setenv("RANK", "1")  # whose messages go where the first process writes
    assert cli.main(command) == 1
    assert Path("logs/train.log").read_text().count("the loss is inf") == 2


def test_a_log_can_be_asked_for_behind_torchrun() -> None:
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(["-m", "gald.cli", "train", "RUN", "--log-file", "train.log"])
    assert given.training_script_args == ["train", "RUN", "--log-file", "train.log"]
    assert cli.parser().parse_args(given.training_script_args).log == Path("train.log")
