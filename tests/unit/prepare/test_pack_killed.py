"""Kills of `gald pack`: what they leave behind, and what the same command makes of it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gald import files, paths
from gald.datasets._reader import PreparedSplit
from gald.prepare import _layout
from gald.prepare.pack import pack
from tests.unit.conftest import write_prepared
from tests.unit.prepare.test_pack import SCENE, contents


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten and five scenes, of which three fill a shard."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_layout, "SHARD_BYTES", 3 * SCENE)
    folder = paths.prepared("mini", "camvid")
    write_prepared(folder, {"train": 10, "test": 5})
    return folder


KILLED = """
import os, signal, sys
from gald.prepare import _layout, pack
_layout.SHARD_BYTES = int(sys.argv[1])
left = int(sys.argv[2])
def hook(event, arguments):
    global left
    if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir") and "packed" in str(arguments[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
pack.pack("mini", "camvid")
"""


def killed_while_packing(moment: int) -> bool:
    """Pack in a process that is killed at the n-th time it opens, renames or removes something of the store."""
    command = [sys.executable, "-c", KILLED, str(3 * SCENE), str(moment)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def begin(start: str, whole: dict[str, bytes]) -> None:
    """Put the packed data into the state that the name says."""
    folder = paths.packed("mini", "camvid")
    shutil.rmtree(folder.parent)
    if start == "nothing":
        return
    folder.mkdir(parents=True)
    for name, content in whole.items():
        (folder.parent.parent / name).write_bytes(content)
    if start == "damaged":
        os.truncate(folder / "test-00000.bin", 7)
    else:
        record = json.loads((folder / "store.json").read_text())
        files.write_json(folder / "store.json", record | {"manifest_sha256": "0" * 64})


def check_kill(prepared: Path, start: str, moment: int, whole: dict[str, bytes]) -> bool:
    """Kill a pack at a moment, see that what is left does no harm, and let the same command go on."""
    begin(start, whole)
    killed = killed_while_packing(moment)
    if start != "damaged":  # which no reader would take before either
        data = PreparedSplit(prepared, ("train", "test"))
        assert [data.verified(i).id for i in range(15)] == data.ids
    pack("mini", "camvid")
    assert contents() == whole
    return killed


@pytest.mark.parametrize(("start", "moments"), [("nothing", 3), ("damaged", 1), ("other data", 1)])
def test_killed_at_any_moment_the_same_command_ends_the_same(prepared: Path, start: str, moments: int) -> None:
    pack("mini", "camvid")
    whole = contents()
    for moment in random.Random(start).sample(range(12, 30), moments):
        assert check_kill(prepared, start, moment, whole)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["nothing", "damaged", "other data"])
def test_killed_at_every_moment_the_same_command_ends_the_same(prepared: Path, start: str) -> None:
    pack("mini", "camvid")
    whole = contents()
    moment = 0
    while check_kill(prepared, start, moment, whole):
        moment += 1
    assert moment > 20
