"""A real process, killed or interrupted at any moment of download and extraction, and the same command again."""

import io
import json
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gald.files import tree_digest

NAMES = ("one", "two")
CODE = """
import dataclasses, sys
from types import SimpleNamespace
from gald import cli
from gald.datasets import camvid
from gald.datasets._spec import Archive
from gald.download import run, transfer

transfer.PAUSE = 0.1
archives = tuple(Archive(f"{name}.zip", (f"{sys.argv[1]}/{name}.zip",)) for name in ("one", "two"))
camvid.SPEC = dataclasses.replace(camvid.SPEC, archives=archives, tree_sha256=None)
params = SimpleNamespace(seed=0, source=lambda _: "segnet")
cli.data._download = lambda _: run.download("full", "camvid", params)
sys.exit(cli.main(["download", "full/camvid"]))
"""


def content(seed: int, count: int) -> bytes:
    generator = random.Random(seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(count):
            archive.writestr(f"{seed}/{index:04d}.bin", generator.randbytes(1500))
    return buffer.getvalue()


@pytest.fixture
def start(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., "subprocess.Popen[str]"]:
    """Start the command in a folder of its own; CamVid is two archives of some hundred files on the site."""
    monkeypatch.delenv("GALD_DATA", raising=False)
    for number, name in enumerate(NAMES):
        site.add(f"{name}.zip", content=content(number, 900), rate=3e6)

    def started(folder: str) -> "subprocess.Popen[str]":
        (tmp_path / folder).mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", CODE, site.url], cwd=tmp_path / folder, stderr=subprocess.PIPE, text=True
        )

    return started


def ends_well(process: "subprocess.Popen[str]", folder: Path) -> bytes:
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    return (folder / "raw.json").read_bytes()


def raw(root: Path) -> Path:
    return root / "data" / "raw" / "full" / "camvid"


def whole_or_absent(folder: Path, sound: dict[str, Any], contents: dict[str, bytes]) -> None:
    """No final name stands for anything half-made."""
    for name, expected in contents.items():
        if (folder / "archives" / name).exists():
            assert (folder / "archives" / name).read_bytes() == expected
    if (folder / "files").exists():
        assert tree_digest(folder / "files") == sound["tree_sha256"]
    if (folder / "raw.json").exists():
        assert json.loads((folder / "raw.json").read_text()) == sound


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(
    seed: int, site: Any, start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    undisturbed = ends_well(start("undisturbed"), raw(tmp_path / "undisturbed"))
    sound = json.loads(undisturbed)
    contents = {f"{name}.zip": site.pages[f"/{name}.zip"].content for name in NAMES}
    total = sum(map(len, contents.values()))
    generator = random.Random(seed)
    folder, begun = raw(tmp_path / "killed"), 0
    downloads = sorted(generator.uniform(0.02, 0.98) for _ in range(4))
    unpackings = [generator.uniform(0.02, 0.8) for _ in range(4)]
    site.sent = 0
    for share in downloads:
        process = start("killed")
        wait_for(lambda share=share: site.sent > share * total, process)
        time.sleep(generator.uniform(0.0, 0.05))
        kill(process)
        whole_or_absent(folder, sound, contents)
        data = {f"{name}.zip" for name in NAMES} | {f".{name}.zip.part" for name in NAMES}  # and no small notes beside
        arrived = sum(path.stat().st_size for path in (folder / "archives").iterdir() if path.name in data)
        assert arrived >= begun  # what has arrived is never given up
        begun = arrived
    assert site.sent < 2 * total  # from the start each time, it would be some 3 times
    for share in unpackings:
        for _ in range(20):  # unpacking is quick, and may be done before the kill arrives
            process = start("killed")
            wait_for(lambda share=share: len(list(folder.glob(".files.part/*/*"))) > share * 1800, process)
            kill(process)
            whole_or_absent(folder, sound, contents)
            if not (folder / "raw.json").exists():
                break
            (folder / "raw.json").unlink()
        else:
            pytest.fail("no kill came before the end")
    assert ends_well(start("killed"), folder) == undisturbed
    assert tree_digest(folder / "files") == tree_digest(raw(tmp_path / "undisturbed") / "files")
    assert sorted(path.name for path in folder.iterdir()) == ["archives", "files", "files.sha256", "raw.json"]
    names = sorted(path.name for path in (folder / "archives").iterdir())
    assert names == [".one.zip.source", ".two.zip.source", "one.zip", "two.zip"]


def wait_for(moment: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    while not moment() and process.poll() is None:
        time.sleep(0.001)


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_a_download_that_hangs(
    number: signal.Signals, site: Any, start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    """At once, and not after the half minute for which a server may be silent; the parts stay."""
    for name in NAMES:
        site.pages[f"/{name}.zip"].faults = ["stall 200000"]
        site.pages[f"/{name}.zip"].rate = None
    process = start("interrupted")
    parts = [raw(tmp_path / "interrupted") / "archives" / f".{name}.zip.part" for name in NAMES]
    wait_for(lambda: all(path.exists() and path.stat().st_size >= 100_000 for path in parts), process)
    process.send_signal(number)
    _, told = process.communicate(timeout=25)  # in which the site is silent still
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)
    assert ("stopped; the same command goes on" in told) == (number == signal.SIGINT)
    assert "Traceback" not in told
    assert all(path.stat().st_size >= 100_000 for path in parts)
