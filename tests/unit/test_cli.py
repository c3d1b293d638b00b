"""The command line's own part: what it offers, and how it ends."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald import bench, cli
from gald.cli import measuring, networks
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
